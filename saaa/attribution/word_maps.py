"""The methods that explain a captioner: where the decoder looked, what moved a word's score, and the two together.

A target is a weighted sum of word logits: a word is itself alone, a node is all words of the caption, weighted by the
attention that each paid to it (held constant).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol

import torch
from torch import Tensor

from saaa.attribution.removal import chunks
from saaa.models.captioner import GraphBatch, pad_tokens
from saaa.models.guided import GuidedCaptioner
from saaa.models.seen import Seen
from saaa.work import TargetKind

CELL = 8
"""Width of a cell of an attention map, in pixels of the input."""
SMALLEST = 1.0
"""Pixels: a box that is narrower is painted this wide, about its middle, so that no weight is lost."""


@dataclass(frozen=True)
class CaptionTarget:
    """One word or node to explain."""

    image: int
    kind: TargetKind
    index: int


@dataclass(frozen=True)
class WordMap:
    """What a method says of one target."""

    values: Tensor
    """(rows, columns)"""
    node_weights: Tensor
    """(nodes of the image's graph,)"""


class CaptionMethod(Protocol):
    """One way to explain a captioner. `run` is called with a frozen captioner in evaluation mode, gradients enabled."""

    name: str
    reference: str
    cost_forwards: float
    """For one word, in forwards of one image: backbone, and the decoder once over the caption."""

    def run(
        self,
        captioner: GuidedCaptioner,
        seen: Seen,
        captions: Sequence[Sequence[str]],
        targets: Sequence[CaptionTarget],
    ) -> list[WordMap]:
        """Explain the targets, each a word of one of the captions, or a node of its graph."""


class Attention:
    """node weights = the decoder's attention when it chose the word; map = they, painted on the nodes' boxes.

    For a node: the mean attention over the words, weighted by how much each attends to that node. The map sums to the
    weight whose box is inside the input, which is 1 for boxes that lie in it.
    """

    name = "attention"
    reference = "Xu et al. 2015, Show, Attend and Tell, arXiv:1502.03044"
    cost_forwards = 1.0

    def run(
        self,
        captioner: GuidedCaptioner,
        seen: Seen,
        captions: Sequence[Sequence[str]],
        targets: Sequence[CaptionTarget],
    ) -> list[WordMap]:
        """One forward without gradients, whatever the targets."""
        scored = captioner.score_seen(seen, captions)
        size = captioner.features.config.input_size
        made = []
        for target in targets:
            attention = torch.from_numpy(scored[target.image].node_weights)
            weights = mean_attention(target, attention)
            made.append(WordMap(paint(weights, seen.boxes[target.image].cpu(), size, -(-size // CELL)), weights))
        return made


class CaptionGradientXInput:
    """node weights = gradient x region feature, standardised, summed over the feature; map = the same at the cells of
    the backbone's maps.

    What the captioner sees is linear in the backbone's maps (pooled boxes, mean image), so the map is the exact share
    of each cell: it sums to the node weights and the image's share, less what comes from the boxes' geometry.
    """

    name = "gradient_x_input"
    reference = (
        "Shrikumar et al. 2016, Not Just a Black Box, arXiv:1605.01713; for captions Sun et al. 2022, Understanding "
        "Image Captioning Models beyond Visualizing Attention, arXiv:2001.01037"
    )
    cost_forwards = 1.5
    by_attention = False
    """Whether each node's part is multiplied by the attention that it got."""

    def run(
        self,
        captioner: GuidedCaptioner,
        seen: Seen,
        captions: Sequence[Sequence[str]],
        targets: Sequence[CaptionTarget],
    ) -> list[WordMap]:
        """One backward for many targets, through the decoder only: each has a row of its own, cut off after the last
        word that matters."""
        with torch.no_grad():
            regions, image = captioner.pool(seen)
        ids = [captioner.encode(words) for words in captions]
        made: list[WordMap] = []
        for piece in chunks(len(targets)):
            rows = [target.image for target in targets[piece]]
            graphs = seen.graphs.select(torch.tensor(rows, device=regions.device))
            leaves = (regions[rows, : graphs.mask.shape[1]].requires_grad_(), image[rows].requires_grad_())
            tokens = [
                ids[target.image][: target.index + 2] if target.kind is TargetKind.WORD else ids[target.image][:-1]
                for target in targets[piece]
            ]
            total, attention = _total(captioner, targets[piece], leaves, graphs, tokens)
            # Rows do not interact, so the gradient of the sum is, row by row, the gradient of each target.
            by_region, by_image = torch.autograd.grad(total, leaves)
            if self.by_attention:
                by_region = by_region * attention[..., None]
            weights = (by_region * leaves[0].detach()).sum(2)
            for one, group in groupby(range(len(rows)), rows.__getitem__):  # what an image's targets share is done once
                mine, boxes = list(group), seen.boxes[one]
                levels = [level[one] for level in seen.levels]
                parts = captioner.features.shares(levels, boxes, by_region[mine, : len(boxes)], by_image[mine])
                made += [WordMap(*pair) for pair in zip(add_levels(parts), weights[mine, : len(boxes)], strict=True)]
        return made


class AttentionXGradient(CaptionGradientXInput):
    """Gradient x input, each node's part weighted by the decoder's attention to it: what was both looked at and used.

    On the procedural world it points better and removes more of a word's probability than either of the two.
    """

    name = "attention_x_gradient"
    reference = (
        "gradient_x_input weighted by attention; the two are compared by Sun et al. 2022, Understanding Image "
        "Captioning Models beyond Visualizing Attention, arXiv:2001.01037"
    )
    by_attention = True


def _total(
    captioner: GuidedCaptioner,
    targets: Sequence[CaptionTarget],
    inputs: tuple[Tensor, Tensor],
    graphs: GraphBatch,
    tokens: Sequence[Sequence[int]],
) -> tuple[Tensor, Tensor]:
    """The sum of what the targets stand for, a row each, and for each the attention to the nodes (rows, N)."""
    taught = captioner.captioner.teach(*inputs, graphs, *pad_tokens(tokens, inputs[0].device))
    logits = (taught.hidden * captioner.captioner.decoder.words.weight[taught.targets]).sum(1)
    total, focus = logits.new_zeros(()), []
    for row, target in enumerate(targets):
        mine = taught.rows == row  # in the order of the words
        attention = taught.attention[mine].detach()
        total = total + word_shares(target, attention) @ logits[mine]
        focus.append(mean_attention(target, attention))
    return total, torch.stack(focus)


CAPTION_METHODS: tuple[CaptionMethod, ...] = (AttentionXGradient(), CaptionGradientXInput(), Attention())
"""All of them; "auto" is the first."""


def word_shares(target: CaptionTarget, attention: Tensor) -> Tensor:
    """How much each word of a caption counts for a target: (words,), from node weights (words, nodes)."""
    if target.kind is TargetKind.NODE:
        return attention[:, target.index]
    return (torch.arange(len(attention), device=attention.device) == target.index).to(attention)


def mean_attention(target: CaptionTarget, attention: Tensor) -> Tensor:
    """The words' attention, averaged by their shares: (nodes,), sums to 1 (0 if no word attended to the node)."""
    shares = word_shares(target, attention)
    return shares @ attention / shares.sum().clamp(min=torch.finfo(attention.dtype).tiny)


def paint(weights: Tensor, boxes: Tensor, size: int, cells: int) -> Tensor:
    """Spread each weight evenly over its box.

    Args:
        weights: (n,).
        boxes: (n, 4), left, top, right, bottom in pixels.
        size: width and height of the input.
        cells: rows and columns of the map.

    Returns:
        (cells, cells); a cell takes of a box what it covers of the box's area, so what is outside the input is lost.
    """
    low, high = boxes[:, :2], boxes[:, 2:]
    missing = (SMALLEST - (high - low)).clamp(min=0) / 2
    low, high = low - missing, high + missing
    columns, rows = (cover(low[:, axis], high[:, axis], size, cells).to(weights) for axis in (0, 1))
    return (weights[:, None] * rows).T @ columns


def cover(low: Tensor, high: Tensor, size: float, cells: int) -> Tensor:
    """What each of `cells` even cells of [0, size] holds of each interval: (n, cells), at most 1 a row."""
    edges = torch.arange(cells + 1, device=low.device, dtype=torch.float64) * (size / cells)
    low, high = low.double()[:, None], high.double()[:, None]
    shared = torch.minimum(high, edges[1:]) - torch.maximum(low, edges[:-1])
    return shared.clamp(min=0) / (high - low)


def add_levels(parts: Sequence[Tensor]) -> Tensor:
    """The sum of maps (B, rows, columns) of the same area, at the finest's grid; a cell's mass is spread evenly."""
    finest = max(parts, key=lambda part: part.shape[-2])
    total = torch.zeros_like(finest)
    for part in parts:
        down, across = (_spread(part.shape[axis], finest.shape[axis], part.device).to(part.dtype) for axis in (-2, -1))
        total = total + down.T @ part @ across
    return total


def _spread(coarse: int, fine: int, device: torch.device) -> Tensor:
    """Which share of each coarse cell lies in each fine one: (coarse, fine), rows sum to 1."""
    edges = torch.arange(coarse + 1, device=device, dtype=torch.float64) / coarse
    return cover(edges[:-1], edges[1:], 1.0, fine)
