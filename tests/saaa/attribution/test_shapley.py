"""Coalition games: solved by hand, against averages over all orders of arrival, and against captum."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from captum.attr import KernelShap, ShapleyValues
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from saaa.attribution.shapley import (
    all_coalitions,
    kernel_shap,
    sampled_coalitions,
    sampled_contexts,
    sampled_interaction,
    shapley_interactions,
    shapley_values,
)


def draw(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def by_orders(values: Tensor, players: int) -> Tensor:
    """The definition: a player's mean contribution over all orders in which the players may arrive."""
    total = torch.zeros((players, values.shape[1]), dtype=torch.float64)
    orders = list(itertools.permutations(range(players)))
    for order in orders:
        before = 0
        for player in order:
            total[player] += values[before | 1 << player].double() - values[before].double()
            before |= 1 << player
    return total / len(orders)


def test_all_coalitions() -> None:
    assert all_coalitions(2).int().tolist() == [[0, 0], [1, 0], [0, 1], [1, 1]]
    assert all_coalitions(0).shape == (1, 0)


def test_glove_game() -> None:
    """Player 0 has a left glove, 1 and 2 right ones; a pair is worth 1. Known: 2/3, 1/6, 1/6."""
    values = torch.tensor([[float(c[0] and (c[1] or c[2]))] for c in all_coalitions(3)])
    torch.testing.assert_close(shapley_values(values)[:, 0], torch.tensor([4.0, 1.0, 1.0], dtype=torch.float64) / 6)
    # 0 and 1: without 2 the pair adds 1, with 2 it takes the place of 2: (1 + 0) / 2. 1 and 2: 0 - 0, then 1 - 1 - 1.
    found = shapley_interactions(values, [(0, 1), (1, 2)])[:, 0]
    torch.testing.assert_close(found, torch.tensor([0.5, -0.5], dtype=torch.float64))


@given(players=st.integers(1, 5), seed=st.integers(0, 1000))
def test_shapley_values_over_all_orders(players: int, seed: int) -> None:
    values = torch.randn((2**players, 3), generator=draw(seed))
    found = shapley_values(values)
    torch.testing.assert_close(found, by_orders(values, players))
    torch.testing.assert_close(found.sum(dim=0), (values[-1] - values[0]).double(), atol=1e-5, rtol=1e-5)


@given(players=st.integers(2, 5), seed=st.integers(0, 1000))
def test_interaction_is_the_change_of_a_share(players: int, seed: int) -> None:
    """Known: I(i, j) = i's Shapley value in the game with j always present, minus that with j always absent."""
    values = torch.randn((2**players, 2), generator=draw(seed))
    i, j = 0, players - 1
    found = shapley_interactions(values, [(i, j), (j, i)])
    present = all_coalitions(players)[:, j]  # the last player's bit is the highest: the orders stay
    expected = by_orders(values[present], players - 1)[i] - by_orders(values[~present], players - 1)[i]
    torch.testing.assert_close(found[0], expected)
    torch.testing.assert_close(found[0], found[1])


def test_no_players_and_no_pairs() -> None:
    assert shapley_values(torch.ones((1, 2))).shape == (0, 2)
    assert shapley_interactions(torch.ones((4, 2)), []).shape == (0, 2)


@given(players=st.integers(2, 12), count=st.integers(1, 40), seed=st.integers(0, 50))
def test_sampled_coalitions(players: int, count: int, seed: int) -> None:
    made = sampled_coalitions(players, count, draw(seed))
    assert made.shape == (count + 2, players)
    assert not made[0].any()
    assert made[-1].all()
    inner = made[1:-1]
    sizes = inner.sum(dim=1)
    assert sizes.min() >= 1
    assert sizes.max() <= players - 1
    assert torch.equal(inner[1::2], ~inner[0 : count // 2 * 2 : 2])
    assert torch.equal(made, sampled_coalitions(players, count, draw(seed)))


def test_sizes_are_drawn_by_the_kernel() -> None:
    sizes = sampled_coalitions(5, 40_000, draw(0))[1:-1].sum(dim=1)
    found = torch.bincount(sizes, minlength=6)[1:5] / 40_000
    odds = torch.tensor([1 / 4, 1 / 6, 1 / 6, 1 / 4])
    torch.testing.assert_close(found, odds / odds.sum(), atol=0.01, rtol=0)


@given(players=st.integers(2, 10), seed=st.integers(0, 100), count=st.integers(1, 60))
def test_kernel_shap_keeps_the_sum(players: int, seed: int, count: int) -> None:
    """However few the coalitions."""
    generator = draw(seed)
    coalitions = sampled_coalitions(players, count, generator)
    values = torch.randn((count + 2, 2), generator=generator, dtype=torch.float64)
    found = kernel_shap(coalitions, values).sum(dim=0)
    torch.testing.assert_close(found, values[-1] - values[0])


@given(players=st.integers(2, 12), seed=st.integers(0, 100))
def test_kernel_shap_solves_linear_games(players: int, seed: int) -> None:
    generator = draw(seed)
    coalitions = sampled_coalitions(players, 20 * players, generator)
    worth = torch.randn((players, 2), generator=generator, dtype=torch.float64)
    torch.testing.assert_close(kernel_shap(coalitions, 3 + coalitions.double() @ worth), worth)


def game(members: Tensor) -> Tensor:
    """Up to ten players; what two neighbours have together counts too."""
    weight = torch.linspace(-1, 2, 10, dtype=torch.float64)[: members.shape[1]]
    inside = members.double()
    return inside @ weight + (inside[:, 1:] * inside[:, :-1]).sum(dim=1) + 2 * inside[:, :3].prod(dim=1)


def test_shapley_values_equal_captum() -> None:
    found = shapley_values(game(all_coalitions(5))[:, None])[:, 0]
    oracle = ShapleyValues(lambda x: game(x > 0)).attribute(torch.ones((1, 5)))[0]
    torch.testing.assert_close(found, oracle.double(), atol=1e-5, rtol=1e-4)


def test_kernel_shap_nears_the_exact_values_closer_than_captum() -> None:
    exact = shapley_values(game(all_coalitions(10))[:, None])[:, 0]
    torch.testing.assert_close(exact.sum(), game(torch.ones((1, 10)))[0])
    coalitions = sampled_coalitions(10, 500, draw(1))
    found = kernel_shap(coalitions, game(coalitions)[:, None])[:, 0]
    spread = (exact - exact.mean()).norm()
    assert (found - exact).norm() < 0.1 * spread
    torch.manual_seed(0)
    captum = KernelShap(lambda x: game(x > 0)).attribute(torch.ones((1, 10)), n_samples=502)[0].double()
    assert (found - exact).norm() < (captum - exact).norm() < spread


@given(players=st.integers(2, 9), count=st.integers(1, 20), seed=st.integers(0, 20))
def test_sampled_contexts(players: int, count: int, seed: int) -> None:
    pair = (players - 1, 0)
    made = sampled_contexts(players, pair, count, draw(seed)).view(count, 4, players)
    ends = made[..., list(pair)].int()
    assert (ends == torch.tensor([[0, 0], [1, 0], [0, 1], [1, 1]])).all()
    others = [g for g in range(players) if g not in pair]
    assert (made[..., others] == made[:, :1][..., others]).all()


def test_sampled_interaction_nears_the_exact() -> None:
    exact = shapley_interactions(game(all_coalitions(10))[:, None], [(0, 1), (4, 8)])[:, 0]
    assert exact[0] == pytest.approx(1 + 2 / 2)  # neighbours, and with the third player, who comes before half the time
    assert exact[1] == pytest.approx(0, abs=1e-9)
    for pair, expected in (((0, 1), exact[0]), ((4, 8), exact[1])):
        contexts = sampled_contexts(10, pair, 2000, draw(0))
        found = sampled_interaction(game(contexts)[:, None])
        np.testing.assert_allclose(found.numpy(), [expected], atol=0.1)
