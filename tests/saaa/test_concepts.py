"""Concept attribution: hand-solved maps, a supersampling oracle, and what must hold for any map and graph."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from saaa.concepts import (
    EXACT_REGIONS,
    ConceptScore,
    ScoreDefinition,
    concept_agreement,
    concept_attribution,
    effect_definition,
)
from saaa.errors import OptionInvalid
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


def test_between_and_weaker_of_a_relationship_by_hand() -> None:
    # 4 x 4 cells of 10 pixels. The first two boxes face each other across the two middle columns.
    values = np.zeros((4, 4))
    values[0] = 2, 1, 1, 0
    values[1, 1], values[3, 3] = 3, 3
    left, right, corner, inner = Box(0, 0, 10, 20), Box(30, 0, 10, 10), Box(30, 30, 10, 10), Box(5, 5, 2, 2)
    graph = graph_of(left, right, corner, inner, links=((0, 1), (0, 2), (3, 0), (2, 1)))
    *things, across, diagonal, nested, below = concept_attribution(values, WHOLE, graph)
    # Beside each other from 0 to 10: the two middle cells of the first row.
    assert across.gap_mass == pytest.approx(2 / 10)
    assert across.weaker_mass == things[1].mass == 0
    # From corner to corner: 10 to 30 across, 20 to 30 down, where there is nothing.
    assert diagonal.gap_mass == 0
    assert diagonal.weaker_mass == pytest.approx(min(things[0].mass, 3 / 10))
    assert nested.gap_mass == 0
    assert below.gap_mass == 0
    assert [(thing.gap_mass, thing.weaker_mass) for thing in things] == [(None, None)] * 4
    values[2, 1] = 10
    assert concept_attribution(values, WHOLE, graph)[5].gap_mass == pytest.approx(10 / 20)


def test_scores_are_shares_of_density_or_of_effect() -> None:
    values = np.zeros((4, 4))
    values[0, 0], values[3, 3] = 3, 1
    graph = SceneGraph(
        (
            SceneObject(0, "a", Box(0, 0, 20, 20), ("red",)),
            SceneObject(1, "b", Box(30, 30, 10, 10)),
            SceneObject(2, "c", Box(0, 30, 10, 10)),
        ),
        (Relationship(0, 0, 1, "on"),),
    )
    plain = concept_attribution(values, WHOLE, graph)
    assert {score.score_definition for score in plain} == {ScoreDefinition.DENSITY_SHARE}
    assert [round(score.score, 9) for score in plain] == [round(x / 7, 9) for x in (3, 3, 4, 0, 3.2)]
    assert all(score.effect is None and score.effect_definition == "" for score in plain)
    assert concept_agreement(plain) is None
    effects = np.array([3.0, -1, 1, -5, 8])
    measured = concept_attribution(values, WHOLE, graph, effects)
    assert {score.score_definition for score in measured} == {ScoreDefinition.EFFECT_SHARE}
    assert [score.score for score in measured] == [0.75, 0, 0.25, 0, 1]
    assert [score.effect for score in measured] == effects.tolist()
    assert [score.effect_definition for score in measured] == [
        effect_definition(node.kind, 3) for node in graph.nodes()
    ]
    assert [score.mass for score in measured] == [score.mass for score in plain]
    nothing = concept_attribution(values, WHOLE, graph, -np.ones(5))
    assert [score.score for score in nothing] == [0] * 5
    with pytest.raises(OptionInvalid, match="do not fit 5 nodes"):
        concept_attribution(values, WHOLE, graph, np.ones(3))


def test_effects_are_named_for_every_kind_and_size() -> None:
    names = {(kind, few): effect_definition(kind, EXACT_REGIONS + (not few)) for kind in NodeKind for few in (1, 0)}
    assert all(names.values())
    assert names[NodeKind.OBJECT, 1] != names[NodeKind.OBJECT, 0]


@pytest.mark.parametrize(
    ("masses", "effects", "expected"),
    [
        ([1, 2, 3, 4], [10, 20, 30, 40], 1),
        ([1, 2, 3, 4], [9, 5, 2, 0.1], -1),
        # d = (0, 1, 1, 0): 1 - 6 * 2 / (4 * 15).
        ([1, 2, 3, 4], [-4, 7, 1, 8], 0.8),
        # Equal values share the mean of their ranks: (1.5, 1.5, 3) with (1, 2, 3).
        ([1, 1, 3], [1, 2, 3], np.sqrt(0.75)),
        ([2, 2, 2], [1, 2, 3], None),
        ([1, 2, 3], [5, 5, 5], None),
        ([1, 2], [1, 2], None),
    ],
)
def test_agreement_is_the_rank_correlation(masses: list[float], effects: list[float], expected: float | None) -> None:
    graph = graph_of(*(Box(10 * i, 0, 10, 40) for i in range(len(masses))), links=((0, 1),))
    scores = concept_attribution(
        np.array([[*masses, *[0] * (4 - len(masses))]]), WHOLE, graph, np.array([*effects, 99])
    )
    found = concept_agreement(scores)
    assert found == (None if expected is None else pytest.approx(expected))


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


effects_of = arrays(np.float32, 7, elements=st.floats(-(2.0**60), 2.0**60, width=32))


@given(maps, st.lists(boxes, min_size=3, max_size=3), st.none() | effects_of)
def test_scores_are_shares_and_relationships_stay_inside(
    values: NDArray[np.float32], boxes: list[Box], effects: NDArray[np.float32] | None
) -> None:
    things = tuple(SceneObject(i, f"thing {i}", box, ("big",) * (i == 1)) for i, box in enumerate(boxes))
    links = tuple(Relationship(k, a, b, "near") for k, (a, b) in enumerate(((0, 1), (1, 2), (2, 0))))
    scores = concept_attribution(values, WHOLE, SceneGraph(things, links), effects)
    assert all(0 <= score.score <= 1 for score in scores)
    objects = [score for score in scores if score.node.kind is NodeKind.OBJECT]
    total = sum(score.score for score in objects)
    assert total == pytest.approx(1) or total == 0
    masses = {score.node.id: score.mass for score in objects}
    for score, link in zip(scores[-3:], links, strict=True):
        assert score.weaker_mass == min(masses[link.subject_id], masses[link.object_id])
        assert score.gap_mass is not None
        assert 0 <= score.gap_mass <= 1 + 1e-9
    agreement = concept_agreement(scores)
    assert agreement is None or (-1 <= agreement <= 1 and effects is not None)


@given(st.floats(0, 2.0**40, width=32), st.lists(boxes, min_size=1, max_size=5))
def test_a_flat_map_is_chance_everywhere(value: float, boxes: list[Box]) -> None:
    scores = concept_attribution(np.full((5, 3), value, np.float32), WHOLE, graph_of(*boxes))
    assert [score.density for score in scores if score.mass] == pytest.approx([1] * sum(s.mass > 0 for s in scores))


@given(maps, boxes)
def test_scaling_a_map_changes_nothing(values: NDArray[np.float32], box: Box) -> None:
    graph = graph_of(box, Box(0, 0, 30, 30))
    plain = concept_attribution(values, WHOLE, graph)
    scaled = concept_attribution(values.astype(np.float64) * 1e250, WHOLE, graph)
    assert [s.mass for s in scaled] == pytest.approx([s.mass for s in plain], abs=1e-6)
