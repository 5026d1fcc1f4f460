"""Proposed graphs: hand-made maps, and what must hold for any map."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from saaa.errors import OptionInvalid
from saaa.images import Geometry
from saaa.proposal import propose_graph
from saaa.scene_graph import Box, SceneGraph

SIZE = (140, 280)
WHOLE = Geometry(0, 0, *SIZE, 224)


def blobs(*spots: tuple[float, float, float, float], shape: tuple[int, int] = (14, 14)) -> NDArray[np.float64]:
    """A sum of round hills: row, column, radius, height."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    hills = (h * np.exp(-((y - r) ** 2 + (x - c) ** 2) / (2 * s * s)) for r, c, s, h in spots)
    return np.asarray(sum(hills), np.float64)


def told(graph: SceneGraph) -> list[tuple[int, str, int]]:
    return [(link.subject_id, link.name, link.object_id) for link in graph.relationships]


def test_two_blobs() -> None:
    # Cells are 10 x 20 pixels. Half height is reached at 1.18 radii, so each region is 3 x 3 cells.
    graph = propose_graph(blobs((3, 2, 1.0, 0.8), (4, 10, 1.0, 1.0)), WHOLE, SIZE)
    assert [thing.name for thing in graph.objects] == ["region 1", "region 2"]
    assert [thing.box for thing in graph.objects] == [Box(90, 60, 30, 60), Box(10, 40, 30, 60)]
    assert told(graph) == [(2, "left of", 1)]


def test_peaks_below_each_other_and_far_lower_ones() -> None:
    graph = propose_graph(blobs((2, 6, 1, 1), (10, 7, 1, 0.5), (2, 13, 1, 0.2)), WHOLE, SIZE)
    assert len(graph.objects) == 2
    assert told(graph) == [(1, "above", 2)]


def test_inside_and_overlaps() -> None:
    values = np.zeros((14, 14))
    # A ring around a peak.
    values[2:9, 2:9] = 0.6
    values[3:8, 3:8] = 0
    values[5, 5] = 1
    graph = propose_graph(values, WHOLE, SIZE)
    assert [thing.box for thing in graph.objects] == [Box(50, 100, 10, 20), Box(20, 40, 70, 140)]
    assert told(graph) == [(1, "inside", 2)]
    # An angle whose box reaches over a corner of a square.
    values[:] = 0
    values[5:8, 5:8] = 1
    values[10, :7] = values[6:11, 0] = 0.6
    graph = propose_graph(values, WHOLE, SIZE)
    assert [thing.box for thing in graph.objects] == [Box(50, 100, 30, 60), Box(0, 120, 70, 100)]
    assert told(graph) == [(1, "overlaps", 2)]


def test_fringe_peaks_belong_to_their_neighbour() -> None:
    values = blobs((6, 6, 1.5, 1.0))
    values[6, 9] = 0.4
    assert len(propose_graph(values, WHOLE, SIZE).objects) == 1


@pytest.mark.parametrize(
    "values", [np.zeros((7, 7)), np.full((7, 7), 3.0), np.full((1, 1), -1.0), np.full((3, 2), np.nan)]
)
def test_a_flat_map_gives_the_whole_image(values: NDArray[np.float64]) -> None:
    graph = propose_graph(values, Geometry(20, 0, 100, 280, 7), SIZE)
    assert [thing.box for thing in graph.objects] == [Box(0, 0, *SIZE)]
    assert not graph.relationships


def test_a_common_level_is_no_evidence() -> None:
    values = blobs((3, 2, 1.0, 0.8), (4, 10, 1.0, 1.0))
    assert propose_graph(values + 5, WHOLE, SIZE) == propose_graph(values, WHOLE, SIZE)


def test_boxes_follow_the_covered_part() -> None:
    values = np.zeros((4, 4))
    values[0, 0] = 1
    # The input covers the middle of the image; its first cell is 10.5 to 33 and 7.25 to 12.25 there.
    graph = propose_graph(values, Geometry(10.5, 7.25, 90, 20, 64), SIZE)
    assert graph.objects[0].box == Box(10, 7, 23, 6)


def test_pixel_sized_spikes_are_averaged() -> None:
    values = blobs((60, 60, 12, 1.0), (170, 150, 12, 0.7), shape=(224, 224))
    values *= np.random.default_rng(0).random(values.shape)
    graph = propose_graph(values, WHOLE, SIZE)
    assert len(graph.objects) == 2
    centres = [(o.box.x + o.box.width / 2, o.box.y + o.box.height / 2) for o in graph.objects]
    expected = [(60 / 224 * 140, 60 / 224 * 280), (150 / 224 * 140, 170 / 224 * 280)]
    assert np.abs(np.array(centres) - expected).max() < 12


@given(
    arrays(
        np.float32,
        st.tuples(st.integers(1, 33), st.integers(1, 33)),
        elements=st.floats(-10, 10, width=32) | st.sampled_from([0.0, 1.0]),
    ),
    st.integers(1, 10),
    st.integers(1, 300),
    st.integers(1, 300),
    st.floats(0.1, 1),
)
def test_any_map_gives_a_valid_graph(
    values: NDArray[np.float32], most: int, width: int, height: int, part: float
) -> None:
    region = Geometry((1 - part) / 2 * width, 0, part * width, height, 99)
    graph = propose_graph(values, region, (width, height), most)
    graph.check_inside(width, height)
    assert 1 <= len(graph.objects) <= most
    assert len(graph.nodes()) <= 10
    assert graph == propose_graph(values.copy(), region, (width, height), most)
    for link in graph.relationships:
        a, b = graph.objects[link.subject_id - 1].box, graph.objects[link.object_id - 1].box
        meet = max(a.x, b.x) < min(a.right, b.right) and max(a.y, b.y) < min(a.bottom, b.bottom)
        assert {
            "inside": a.union(b) == b,
            "overlaps": meet,
            "left of": not meet and a.x + a.right <= b.x + b.right,
            "above": not meet and a.y + a.bottom <= b.y + b.bottom,
        }[link.name]


@pytest.mark.parametrize("most", [0, 11])
def test_refuses_a_wrong_count(most: int) -> None:
    with pytest.raises(OptionInvalid) as caught:
        propose_graph(np.ones((2, 2)), WHOLE, SIZE, most)
    assert caught.value.field == "max_objects"
