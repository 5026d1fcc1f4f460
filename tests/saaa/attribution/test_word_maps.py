"""Painting node weights and adding up maps of several sizes: by hand, and mass that is never lost."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from saaa.attribution.word_maps import CaptionTarget, add_levels, mean_attention, paint
from saaa.work import TargetKind


def test_a_box_is_painted_by_what_each_cell_covers():
    """Cells of 10 pixels; a box of 20 x 10 pixels over two whole cells, and one of 10 x 20 over four quarters."""
    weights = torch.tensor([1.0, 2.0])
    boxes = torch.tensor([[0.0, 0.0, 20.0, 10.0], [15.0, 15.0, 25.0, 35.0]])
    wanted = np.zeros((4, 4))
    wanted[0, :2] += 0.5
    wanted[1, 1:3] += 2 * 0.5 * 0.25
    wanted[2, 1:3] += 2 * 0.5 * 0.5
    wanted[3, 1:3] += 2 * 0.5 * 0.25
    np.testing.assert_allclose(paint(weights, boxes, 40, 4), wanted, atol=1e-6)


def test_what_lies_outside_the_input_is_lost_and_nothing_else():
    boxes = torch.tensor([[-10.0, 0.0, 10.0, 10.0], [7.0, 7.0, 7.0, 7.0], [0.0, 3.0, 40.0, 3.0]])
    assert float(paint(torch.tensor([1.0, 0.0, 0.0]), boxes, 40, 5).sum()) == pytest.approx(0.5)
    assert float(paint(torch.tensor([0.0, 1.0, 0.0]), boxes, 40, 5).sum()) == pytest.approx(1)  # a point
    assert float(paint(torch.tensor([0.0, 0.0, 1.0]), boxes, 40, 5).sum()) == pytest.approx(1)  # a line


@given(
    st.lists(st.tuples(*[st.floats(0, 99)] * 4, st.floats(0, 1)), min_size=1, max_size=5),
    st.integers(1, 20),
)
def test_painting_keeps_the_mass_of_boxes_inside(things, cells):
    # A box narrower than a pixel is painted one pixel wide, which at the border may reach half a pixel outside.
    sides = [(sorted(t[:2]), sorted(t[2:4])) for t in things]
    boxes = torch.tensor([[x[0], y[0], x[1] + 1, y[1] + 1] for x, y in sides])
    weights = torch.tensor([t[4] for t in things])
    values = paint(weights, boxes, 100, cells)
    assert values.shape == (cells, cells)
    assert float(values.min()) >= 0
    assert float(values.sum()) == pytest.approx(float(weights.sum()), rel=1e-4, abs=1e-5)


def test_levels_are_added_at_the_finest_grid():
    fine = torch.zeros(1, 4, 4)
    fine[0, 3, 3] = 1
    coarse = torch.tensor([[[4.0, 8.0], [0.0, -4.0]]])
    wanted = np.kron(coarse[0] / 4, np.ones((2, 2)))
    wanted[3, 3] += 1
    for parts in ([fine, coarse], [coarse, fine]):
        np.testing.assert_allclose(add_levels(parts)[0], wanted, atol=1e-6)


@given(st.lists(st.integers(1, 13), min_size=1, max_size=4), st.integers(0, 99))
def test_adding_levels_keeps_their_mass_whatever_their_sizes(sizes, seed):
    rng = np.random.default_rng(seed)
    parts = [torch.from_numpy(rng.normal(size=(2, size, size))) for size in sizes]
    total = add_levels(parts)
    assert total.shape == (2, max(sizes), max(sizes))
    np.testing.assert_allclose(total.sum((1, 2)), sum(p.sum((1, 2)) for p in parts), atol=1e-9)


def test_a_nodes_attention_is_that_of_the_words_that_look_at_it():
    attention = torch.tensor([[1.0, 0.0], [0.25, 0.75], [0.75, 0.25]])
    word = mean_attention(CaptionTarget(0, TargetKind.WORD, 1), attention)
    node = mean_attention(CaptionTarget(0, TargetKind.NODE, 1), attention)
    assert word.tolist() == [0.25, 0.75]
    np.testing.assert_allclose(node, [0.75 * 0.25 + 0.25 * 0.75, 0.75 * 0.75 + 0.25 * 0.25])
    unseen = mean_attention(CaptionTarget(0, TargetKind.NODE, 1), torch.tensor([[1.0, 0.0]]))
    assert unseen.tolist() == [0.0, 0.0]
