"""The captioner's part of `benchmarks.speed`: a decode step in plain torch, in ours and compiled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from benchmarks.captioner import Inputs, make_captioner, make_inputs
from benchmarks.plain_captioner import PlainCaptioner
from saaa.models.captioner import BOS, SPECIAL, UNK, Captioner
from saaa.models.captioner.decoder import StepWeights
from saaa.runtime.caption_parity import CaptionReference, measure_captions
from saaa.runtime.caption_steps import OpenVinoSteps
from saaa.runtime.caption_tracing import trace_step
from saaa.runtime.options import INT8

ROWS = (1, 16, 80)
PARITY_GRAPHS = 32

Call = Callable[[], object]
Medians = Callable[[Mapping[str, Call], int], dict[str, float]]


def captioning(precision: str, rounds: int, medians: Medians) -> dict[str, Any]:
    """ "decode_step" and "decode_parity", see `benchmarks.speed`; `medians` has calls take turns."""
    captioner = make_captioner().requires_grad_(False)
    graph = trace_step(captioner)
    kinds = {"ours": precision, "ours_int8": INT8}
    steps = {name: OpenVinoSteps(graph, captioner.decoder, precision=kind, threads=1) for name, kind in kinds.items()}
    weights = captioner.decoder.weights(frozen=True)
    data = make_inputs(PARITY_GRAPHS, seed=1)
    reference = CaptionReference.make(captioner, *data.seen)
    parity = {kind: measure_captions(reference, captioner, steps[name]).describe() for name, kind in kinds.items()}
    timed = {rows: medians(step_calls(captioner, steps, weights, make_inputs(rows)), rounds) for rows in ROWS}
    return {"decode_step": timed, "decode_parity": parity}


@torch.inference_mode()
def step_calls(
    captioner: Captioner, steps: Mapping[str, OpenVinoSteps], weights: StepWeights, data: Inputs
) -> dict[str, Call]:
    """The steps, from the same state and words, one row a caption."""
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
        return decoder.advance(state, guide, decoder.word_gates(last, weights), weights)[1]

    def compiled(own: OpenVinoSteps) -> Callable[[], Tensor]:
        @torch.inference_mode()
        def call() -> Tensor:
            return own(state, guide, last)[1]

        return call

    ours = {name: compiled(own) for name, own in steps.items()}
    wanted = published()
    for call in (eager, *ours.values()):
        torch.testing.assert_close(call(), wanted, atol=0.3, rtol=1e-2)  # the same step, if rounded
    return {"torch_fp32": published, "torch": eager, **ours}
