"""Metrics of maps: by hand, by their properties."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from saaa.attribution.metrics import (
    centred_cosine,
    completeness_gap,
    iou,
    mean_iou,
    object_means,
    object_top1,
    pointing,
    rank_accuracy,
    rank_correlation,
    relevance_mass,
    to_cells,
    to_pixels,
)
from saaa.errors import OptionInvalid

LOCALISATION: tuple[Callable[..., float], ...] = (pointing, relevance_mass, rank_accuracy, iou, mean_iou)
MAP = np.array([[4.0, 1.0], [-3.0, 3.0]])
LEFT = np.array([[True, False], [True, False]])


def drawn(seed: int, *, whole: bool = False) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """A random map of 5 x 6, whole numbers if there should be ties, and a mask with at least one pixel."""
    rng = np.random.default_rng(seed)
    values = rng.integers(-2, 3, (5, 6)).astype(float) if whole else rng.normal(size=(5, 6))
    mask = rng.random((5, 6)) < rng.uniform(0.05, 0.95)
    mask[tuple(rng.integers(0, 5, 2))] = True
    return values, mask


def test_by_hand() -> None:
    assert pointing(MAP, LEFT) == 1
    assert pointing(MAP, ~LEFT) == 0
    assert relevance_mass(MAP, LEFT) == pytest.approx(4 / 8)
    assert rank_accuracy(MAP, LEFT) == 1 / 2  # 4 and 3 are the largest two
    assert iou(MAP, LEFT) == pytest.approx(1 / 3)  # above the mean 1.25: the diagonal
    assert mean_iou(MAP, LEFT) == pytest.approx(1 / 3)
    assert iou(MAP, np.eye(2, dtype=bool)) == 1
    np.testing.assert_allclose(object_means(MAP, np.stack([LEFT, ~LEFT])), [0.5, 2])
    assert object_top1(MAP, np.stack([LEFT, ~LEFT]), 1) == 1
    assert object_top1(MAP, np.stack([LEFT, ~LEFT]), 0) == 0
    assert completeness_gap(3, 4) == 0.25
    assert completeness_gap(-5, -4) == 0.25
    assert completeness_gap(0, 0) == 0


def test_object_top1_is_neutral_to_size() -> None:
    """A large object with more mass, but less of it a pixel, does not win."""
    values = np.full((4, 4), 1.0)
    values[0, 0] = 5.0
    small = np.zeros((4, 4), bool)
    small[0, 0] = True
    assert object_top1(values, np.stack([~small, small]), 1) == 1


@given(seed=st.integers(0, 500))
def test_a_flat_map_is_chance(seed: int) -> None:
    """For metrics with a chance level: the mask's share of the area, and one of the objects."""
    _, mask = drawn(seed)
    for value in (0.0, -1.5, 2.0):
        flat = np.full(mask.shape, value)
        for metric in (pointing, relevance_mass, rank_accuracy):
            assert metric(flat, mask) == pytest.approx(mask.mean())
        assert object_top1(flat, np.stack([mask] * 3), 2) == pytest.approx(1 / 3)
    assert iou(np.zeros(mask.shape), mask) == 0


@given(seed=st.integers(0, 500), whole=st.booleans())
def test_ranges_and_scale(seed: int, whole: bool) -> None:
    values, mask = drawn(seed, whole=whole)
    for metric in LOCALISATION:
        found = metric(values, mask)
        assert 0 <= found <= 1
        assert metric(values * 7.5, mask) == pytest.approx(found)
        assert metric(values, np.ones_like(mask)) >= found or metric in (iou, mean_iou)
        assert metric(mask.astype(float), mask) == 1 or mask.all()
    if not (values[mask] == values.max()).any():
        assert pointing(values, mask) == 0
    if not mask.all() and not whole:
        assert pointing(values, mask) + pointing(values, ~mask) == 1
        assert relevance_mass(values, mask) + relevance_mass(values, ~mask) == pytest.approx(1)


@pytest.mark.parametrize("seed", [88, 470])
def test_a_share_never_passes_the_whole(seed: int) -> None:
    """Here nearly all is inside, and the sum over the mask rounds to more than the sum over the map."""
    assert 0.9 < relevance_mass(*drawn(seed)) <= 1


@given(seed=st.integers(0, 300))
def test_rank_accuracy_is_the_mean_over_orders_of_ties(seed: int) -> None:
    values, mask = drawn(seed, whole=True)
    rng = np.random.default_rng(seed)
    count = mask.sum()
    hits = []
    for _ in range(400):
        best = np.lexsort((rng.permutation(values.size), -values.ravel()))[:count]
        hits.append(mask.ravel()[best].mean())
    assert rank_accuracy(values, mask) == pytest.approx(np.mean(hits), abs=0.06)


@pytest.mark.parametrize("metric", LOCALISATION)
def test_refused(metric: Callable[..., float]) -> None:
    with pytest.raises(OptionInvalid, match="no pixel"):
        metric(MAP, np.zeros((2, 2), bool))
    with pytest.raises(OptionInvalid, match="enlarge"):
        metric(MAP, np.ones((4, 4), bool))
    with pytest.raises(OptionInvalid, match="finite"):
        metric(np.array([[np.nan, 1], [0, 0]]), LEFT)


def test_mass_does_not_overflow() -> None:
    huge = np.array([[3e38, 3e38], [0, 0]], np.float32)
    assert relevance_mass(huge, LEFT) == 0.5
    assert relevance_mass(np.full((2, 2), 1e308), LEFT) == 0.5


def test_to_pixels() -> None:
    np.testing.assert_allclose(to_pixels(np.array([[0.0, 1.0]]), 4)[0], [0, 0.25, 0.75, 1])
    large = to_pixels(MAP, 64)
    assert large.shape == (64, 64)
    assert large.dtype == np.float32
    assert np.unravel_index(large.argmax(), large.shape) < (32, 32)


def test_to_cells() -> None:
    np.testing.assert_allclose(to_cells(np.arange(16.0).reshape(4, 4), (2, 1)), [[3.5], [11.5]])
    assert to_cells(np.ones((7, 5)), (3, 2)).tolist() == [[1, 1]] * 3


def test_rank_correlation_by_hand() -> None:
    assert rank_correlation(np.array([1, 2, 3]), np.array([10, 20, 1000])) == pytest.approx(1)
    assert rank_correlation(np.array([1, 2, 3]), np.array([3, 2, -9])) == pytest.approx(-1)
    # ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4
    assert rank_correlation(np.array([0, 5, 5, 7]), np.arange(4)) == pytest.approx(0.9486833)
    assert rank_correlation(np.ones(5), np.arange(5)) == 0


@given(seed=st.integers(0, 200))
def test_correlations_ignore_what_they_should(seed: int) -> None:
    a, b = np.random.default_rng(seed).normal(size=(2, 3, 4))
    assert rank_correlation(a, b) == pytest.approx(rank_correlation(np.exp(a), b**3))
    assert rank_correlation(a, b) == pytest.approx(rank_correlation(b, a))
    assert centred_cosine(a.ravel(), b.ravel()) == pytest.approx(np.corrcoef(a.ravel(), b.ravel())[0, 1])
    assert centred_cosine(3 * a.ravel() + 4, a.ravel()) == pytest.approx(1)
    assert centred_cosine(np.full(3, 0.1), np.arange(3.0)) == 0
