"""Coalition games: exact and estimated Shapley values, and the Shapley interaction of two players.

The players are regions of an image, the value of a coalition is what the network says when only its members are
present. Several values (targets) are handled at once: V stands for their number, R for that of the players.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import comb

import torch
from torch import Tensor


def all_coalitions(players: int) -> Tensor:
    """List every coalition: bool, (2^R, R); row c holds the bits of c, so none is first and all is last."""
    return (torch.arange(2**players)[:, None] >> torch.arange(players)) % 2 == 1


def shapley_values(values: Tensor) -> Tensor:
    """Give each player's Shapley value, exactly (Shapley 1953).

    phi_g = sum over coalitions S without g of |S|! (R - |S| - 1)! / R! (v(S + g) - v(S)).

    Args:
        values: (2^R, V), in the order of `all_coalitions`.

    Returns:
        float64, (R, V); the values of all players sum to v(all) - v(none).
    """
    coalitions = _coalitions_of(values)
    players = coalitions.shape[1]
    others = coalitions.sum(dim=1, keepdim=True) - coalitions.long()  # |S|, whether g is in the coalition or not
    weights = _orderings(players)[others] * _sign(coalitions)
    return weights.T.to(values.device) @ values.double()


def shapley_interactions(values: Tensor, pairs: Sequence[tuple[int, int]]) -> Tensor:
    """Give what two players are worth together beyond what each is worth alone, exactly.

    Grabisch and Roubens 1999: I(i, j) = sum over coalitions S without i and j of
    |S|! (R - |S| - 2)! / (R - 1)! (v(S + ij) - v(S + i) - v(S + j) + v(S)).

    Args:
        values: (2^R, V), in the order of `all_coalitions`.
        pairs: players, two different ones a pair.

    Returns:
        float64, (pairs, V).
    """
    coalitions = _coalitions_of(values)
    found = [torch.zeros((0, values.shape[1]), dtype=torch.float64, device=values.device)]
    for i, j in pairs:
        both = coalitions[:, [i, j]]
        others = coalitions.sum(dim=1) - both.sum(dim=1)
        weights = _orderings(coalitions.shape[1] - 1)[others] * _sign(both).prod(dim=1)
        found.append(weights[None].to(values.device) @ values.double())
    return torch.cat(found)


def sampled_coalitions(players: int, count: int, generator: torch.Generator) -> Tensor:
    """Draw coalitions for `kernel_shap`, each followed by its complement.

    The size k, 1 to R - 1, is drawn with probability proportional to 1 / (k (R - k)), then any coalition of this size
    alike; so they are drawn by the Shapley kernel, and all weigh the same in the regression. Pairs of complements
    reduce the variance (Covert and Lee 2021).

    Args:
        players: R, at least 2.
        count: coalitions besides none and all, at least 1.
        generator: on the CPU.

    Returns:
        bool, (count + 2, R): none, those drawn, all.
    """
    sizes = torch.arange(1, players)
    odds = 1 / (sizes * (players - sizes))
    drawn = sizes[torch.multinomial(odds, -(-count // 2), replacement=True, generator=generator)]
    ranks = torch.rand((len(drawn), players), generator=generator).argsort(dim=1).argsort(dim=1)
    half = ranks < drawn[:, None]
    pairs = torch.stack([half, ~half], dim=1).flatten(0, 1)[:count]
    none = torch.zeros((1, players), dtype=torch.bool)
    return torch.cat([none, pairs, ~none])


def kernel_shap(coalitions: Tensor, values: Tensor) -> Tensor:
    """Estimate the Shapley values from some coalitions (Lundberg and Lee 2017, arXiv:1705.07874).

    The linear game that fits the drawn values best, among those with v(none) and v(all) as given. Own code rather than
    captum's KernelShap: that fits one target at a time, draws from torch's global random state, and needs scikit-learn.

    Args:
        coalitions: bool, (n, R), none first and all last, as `sampled_coalitions` makes them.
        values: (n, V), in their order.

    Returns:
        float64, (R, V); the values of all players sum to v(all) - v(none) up to rounding.
    """
    members = coalitions.to(device=values.device, dtype=torch.float64)
    known = values.double()
    players = members.shape[1]
    share = (known[-1] - known[0]) / players
    # phi = share + u with u summing to 0, so v(S) - v(none) - |S| share = (members - |S| / R) u. The least solution of
    # these equations sums to 0 by itself.
    sizes = members.sum(dim=1, keepdim=True)
    left = (members - sizes / players)[1:-1]
    right = (known - known[0] - sizes * share)[1:-1]
    solution: Tensor = torch.linalg.pinv(left) @ right
    return share + solution


def sampled_contexts(players: int, pair: tuple[int, int], count: int, generator: torch.Generator) -> Tensor:
    """Draw coalitions for `sampled_interaction`.

    A context is a set of other players; its size is drawn alike from 0 to R - 2, then any set of this size alike, which
    are the weights of the exact index.

    Args:
        players: R, at least 2.
        pair: two different players.
        count: contexts.
        generator: on the CPU.

    Returns:
        bool, (4 count, R): each context with neither, the first, the second and both of the pair.
    """
    others = [g for g in range(players) if g not in pair]
    sizes = torch.randint(0, len(others) + 1, (count, 1), generator=generator)
    ranks = torch.rand((count, len(others)), generator=generator).argsort(dim=1).argsort(dim=1)
    contexts = torch.zeros((count, 4, players), dtype=torch.bool)
    contexts[..., others] = (ranks < sizes)[:, None]
    contexts[..., list(pair)] = torch.tensor([[False, False], [True, False], [False, True], [True, True]])
    return contexts.flatten(0, 1)


def sampled_interaction(values: Tensor) -> Tensor:
    """Estimate the Shapley interaction from the values (4 count, V) of `sampled_contexts`; float64, (V,)."""
    neither, first, second, both = (values[k::4].double() for k in range(4))
    return (both - first - second + neither).mean(dim=0)


def _coalitions_of(values: Tensor) -> Tensor:
    coalitions = all_coalitions(len(values).bit_length() - 1)
    assert len(coalitions) == len(values), "one value for every coalition"
    return coalitions


def _orderings(players: int) -> Tensor:
    """For each size k of a coalition, 0 to R - 1: k! (R - k - 1)! / R! = 1 / (R binomial(R - 1, k))."""
    return torch.tensor([1 / (players * comb(players - 1, k)) for k in range(players)], dtype=torch.float64)


def _sign(members: Tensor) -> Tensor:
    return members.double() * 2 - 1
