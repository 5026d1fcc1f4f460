"""Concept attribution: hand-solved maps, a supersampling oracle, and what must hold for any map and graph."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from saaa.concepts import ConceptScore, concept_attribution
from saaa.images import Geometry
from saaa.scene_graph import Box, NodeKind, Relationship, SceneGraph, SceneObject

WHOLE = Geometry(0, 0, 40, 40, 224)


def graph_of(*boxes: Box, links: tuple[tuple[int, int], ...] = ()) -> SceneGraph:
    return SceneGraph(
        tuple(SceneObject(i, f"thing {i}", box) for i, box in enumerate(boxes)),
        tuple(Relationship(k, a, b, "near") for k, (a, b) in enumerate(links)),
    )


def pairs(scores: tuple[ConceptScore, ...]) -> list[tuple[float, float]]:
    return [(round(score.mass, 9), round(score.density, 9)) for score in scores]


def test_by_hand() -> None:
    # 4 x 4 cells of 10 pixels; all the mass is in two cells, 3 to 1, and negative values do not count.
    values = np.full((4, 4), -1.0)
    values[0, 0], values[3, 3] = 3, 1
    quarter, corner = Box(0, 0, 20, 20), Box(30, 30, 10, 10)
    assert pairs(concept_attribution(values, WHOLE, graph_of(quarter, corner, links=((0, 1),)))) == [
        (0.75, 3.0),
        (0.25, 4.0),
        (1.0, 3.2),
    ]
    # Half of the hot cell, and an eighth of it in a box that lies mostly beside the covered part.
    assert pairs(concept_attribution(values, WHOLE, graph_of(Box(0, 0, 5, 10)))) == [(0.375, 12.0)]
    moved = Geometry(30, 0, 40, 40, 224)
    assert pairs(concept_attribution(values, moved, graph_of(Box(0, 0, 35, 10)))) == [(0.375, 12.0)]


def test_overlaps_are_split() -> None:
    values = np.zeros((4, 4))
    values[1, 1] = 5
    both = graph_of(Box(10, 10, 10, 10), Box(10, 10, 10, 10), Box(10, 10, 30, 30))
    scores = concept_attribution(values, WHOLE, both)
    assert [round(score.mass, 9) for score in scores] == [round(1 / 3, 9)] * 3
    # Two boxes that meet in half a cell share only that half.
    values[:] = 0
    values[0, 0] = 1
    half = graph_of(Box(0, 0, 10, 10), Box(0, 0, 5, 10))
    assert pairs(concept_attribution(values, WHOLE, half)) == [(0.75, 16.0), (0.25, 16.0)]


def test_attributes_and_relationships_take_their_objects_regions() -> None:
    values = np.random.default_rng(0).random((7, 7))
    graph = SceneGraph(
        (
            SceneObject(5, "a", Box(0, 0, 13, 17), ("red", "big")),
            SceneObject(2, "b", Box(10, 10, 20, 9)),
            SceneObject(8, "c", Box(5, 5, 30, 30)),
        ),
        (Relationship(5, 2, 5, "on"),),
    )
    scores = concept_attribution(values, WHOLE, graph)
    assert tuple(score.node for score in scores) == graph.nodes()
    a, red, big, b, _, on = scores
    assert (red.mass, red.density) == (big.mass, big.density) == (a.mass, a.density)
    assert on.node.kind is NodeKind.RELATIONSHIP
    assert on.mass == pytest.approx(a.mass + b.mass)
    assert min(a.density, b.density) <= on.density <= max(a.density, b.density)


@pytest.mark.parametrize("values", [np.zeros((3, 3)), np.full((3, 3), -2.0), np.full((3, 3), np.nan)])
def test_a_map_without_evidence_is_chance(values: NDArray[np.float64]) -> None:
    graph = graph_of(Box(0, 0, 40, 10), Box(20, 0, 20, 40))
    scores = concept_attribution(values, WHOLE, graph)
    assert [score.density for score in scores] == pytest.approx([1, 1])
    assert [score.mass for score in scores] == pytest.approx([(400 - 100) / 1600, (800 - 100) / 1600])


def test_outside_the_covered_part_there_is_nothing() -> None:
    scores = concept_attribution(np.ones((2, 2)), Geometry(10, 10, 10, 10, 8), graph_of(Box(0, 0, 10, 50)))
    assert pairs(scores) == [(0, 0)]


FINE = 6
"""Samples a pixel in the oracle; boxes and cells of these tests lie on its grid."""


def oracle(values: NDArray[np.float64], region: Box, graph: SceneGraph) -> tuple[list[float], float]:
    """Mass of each object and of the background, sample by sample."""
    rows, columns = values.shape
    positive = np.maximum(values, 0)
    masses, background = [0.0] * len(graph.objects), 0.0
    for v in range(region.height * FINE):
        for u in range(region.width * FINE):
            x, y = region.x + (u + 0.5) / FINE, region.y + (v + 0.5) / FINE
            cell = positive[v * rows // (region.height * FINE), u * columns // (region.width * FINE)]
            hit = [
                i
                for i, thing in enumerate(graph.objects)
                if thing.box.x <= x < thing.box.right and thing.box.y <= y < thing.box.bottom
            ]
            for i in hit:
                masses[i] += cell / len(hit)
            background += cell * (not hit)
    total = sum(masses) + background
    return [mass / total for mass in masses], background / total


@pytest.mark.parametrize("seed", range(6))
def test_equals_the_oracle(seed: int) -> None:
    dice = np.random.default_rng(seed)
    # Cells of 4/3 or 4 pixels, neither on pixel borders nor alike in x and y.
    region = Box(3, 2, 8, 12)
    values = dice.normal(size=(3, 6)) + 0.3
    boxes = []
    for _ in range(4):
        x, y = dice.integers(0, 12, 2)
        boxes.append(Box(int(x), int(y), *(int(side) for side in dice.integers(1, 9, 2))))
    graph = graph_of(*boxes)
    expected, _ = oracle(values, region, graph)
    scores = concept_attribution(values, region, graph)
    assert [score.mass for score in scores] == pytest.approx(expected, abs=1e-9)


maps = arrays(
    st.sampled_from([np.float32, np.float64]),
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    elements=st.floats(-(2.0**100), 2.0**100, width=32),
)
boxes = st.builds(Box, *[st.integers(0, 90)] * 2, *[st.integers(1, 90)] * 2)
edges = st.floats(0, 50)
sides = st.floats(1, 100)


@given(maps, st.lists(boxes, min_size=1, max_size=8), edges, edges, sides, sides)
def test_objects_and_background_share_all(
    values: NDArray[np.float32], boxes: list[Box], x: float, y: float, width: float, height: float
) -> None:
    region = Geometry(x, y, width, height, 7)
    everything = Box(0, 0, 200, 200)
    scores = concept_attribution(values, region, graph_of(*boxes))
    total = sum(score.mass for score in scores)
    assert all(0 <= score.mass <= 1 + 1e-9 and score.density >= 0 for score in scores)
    assert total <= 1 + 1e-9
    assert np.isfinite([score.density for score in scores]).all()
    covered = concept_attribution(values, region, graph_of(*boxes, everything))
    assert sum(score.mass for score in covered) == pytest.approx(1)


@given(maps, boxes)
def test_scaling_a_map_changes_nothing(values: NDArray[np.float32], box: Box) -> None:
    graph = graph_of(box, Box(0, 0, 30, 30))
    plain = concept_attribution(values, WHOLE, graph)
    scaled = concept_attribution(values.astype(np.float64) * 1e250, WHOLE, graph)
    assert [s.mass for s in scaled] == pytest.approx([s.mass for s in plain], abs=1e-6)


def test_it_is_quick() -> None:
    values = np.random.default_rng(0).random((14, 14))
    graph = graph_of(*(Box(3 * i, 2 * i, 15, 12) for i in range(7)), links=((0, 1), (1, 2), (3, 4)))
    best = 1.0
    for _ in range(20):
        start = time.perf_counter()
        concept_attribution(values, WHOLE, graph)
        best = min(best, time.perf_counter() - start)
    assert best < 0.005
