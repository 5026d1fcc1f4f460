"""The captioner's parts of `benchmarks.speed`: a decode step in plain torch, in ours and compiled; and what a trained
captioner says compiled, beside torch, and how long it takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.captioner import Inputs, make_captioner, make_inputs
from benchmarks.plain_captioner import PlainCaptioner
from benchmarks.speed_turns import Call, medians
from benchmarks.words import Case, held_out
from saaa import archive
from saaa.models.captioner import BOS, SPECIAL, UNK, Captioner
from saaa.models.captioner.decoder import StepWeights, log_chances
from saaa.models.guided import GuidedCaptioner
from saaa.models.parts import CaptionerParts
from saaa.runtime.caption_parity import BEAM
from saaa.runtime.caption_parts import OpenVinoCaptioner
from saaa.runtime.caption_tracing import trace_captioner, trace_words
from saaa.work import CaptionOptions
from training.ega.metrics import cider

ROWS = (1, 16, 80)
BATCHES = (1, 8)
WIDTHS = {"greedy": 1, "beam": BEAM}


def captioning(precision: str, rounds: int) -> dict[str, Any]:
    """ "decode_step": see `benchmarks.speed`."""
    captioner = make_captioner().requires_grad_(False)
    parts = OpenVinoCaptioner(trace_words(captioner), captioner, levels=0, precision=precision, threads=1)
    weights = captioner.decoder.weights(frozen=True)
    timed = {rows: medians(step_calls(captioner, parts, weights, make_inputs(rows)), rounds) for rows in ROWS}
    return {"decode_step": timed}


@torch.inference_mode()
def step_calls(captioner: Captioner, parts: CaptionerParts, weights: StepWeights, data: Inputs) -> dict[str, Call]:
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
        return log_chances(parts.advance(state, guide, last)[1])

    wanted = published()
    for call in (eager, compiled):
        torch.testing.assert_close(call(), wanted, atol=0.05, rtol=1e-3)  # the same step, be it in bf16
    return {"torch_fp32": published, "torch": eager, "ours": compiled}


def captions(path: Path, world: Path, images: int, precision: str, rounds: int) -> dict[str, Any]:
    """A trained captioner's captions of the world's validation pictures, by torch in fp32 and compiled.

    Args:
        path: its archive.
        world: folder of the procedural world.
        images: how many pictures, at least 1, with all their regions.
        precision: of what is compiled.
        rounds: turns of what is timed.

    Returns:
        "said": "graphs", and for "greedy" and "beam" search "equal" (share of the graphs whose captions are the same,
        word by word), "cider_torch", "cider_ours" and their "cider_ratio" (None where torch says nothing that anybody
        said). "caption": {batch: {"torch", "ours"}}, ms from pixels to greedy captions.
    """
    guided = GuidedCaptioner.from_archive(archive.read(path))
    levels = len(guided.features.config.levels)
    graph = trace_captioner(guided)
    parts = OpenVinoCaptioner(graph, guided.captioner, levels=levels, precision=precision, threads=1)
    references: list[tuple[str, ...]] = []
    said: dict[str, tuple[list[tuple[str, ...]], ...]] = {name: ([], []) for name in WIDTHS}
    timed: dict[int, dict[str, float]] = {}
    for cases in held_out(guided, world, images):
        if len(cases) == max(BATCHES) and not timed:
            timed = {size: medians(_calls(guided, parts, cases[:size]), rounds) for size in BATCHES}
        references += [case.captions for case in cases]
        for name, width in WIDTHS.items():
            for made, used in zip(said[name], (None, parts), strict=True):
                made += _said(guided, cases, width, used)
    found: dict[str, Any] = {"graphs": len(references)}
    for name, (plain, ours) in said.items():
        one, two = (float(cider(made, references).mean()) for made in (plain, ours))
        equal = sum(map(tuple.__eq__, plain, ours)) / len(references)
        found[name] = {"equal": equal, "cider_torch": one, "cider_ours": two, "cider_ratio": two / one if one else None}
    return {"said": found, "caption": timed}


def _calls(guided: GuidedCaptioner, parts: CaptionerParts, cases: list[Case]) -> dict[str, Call]:
    return {"torch": lambda: _said(guided, cases, 1, None), "ours": lambda: _said(guided, cases, 1, parts)}


def _said(
    guided: GuidedCaptioner, cases: list[Case], width: int, parts: CaptionerParts | None
) -> list[tuple[str, ...]]:
    """The best caption of each, from its pixels."""
    pixels = torch.stack([torch.from_numpy(case.pixels) for case in cases])
    seen = guided.see(pixels, [case.graph for case in cases], parts)
    return [best[0].words for best in guided.caption_seen(seen, CaptionOptions(beam_width=width), parts)]
