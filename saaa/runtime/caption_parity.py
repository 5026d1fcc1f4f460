"""Whether a compiled captioner says what the eager one says: the measure, and the gate that it must pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from saaa.errors import ArchiveError
from saaa.models.captioner import EOS, GraphBatch, collate, search
from saaa.models.guided import GuidedCaptioner
from saaa.models.parts import CaptionerParts
from saaa.models.seen import Seen
from saaa.scene_graph import RoleGraph

MIN_EQUAL = 0.98
"""Share of the graphs whose captions must be the same, of greedy search and of beam search."""
BEAM = 3
SAMPLES = 4
"""Graphs that an archive keeps for the check at load."""
_BATCH = 8
_GRAPH = "graphs/"


@dataclass(frozen=True, kw_only=True)
class CaptionReference:
    """What the eager captioner says of some pictures along their graphs."""

    pixels: Tensor
    """uint8 (graphs, S, S, 3)."""
    boxes: Tensor
    """(graphs, N, 4), in pixels of the input, any value at padding."""
    graphs: GraphBatch
    greedy: tuple[Tensor, Tensor]
    """Word ids (graphs, max_words + 1) of greedy captions, EOS to the end, and the log-probability of each, 0 after the
    first EOS."""
    beam: tuple[Tensor, Tensor]
    """Alike, of the best caption of beam search."""

    @classmethod
    def make(cls, guided: GuidedCaptioner, pixels: Tensor, graphs: Sequence[RoleGraph]) -> CaptionReference:
        """Ask the eager captioner; arguments as for `GuidedCaptioner.see`."""
        structure = collate(graphs)
        boxes = torch.zeros(*structure.mask.shape, 4)
        boxes[structure.mask] = torch.cat([torch.tensor(graph.boxes) for graph in graphs])
        greedy, beam = (_captions(guided, (pixels, boxes, structure), width) for width in (1, BEAM))
        return cls(pixels=pixels, boxes=boxes, graphs=structure, greedy=greedy, beam=beam)

    def surest(self, count: int) -> CaptionReference:
        """Only the graphs whose words are the clearest: a check on few captions must not fail on a tie."""
        rows = self.greedy[1].amin(1).argsort(descending=True, stable=True)[:count]
        graphs = GraphBatch(**{field.name: getattr(self.graphs, field.name)[rows] for field in fields(GraphBatch)})
        return CaptionReference(
            pixels=self.pixels[rows],
            boxes=self.boxes[rows],
            graphs=graphs,
            greedy=(self.greedy[0][rows], self.greedy[1][rows]),
            beam=(self.beam[0][rows], self.beam[1][rows]),
        )

    def pack(self) -> bytes:
        """The archive's member `PARITY`."""
        from safetensors.torch import save

        arrays = {"pixels": self.pixels, "boxes": self.boxes}
        arrays |= {f"{_GRAPH}{field.name}": getattr(self.graphs, field.name) for field in fields(GraphBatch)}
        for name, (tokens, chances) in (("greedy", self.greedy), ("beam", self.beam)):
            arrays |= {f"{name}/tokens": tokens, f"{name}/log_probabilities": chances}
        return save({name: array.clone() for name, array in arrays.items()})

    @classmethod
    def unpack(cls, data: bytes) -> CaptionReference:
        """The opposite of `pack`.

        Raises:
            ArchiveError: it is something else.
        """
        from safetensors.torch import load

        try:
            arrays = load(data)
            return cls(
                pixels=arrays["pixels"],
                boxes=arrays["boxes"],
                graphs=GraphBatch(**{field.name: arrays[f"{_GRAPH}{field.name}"] for field in fields(GraphBatch)}),
                greedy=(arrays["greedy/tokens"], arrays["greedy/log_probabilities"]),
                beam=(arrays["beam/tokens"], arrays["beam/log_probabilities"]),
            )
        except Exception as error:  # safetensors raises its own and built-in types
            raise ArchiveError(f"The parity samples cannot be read: {error}") from error


@dataclass(frozen=True, kw_only=True)
class CaptionParity:
    """How far the captions differ."""

    graphs: int
    equal: float
    """Share of the graphs with the same greedy caption."""
    equal_beam: float
    """Share of the graphs with the same best caption of beam search."""
    log_probability_gap: float
    """The largest difference of a word's log-probability in captions that are the same; 0 where none is."""

    def refusal(self) -> str | None:
        """Why it does not pass, in figures; None when it does."""
        figures = (("equal greedy captions", self.equal), ("equal captions of beam search", self.equal_beam))
        missed = [f"{name} {value:.4f} < {MIN_EQUAL}" for name, value in figures if not value >= MIN_EQUAL]
        return "; ".join(missed) or None

    def describe(self) -> dict[str, Any]:
        """For the model card."""
        told: dict[str, Any] = {field.name: round(getattr(self, field.name), 7) for field in fields(self)}
        return told | {"refused": self.refusal()}


def measure_captions(reference: CaptionReference, guided: GuidedCaptioner, parts: CaptionerParts) -> CaptionParity:
    """Compare the captioner of these parts, from pixels to words, with the reference, on the reference's graphs.

    Raises:
        ArithmeticError: its answer is not finite.
    """
    seen = reference.pixels, reference.boxes, reference.graphs
    equal: list[float] = []
    gap = 0.0
    for (tokens, chances), width in ((reference.greedy, 1), (reference.beam, BEAM)):
        made, told = _captions(guided, seen, width, parts)
        same = (made == tokens).all(1)
        equal.append(float(same.double().mean()))
        gap = max(gap, float((told - chances)[same].abs().max()) if bool(same.any()) else 0.0)
    return CaptionParity(graphs=len(tokens), equal=equal[0], equal_beam=equal[1], log_probability_gap=gap)


@torch.inference_mode()
def _captions(
    guided: GuidedCaptioner,
    pictures: tuple[Tensor, Tensor, GraphBatch],
    width: int,
    parts: CaptionerParts | None = None,
) -> tuple[Tensor, Tensor]:
    """Word ids and log-probabilities of the best captions, as in `CaptionReference`, a few graphs at a time."""
    pixels, boxes, graphs = pictures
    captioner, features = guided.captioner, guided.features
    see = (lambda few: features.backbone(features.normalise(few))) if parts is None else parts.see
    begin, advance = (captioner.begin, None) if parts is None else (parts.begin, parts.advance)
    most = captioner.config.max_words
    tokens = torch.full((len(pixels), most + 1), EOS)
    chances = torch.zeros(tokens.shape)
    weights = captioner.decoder.weights() if advance is None else None
    for start in range(0, len(pixels), _BATCH):
        rows = torch.arange(start, min(start + _BATCH, len(pixels)))
        part = graphs.select(rows)
        places = [boxes[row, graphs.mask[row]] for row in rows]
        seen = Seen(levels=see(pixels[rows]), boxes=places, graphs=part)
        state, guide = begin(*guided.pool(seen), part)
        found = search(captioner.decoder, state, guide, width=width, max_words=most, weights=weights, advance=advance)
        length = found.tokens.shape[2]
        tokens[rows, :length], chances[rows, :length] = found.tokens[:, 0], found.log_probabilities[:, 0]
    return tokens, chances
