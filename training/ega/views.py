"""Other graphs of the images trained on: with boxes as a detector would draw them, and proposed without any help.

Learnt along them, too, a captioner needs less that the graphs it is given are as good as those people drew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from saaa.scene_graph import Box, SceneGraph
from training.ega.proposals import propose_graphs
from training.ega.published import ImageFolder, Region

COPIES = 4
"""Moved copies of each graph; features of all are made once, so that epochs cost no more."""
SPREAD = 0.1
"""Standard deviation of how far a box is moved, in its sides, and of the logarithm of how much it is stretched."""
FARTHEST = 2.0
"""Standard deviations; a box in the image is thus never moved out of it."""
NEAR = 0.5
"""Proposed graphs that meet a region's less have more to do with other things than with what its captions say."""
MOVED, DEALT = 1, 2
"""What draws of chance are for: the same seed gives different ones."""


@dataclass(frozen=True, kw_only=True)
class Views:
    """Other graphs along which the captions of R regions may be learnt."""

    regions: list[Region]
    """For each graph the region whose captions go with it."""
    graphs: list[SceneGraph]
    """First the moved ones, which have the nodes of their region's graph, then the proposed ones."""
    moved: Tensor
    """int64 (R, copies): which of `graphs`; no copies if there is no jitter."""
    proposed: Tensor
    """int64 (R,): which of `graphs`; -1 for none."""
    share_moved: float
    """Of the regions, in each epoch."""
    share_proposed: float
    """Of the regions, in each epoch; but no more than have a proposed graph."""
    seed: int

    @property
    def named(self) -> int:
        """How many graphs have names that people gave: the proposed ones come after them."""
        return self.moved.numel()

    def deal(self, epoch: int) -> Tensor:
        """int64 (R,): which of `graphs` each region gets in an epoch, -1 for its own; follows from seed and epoch."""
        rng = np.random.default_rng((self.seed, DEALT, epoch))
        count = len(self.proposed)
        dealt = torch.full((count,), -1)
        able = (self.proposed >= 0).nonzero()[:, 0]
        some = able[torch.from_numpy(rng.permutation(len(able))[: round(self.share_proposed * count)])]
        dealt[some] = self.proposed[some]
        rest = (dealt < 0).nonzero()[:, 0]
        some = rest[torch.from_numpy(rng.permutation(len(rest))[: round(self.share_moved * count)])]
        if len(some):
            dealt[some] = self.moved[some, torch.from_numpy(rng.integers(self.moved.shape[1], size=len(some)))]
        return dealt


def make_views(
    regions: Sequence[Region],
    folder: ImageFolder,
    *,
    jitter: float,
    proposed: float,
    proposer: Path | None,
    seed: int,
    cache: Path,
) -> Views:
    """The other graphs of regions.

    A proposed graph is about some objects of its image, and of the image's regions one comes nearest to that (see
    `meeting`). Only its captions are learnt along the proposed graph. Were those of every region of the image, one
    graph would have to lead to different captions, and the captioner would learn not to listen to graphs. For the same
    reason a proposed graph that comes near none of them (`NEAR`) is not used.

    Args:
        regions: what is trained on.
        folder: where the images are.
        jitter: share of the regions that get moved boxes in an epoch; 0 makes none.
        proposed: share of the regions that get a proposed graph in an epoch; 0 makes none.
        proposer: the EGDD archive that proposes, where `proposed` is above 0.
        seed: of how boxes are moved and views are dealt.
        cache: the JSON file that keeps proposed graphs.

    Raises:
        ArchiveError, OptionInvalid, DataError: see `propose_graphs`.
    """
    rng = np.random.default_rng((seed, MOVED))
    copies = COPIES if jitter else 0
    views = [(region, move(region.graph, rng)) for region in regions for _ in range(copies)]
    moved = torch.arange(len(views)).view(len(regions), copies)
    best = torch.full((len(regions),), -1)
    if proposed:
        assert proposer is not None
        found = propose_graphs(proposer, {region.file_name for region in regions}, folder, cache=cache)
        rows: dict[str, list[int]] = {}
        for row, region in enumerate(regions):
            rows.setdefault(region.file_name, []).append(row)
        for name, mine in rows.items():
            near = [meeting(found[name], regions[row].graph) for row in mine]
            row = mine[int(np.argmax(near))]
            if max(near) >= NEAR:
                best[row] = len(views)
                views.append((regions[row], found[name]))
    return Views(
        regions=[region for region, _ in views],
        graphs=[graph for _, graph in views],
        moved=moved,
        proposed=best,
        share_moved=jitter,
        share_proposed=proposed,
        seed=seed,
    )


def move(graph: SceneGraph, rng: np.random.Generator) -> SceneGraph:
    """The graph with each object's box moved and stretched a little, in whole pixels, clipped at left and top.

    What then sticks out at right or bottom is cut when features are made, see `saaa.images.Geometry.to_input`.
    """
    objects = []
    for thing in graph.objects:
        across, down, wider, higher = SPREAD * np.clip(rng.normal(size=4), -FARTHEST, FARTHEST)
        box = thing.box
        left, right = _moved(box.x, box.width, across, wider)
        top, bottom = _moved(box.y, box.height, down, higher)
        objects.append(replace(thing, box=Box(left, top, right - left, bottom - top)))
    return SceneGraph(tuple(objects), graph.relationships)


def _moved(start: int, length: int, by: float, stretched: float) -> tuple[int, int]:
    """Start and end of a side; `by` is in sides."""
    middle, half = start + length * (0.5 + by), length * np.exp(stretched) / 2
    first = max(0, round(middle - half))
    return first, max(first + 1, round(middle + half))


def meeting(one: SceneGraph, other: SceneGraph) -> float:
    """How well two graphs are about the same objects: the harmonic mean of two shares, 0 to 1.

    Of each box in either graph that share counts which its best partner in the other graph has, the area that both
    cover over that of the smaller one: attribution peaks in parts of objects, and is no worse for that.
    """
    first, second = (np.array([thing.box.ltrb() for thing in graph.objects], float) for graph in (one, other))
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    common = np.prod(np.maximum(high - low, 0), axis=2)
    areas = [np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (first, second)]
    shares = common / np.minimum(areas[0][:, None], areas[1][None])
    found, meant = float(shares.max(1).mean()), float(shares.max(0).mean())
    return 2 * found * meant / (found + meant) if found + meant else 0.0
