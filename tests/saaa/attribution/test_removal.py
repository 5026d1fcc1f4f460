"""Removal: cells, regions and coalitions by hand, and against loops over pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from saaa.attribution.removal import (
    ROWS_AT_ONCE,
    box_regions,
    cells_of,
    chunks,
    coalition_logits,
    grid_of,
    keep_masks,
    object_regions,
    top_share,
)
from saaa.models.classifier import Classifier, ClassifierConfig
from saaa.scene_graph import Box, Relationship, SceneGraph, SceneObject


def make(architecture: str, size: int) -> Classifier:
    return Classifier(ClassifierConfig(architecture=architecture, classes=("a", "b"), input_size=size)).eval()


@pytest.mark.parametrize(
    ("architecture", "size", "grid"),
    [("test_vit", 64, (4, 4)), ("resnet10t", 64, (4, 4)), ("resnet10t", 100, (6, 6)), ("test_mambaout", 64, (4, 4))],
)
def test_grid(architecture: str, size: int, grid: tuple[int, int]) -> None:
    assert grid_of(make(architecture, size)) == grid


def test_cells_divide_the_input() -> None:
    cells = cells_of((2, 3), 6)
    assert cells.tolist() == [[0, 0, 1, 1, 2, 2]] * 3 + [[3, 3, 4, 4, 5, 5]] * 3
    counts = torch.bincount(cells_of((6, 6), 100).flatten())
    assert len(counts) == 36
    assert 16 * 16 <= counts.min() <= counts.max() <= 17 * 17


def test_box_regions_touch() -> None:
    boxes = np.array([[1.2, 0, 3.0, 2.1], [-5, 6.5, 2, 50], [9, 0, 12, 3]], np.float32)
    regions = box_regions(boxes, 8)
    expected = np.zeros((3, 8, 8), bool)
    expected[0, 0:3, 1:3] = True
    expected[1, 6:8, 0:2] = True  # cut off at the edge
    np.testing.assert_array_equal(regions.numpy(), expected)  # the third lies outside


def test_object_regions_are_those_of_the_objects() -> None:
    things = (SceneObject(7, "a", Box(0, 0, 2, 2), ("red",)), SceneObject(9, "b", Box(4, 4, 2, 2)))
    graph = SceneGraph(things, (Relationship(1, 7, 9, "by"),)).role_graph()
    regions = object_regions(graph, 8)
    assert regions.shape == (2, 8, 8)
    assert regions.sum(dim=(1, 2)).tolist() == [4, 4]
    assert regions[1, 5, 5]


@given(seed=st.integers(0, 200), count=st.integers(1, 5))
def test_keep_masks_pixel_by_pixel(seed: int, count: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    regions = torch.rand((count, 4, 4), generator=draw) < 0.4
    coalitions = torch.rand((6, count), generator=draw) < 0.5
    masks = keep_masks(regions, coalitions)
    for mask, present in zip(masks, coalitions, strict=True):
        for y in range(4):
            for x in range(4):
                here = [r for r in range(count) if regions[r, y, x]]
                removed = any(not present[r] for r in here) and not any(present[r] for r in here)
                assert bool(mask[y, x]) is not removed


class Mean(nn.Module):
    """Logits: the means of the first two channels. Remembers how many rows it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.rows.append(len(x))
        return x[:, :2].mean(dim=(2, 3))


def test_coalition_logits_in_bounded_pieces() -> None:
    classifier = make("test_vit", 64)
    classifier.net = net = Mean()
    image = torch.randn((3, 64, 64), generator=torch.Generator().manual_seed(0))
    regions = torch.zeros((2, 64, 64), dtype=torch.bool)
    regions[0, :32], regions[1, 16:48] = True, True
    coalitions = (torch.arange(70)[:, None] >> torch.arange(2)) % 2 == 1
    found = coalition_logits(classifier, image, regions, coalitions)
    assert found.shape == (70, 2)
    assert sum(net.rows) == 70
    assert max(net.rows) <= ROWS_AT_ONCE
    rows_kept = [(0, 0), (0, 32), (16, 48), (0, 48)]  # beside the last 16, the background
    for row, (top, bottom) in enumerate(rows_kept):
        expected = (image[:2, top:bottom].sum(dim=(1, 2)) + image[:2, 48:].sum(dim=(1, 2))) / 64**2
        torch.testing.assert_close(found[row], expected, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(found[4:8], found[:4])


def test_chunks_cover() -> None:
    assert [i for piece in chunks(75) for i in range(75)[piece]] == list(range(75))
    assert list(chunks(0)) == []


@given(
    rows=st.integers(1, 6),
    columns=st.integers(1, 6),
    size=st.integers(6, 20),
    share=st.floats(0.05, 1.0),
    seed=st.integers(0, 5),
)
def test_top_share(rows: int, columns: int, size: int, share: float, seed: int) -> None:
    maps = torch.rand((2, rows, columns), generator=torch.Generator().manual_seed(seed))
    mask = top_share(maps, size, share)
    assert mask.shape == (2, size, size)
    assert mask.flatten(1).sum(dim=1).tolist() == [round(share * size * size)] * 2


def test_top_share_takes_the_largest() -> None:
    maps = torch.zeros((1, 2, 2))
    maps[0, 1, 0] = 1.0
    mask = top_share(maps, 8, 0.25)[0]
    assert mask[4:, :4].sum() >= 14
