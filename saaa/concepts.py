"""From a map over the image to the nodes of its scene graph: how much of the attribution falls on each
concept.

Definitions: mass is the relevance mass accuracy of Arras et al. (CLEVR-XAI, arXiv 2003.07258) on the
positive part of the map; density is mass over area, so that large regions have no head start. A node's
effect is measured by removing it from the image, which a map cannot show.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from saaa.errors import OptionInvalid
from saaa.scene_graph import Box, Node, NodeKind, SceneGraph

LEAST_RANKED = 3
"""Objects below which a rank correlation says nothing."""
EXACT_REGIONS = 8
"""Up to so many regions, all 2^R coalitions are computed; above, some are drawn."""


def effect_definition(kind: NodeKind, objects: int) -> str:
    """Name what the effect of a node is (`saaa.attribution.effects` computes it).

    Args:
        kind: of the node.
        objects: number of objects in its graph.

    Returns:
        "shapley" or "kernel_shap" (object), "desaturation" (attribute), "shapley_interaction" or
        "sampled_shapley_interaction" (relationship).
    """
    if kind is NodeKind.ATTRIBUTE:
        return "desaturation"
    exact = objects <= EXACT_REGIONS
    if kind is NodeKind.OBJECT:
        return "shapley" if exact else "kernel_shap"
    return "shapley_interaction" if exact else "sampled_shapley_interaction"


class Region(Protocol):
    """The part of the image that a map covers, in pixels of the image; `saaa.images.Geometry` is one."""

    @property
    def x(self) -> float:
        """Left edge."""

    @property
    def y(self) -> float:
        """Top edge."""

    @property
    def width(self) -> float:
        """Width, above 0."""

    @property
    def height(self) -> float:
        """Height, above 0."""


class ScoreDefinition(enum.Enum):
    """What `ConceptScore.score` is."""

    EFFECT_SHARE = "effect share"
    """max(effect, 0) / sum of max(effect, 0) over the objects, at most 1."""
    DENSITY_SHARE = "density share"
    """density / sum of the densities over the objects."""


@dataclass(frozen=True, kw_only=True)
class ConceptScore:
    """What one node of a graph gets of a map."""

    node: Node
    mass: float
    """Share of the map's positive mass, 0 to 1; with the background, the objects' masses sum to 1."""
    density: float
    """mass / the node's share of the covered area; 1 is chance, 0 for a node outside the covered part."""
    effect: float | None = None
    """The node's effect on the target, in units of its logit; None when it was not measured."""
    effect_definition: str = ""
    """What `effect` is for this node; empty without one."""
    score: float
    """The node's importance, 0 to 1; the objects' scores sum to 1 unless all are 0."""
    score_definition: ScoreDefinition
    gap_mass: float | None = None
    """Relationships: share of the positive mass on the box between subject and object, which is neither's. 0 where
    the two touch."""
    weaker_mass: float | None = None
    """Relationships: the smaller of the masses of subject and object; high only where both are seen."""


def concept_attribution(
    map_values: NDArray[np.floating],
    region: Region,
    graph: SceneGraph,
    effects: NDArray[np.floating] | None = None,
) -> tuple[ConceptScore, ...]:
    """Aggregates a map to the nodes of a graph.

    A box takes from each cell of the map what it covers of the cell's area; where boxes of several objects
    lie over each other, that spot is split evenly between them, in mass and in area. An attribute has its
    owner's region, a relationship those of its subject and object together. Values that are negative or not
    finite count as 0. A map without a positive value prefers nothing: its mass goes by area, so that every
    density is 1.

    Args:
        map_values: (rows, columns), larger speaks more for the target; the cells divide `region` evenly.
        region: the part of the image that the map covers.
        graph: boxes in pixels of the same image.
        effects: (nodes,), finite, the measured effect of each node on the same target; None when not measured.

    Returns:
        One score a node, in the order of `graph.nodes()`.

    Raises:
        OptionInvalid: not one effect a node.
    """
    nodes = graph.nodes()
    if effects is not None and np.shape(effects) != (len(nodes),):
        raise OptionInvalid(f"{np.shape(effects)} effects do not fit {len(nodes)} nodes.", field="effects")
    positive = _positive(map_values)
    mass, area = _split(positive, region, graph)
    place = {thing.id: i for i, thing in enumerate(graph.objects)}
    ends = {link.id: [place[link.subject_id], place[link.object_id]] for link in graph.relationships}
    members = [ends[node.id] if node.kind is NodeKind.RELATIONSHIP else [place[node.id]] for node in nodes]
    masses = np.array([mass[inside].sum() for inside in members])
    areas = np.array([area[inside].sum() for inside in members])
    densities = np.divide(masses, areas, out=np.zeros_like(masses), where=areas > 0)
    worth = densities if effects is None else np.maximum(np.asarray(effects, np.float64), 0)
    definition = ScoreDefinition.DENSITY_SHARE if effects is None else ScoreDefinition.EFFECT_SHARE
    total = sum(worth[i] for i, node in enumerate(nodes) if node.kind is NodeKind.OBJECT)
    scores = np.minimum(worth / total, 1) if total > 0 else np.zeros_like(worth)
    gaps = [_gap(*(graph.objects[i].box for i in inside)) if len(inside) == 2 else None for inside in members]
    return tuple(
        ConceptScore(
            node=node,
            mass=float(masses[i]),
            density=float(densities[i]),
            effect=None if effects is None else float(effects[i]),
            effect_definition="" if effects is None else effect_definition(node.kind, len(graph.objects)),
            score=float(scores[i]),
            score_definition=definition,
            gap_mass=_mass_on(gap, positive, region) if (gap := gaps[i]) is not None else None,
            weaker_mass=float(min(mass[members[i]])) if gap is not None else None,
        )
        for i, node in enumerate(nodes)
    )


def concept_agreement(scores: Sequence[ConceptScore]) -> float | None:
    """Spearman's rank correlation of the objects' densities and their measured effects, equal values sharing a rank.

    Args:
        scores: as `concept_attribution` gives them.

    Returns:
        -1 to 1; None without effects, for fewer than `LEAST_RANKED` objects, and where the map or the effects
        rank all objects alike.
    """
    objects = [score for score in scores if score.node.kind is NodeKind.OBJECT]
    effects = [score.effect for score in objects if score.effect is not None]
    if len(effects) < max(LEAST_RANKED, len(objects)):
        return None
    ranks = np.array([_ranks(np.array([score.density for score in objects])), _ranks(np.array(effects))])
    ranks -= ranks.mean(1, keepdims=True)
    spread = np.sqrt((ranks**2).sum(1))
    if not spread.all():
        return None
    return float(np.clip(ranks[0] @ ranks[1] / spread.prod(), -1, 1))


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rank of each value, equal ones at the mean of their places; differences of rounding are none."""
    order = values[:, None] - values
    even = np.abs(order) <= 1e-9 * np.abs(values).max()
    return np.asarray((np.where(even, 0, np.sign(order)).sum(1)), np.float64)


def _positive(map_values: NDArray[np.floating]) -> NDArray[np.float64]:
    """The positive part of a map, as shares that sum to 1; even where there is none."""
    values = np.asarray(map_values, np.float64)
    positive = np.where(np.isfinite(values) & (values > 0), values, 0)
    if not positive.any():
        positive = np.ones_like(positive)
    # The largest becomes 1 first, so that no sum can overflow.
    positive /= positive.max()
    return np.asarray(positive / positive.sum())


def _gap(one: Box, other: Box) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of the box between two: where they are apart, from one to the other; where they
    lie beside each other, what both span. It has no area where they touch."""
    left, right = sorted((max(one.x, other.x), min(one.right, other.right)))
    top, bottom = sorted((max(one.y, other.y), min(one.bottom, other.bottom)))
    apart = max(one.x, other.x) > min(one.right, other.right) or max(one.y, other.y) > min(one.bottom, other.bottom)
    return (left, top, right, bottom) if apart else (left, top, left, top)


def _mass_on(box: tuple[int, int, int, int], positive: NDArray[np.float64], region: Region) -> float:
    """Share of the mass on a box, whatever else lies there."""
    rows, columns = positive.shape
    across = _cover(
        (box[0] - region.x) * (columns / region.width), (box[2] - region.x) * (columns / region.width), columns
    )
    down = _cover((box[1] - region.y) * (rows / region.height), (box[3] - region.y) * (rows / region.height), rows)
    return float(down @ positive @ across)


def _cover(start: float, end: float, cells: int) -> NDArray[np.float64]:
    """How much of each of `cells` cells lies between `start` and `end`, 0 to 1."""
    edges = np.clip(np.arange(cells + 1.0), start, end)
    return np.diff(edges)


def _split(
    positive: NDArray[np.float64], region: Region, graph: SceneGraph
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mass and area share of each object, (objects,) each.

    The edges of cells and boxes together cut the region into rectangles that each lie wholly inside or
    outside every box, so the split is exact.
    """
    rows, columns = positive.shape
    boxes = np.array([thing.box.ltrb() for thing in graph.objects], np.float64)
    inside_x, width, column = _cut((boxes[:, 0::2] - region.x) * (columns / region.width), columns)
    inside_y, height, row = _cut((boxes[:, 1::2] - region.y) * (rows / region.height), rows)
    share = height[:, None] * width / np.maximum(inside_y.T @ inside_x, 1)
    mass = ((inside_y @ (share * positive[np.ix_(row, column)])) * inside_x).sum(1)
    area = ((inside_y @ share) * inside_x).sum(1) / (rows * columns)
    return mass, area


def _cut(spans: NDArray[np.float64], cells: int) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Cuts one axis of `cells` cells at the ends of `spans`, (objects, 2) in cells.

    Returns:
        For each of the pieces: whether it is inside each span (objects, pieces) as 0 or 1, its length in
        cells, and the cell that it belongs to.
    """
    spans = np.clip(spans, 0, cells)
    edges = np.unique(np.concatenate([np.arange(cells + 1.0), spans.ravel()]))
    middle = (edges[1:] + edges[:-1]) / 2
    inside = (spans[:, :1] < middle) & (middle < spans[:, 1:])
    return inside.astype(np.float64), np.diff(edges), np.minimum(middle.astype(np.int64), cells - 1)
