"""The captioner's part of `benchmarks.speed`: a decode step in plain torch, in ours and compiled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from benchmarks.captioner import Inputs, make_captioner, make_inputs
from benchmarks.plain_captioner import PlainCaptioner
from saaa.models.captioner import BOS, SPECIAL, UNK, Captioner
from saaa.models.captioner.decoder import StepWeights, log_chances
from saaa.runtime.caption_parity import CaptionReference, measure_captions
from saaa.runtime.caption_steps import OpenVinoSteps
from saaa.runtime.caption_tracing import trace_step

ROWS = (1, 16, 80)
PARITY_GRAPHS = 32

Call = Callable[[], object]
Medians = Callable[[Mapping[str, Call], int], dict[str, float]]


def captioning(precision: str, rounds: int, medians: Medians) -> dict[str, Any]:
    """ "decode_step" and "decode_parity", see `benchmarks.speed`; `medians` has calls take turns."""
    captioner = make_captioner().requires_grad_(False)
    steps = OpenVinoSteps(trace_step(captioner), captioner.decoder, precision=precision, threads=1)
    weights = captioner.decoder.weights(frozen=True)
    data = make_inputs(PARITY_GRAPHS, seed=1)
    reference = CaptionReference.make(captioner, *data.seen)
    parity = measure_captions(reference, captioner, steps).describe()
    timed = {rows: medians(step_calls(captioner, steps, weights, make_inputs(rows)), rounds) for rows in ROWS}
    return {"decode_step": timed, "decode_parity": parity}


@torch.inference_mode()
def step_calls(captioner: Captioner, steps: OpenVinoSteps, weights: StepWeights, data: Inputs) -> dict[str, Call]:
    """The three steps, from the same state and words, one row a caption."""
    decoder, plain = captioner.decoder, PlainCaptioner(captioner)
    state, guide = captioner.begin(*data.seen)
    last = torch.arange(len(data.image)) + SPECIAL
    memory, image = plain.encode(*data.seen)
    begun = plain.begin(memory)

    @torch.inference_mode()
    def published() -> Tensor:
        logits, _ = plain.step(begun, image, data.graphs, last)
        logits[:, [BOS, UNK]] = -torch.inf
        return torch.log_softmax(logits, 1)

    @torch.inference_mode()
    def eager() -> Tensor:
        return log_chances(decoder.advance(state, guide, decoder.word_gates(last, weights), weights)[1])

    @torch.inference_mode()
    def compiled() -> Tensor:
        return log_chances(steps(state, guide, last)[1])

    wanted = published()
    for call in (eager, compiled):
        torch.testing.assert_close(call(), wanted, atol=0.05, rtol=1e-3)  # the same step, be it in bf16
    return {"torch_fp32": published, "torch": eager, "ours": compiled}
