"""From a map over the image to the nodes of its scene graph: how much of the attribution falls on each
concept.

Definitions: mass is the relevance mass accuracy of Arras et al. (CLEVR-XAI, arXiv 2003.07258) on the
positive part of the map; density is mass over area, so that large regions have no head start.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from saaa.scene_graph import Node, NodeKind, SceneGraph

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


@dataclass(frozen=True)
class ConceptScore:
    """What one node of a graph gets of a map."""

    node: Node
    mass: float
    """Share of the map's positive mass, 0 to 1; with the background, the objects' masses sum to 1."""
    density: float
    """mass / the node's share of the covered area; 1 is chance, 0 for a node outside the covered part."""


def concept_attribution(
    map_values: NDArray[np.floating], region: Region, graph: SceneGraph
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

    Returns:
        One score a node, in the order of `graph.nodes()`.
    """
    values = np.asarray(map_values, np.float64)
    positive = np.where(np.isfinite(values) & (values > 0), values, 0)
    if not positive.any():
        positive = np.ones_like(positive)
    # The largest becomes 1 first, so that no sum can overflow.
    positive /= positive.max()
    positive /= positive.sum()
    mass, area = _split(positive, region, graph)
    place = {thing.id: i for i, thing in enumerate(graph.objects)}
    ends = {link.id: [place[link.subject_id], place[link.object_id]] for link in graph.relationships}
    scores = []
    for node in graph.nodes():
        members = ends[node.id] if node.kind is NodeKind.RELATIONSHIP else [place[node.id]]
        node_mass, node_area = mass[members].sum(), area[members].sum()
        density = node_mass / node_area if node_area > 0 else 0.0
        scores.append(ConceptScore(node, float(node_mass), float(density)))
    return tuple(scores)


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
