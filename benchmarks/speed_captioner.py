"""The captioner's parts of `benchmarks.speed`: a decode step in plain torch, in ours and compiled; and what a trained
captioner says by the compiled step, beside torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.captioner import Inputs, make_captioner, make_inputs
from benchmarks.plain_captioner import PlainCaptioner
from benchmarks.speed_turns import Call, medians
from benchmarks.words import held_out
from saaa import archive
from saaa.models.captioner import BOS, SPECIAL, UNK, Captioner
from saaa.models.captioner.decoder import StepWeights, log_chances
from saaa.models.guided import GuidedCaptioner
from saaa.runtime.caption_parity import BEAM, CaptionReference, measure_captions
from saaa.runtime.caption_steps import OpenVinoSteps
from saaa.runtime.caption_tracing import trace_step
from saaa.work import CaptionOptions
from training.ega.metrics import cider

ROWS = (1, 16, 80)
PARITY_GRAPHS = 32

WIDTHS = {"greedy": 1, "beam": BEAM}


def captioning(precision: str, rounds: int) -> dict[str, Any]:
    """ "decode_step" and "decode_parity": see `benchmarks.speed`."""
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


def captions(path: Path, world: Path, images: int, precision: str) -> dict[str, Any]:
    """A trained captioner's captions of the world's validation pictures, by torch in fp32 and by the compiled step.

    Args:
        path: its archive.
        world: folder of the procedural world.
        images: how many pictures, at least 1, with all their regions.

    Returns:
        "graphs", and for "greedy" and "beam" search "equal" (share of the graphs whose captions are the same, word by
        word), "cider_torch", "cider_ours" and their "cider_ratio" (None where torch says nothing that anybody said).
    """
    guided = GuidedCaptioner.from_archive(archive.read(path)).requires_grad_(False)
    steps = OpenVinoSteps(trace_step(guided.captioner), guided.captioner.decoder, precision=precision, threads=1)
    references: list[tuple[str, ...]] = []
    said: dict[str, tuple[list[tuple[str, ...]], ...]] = {name: ([], []) for name in WIDTHS}
    for cases in held_out(guided, world, images):
        seen = guided.see(torch.stack([torch.from_numpy(case.pixels) for case in cases]), [c.graph for c in cases])
        references += [case.captions for case in cases]
        for name, width in WIDTHS.items():
            for made, advance in zip(said[name], (None, steps), strict=True):
                told = guided.caption_seen(seen, CaptionOptions(beam_width=width), advance)
                made += [best[0].words for best in told]
    found: dict[str, Any] = {"graphs": len(references)}
    for name, (plain, ours) in said.items():
        one, two = (float(cider(made, references).mean()) for made in (plain, ours))
        equal = sum(map(tuple.__eq__, plain, ours)) / len(references)
        found[name] = {"equal": equal, "cider_torch": one, "cider_ours": two, "cider_ratio": two / one if one else None}
    return found
