"""Each local rule alone: the value is the function's, and the gradient that of the linear layer it stands for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import _len_torch_function_stack

from saaa.attribution.attention import CaptureAttention, attention_weights
from saaa.attribution.rules import LocalRules


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def leaf(*shape: int, seed: int = 0) -> Tensor:
    return draw(*shape, seed=seed).requires_grad_(True)


def relevance(made: Tensor, *sources: Tensor) -> list[Tensor]:
    """Source times the gradient of the sum of `made`."""
    gradients = torch.autograd.grad(made.sum(), sources, allow_unused=True)
    return [torch.zeros_like(s) if g is None else s.detach() * g for s, g in zip(sources, gradients, strict=True)]


@pytest.mark.parametrize(
    "function",
    [
        functional.gelu,
        lambda x: functional.gelu(x, approximate="tanh"),
        functional.silu,
        nn.SiLU(inplace=True),
        functional.hardswish,
        functional.mish,
        functional.relu,
        lambda x: x * torch.sigmoid(1.702 * x),
    ],
)
def test_an_activation_passes_on_all_relevance(function: Callable[[Tensor], Tensor]) -> None:
    x = leaf(50)
    with torch.no_grad():
        expected = function(x * 1)
    with LocalRules(None, detach_attention=True):
        made = function(x * 1)
    torch.testing.assert_close(made.detach(), expected)
    torch.testing.assert_close(relevance(made, x)[0], expected)


@pytest.mark.parametrize("value", [0.0, -40.0, 40.0])
def test_gelu_at_its_ends(value: float) -> None:
    """Nothing is divided by the input: the slope at 0 is 1/2, far out 0 or 1."""
    x = torch.tensor([value], requires_grad=True)
    with LocalRules(None, detach_attention=True):
        made = functional.gelu(x)
    (slope,) = torch.autograd.grad(made.sum(), x)
    assert slope.item() == {0.0: 0.5, -40.0: 0.0, 40.0: 1.0}[value]


@pytest.mark.parametrize("affine", [True, False])
def test_norms_have_a_constant_deviation(affine: bool) -> None:
    """With the deviation a number, a norm without bias is linear: it passes on all relevance."""
    x = leaf(3, 8, 5, 5)
    weight = draw(8, seed=1) if affine else None
    bias = draw(8, seed=2) if affine else None
    tokens = x.flatten(2).transpose(1, 2)
    cases: list[Callable[[Tensor | None], Tensor]] = [
        lambda b: functional.layer_norm(tokens, (8,), weight, b, 1e-5),
        lambda b: functional.layer_norm(tokens, [25, 8]),
        lambda b: functional.rms_norm(tokens, (8,), weight),
        lambda b: functional.rms_norm(tokens, (8,), weight, 1e-3),
        lambda b: functional.group_norm(x, 4, weight, b, 1e-5),
        lambda b: tokens * torch.rsqrt(tokens.pow(2).mean(dim=-1, keepdim=True) + 1e-6),
    ]
    for case in cases:
        with torch.no_grad():
            expected, unbiased = case(bias), case(None)
        with LocalRules(None, detach_attention=True):
            made = case(bias)
        torch.testing.assert_close(made.detach(), expected)
        mixed = relevance(made, x)[0].sum()
        torch.testing.assert_close(mixed, unbiased.sum(), rtol=1e-9, atol=1e-9)


def test_layer_norm_equals_its_matrix() -> None:
    x, weight = leaf(4, 6), draw(6, seed=1)
    with LocalRules(None, detach_attention=True):
        made = functional.layer_norm(x, (6,), weight)
    upper = draw(4, 6, seed=2)
    (gradient,) = torch.autograd.grad(made, x, upper)
    deviation = (x.detach().var(dim=1, correction=0, keepdim=True) + 1e-5).sqrt()
    centre = torch.eye(6, dtype=torch.float64) - 1 / 6
    torch.testing.assert_close(gradient, (upper * weight / deviation) @ centre)


@given(gamma=st.floats(0.01, 1), seed=st.integers(0, 1000), biased=st.booleans())
def test_gamma_rule_equals_its_contributions(gamma: float, seed: int, biased: bool) -> None:
    x, weight = leaf(3, 5, seed=seed), draw(4, 5, seed=seed + 1)
    bias = draw(4, seed=seed + 2) if biased else torch.zeros(4, dtype=torch.float64)
    with LocalRules(None, detach_attention=True, gamma=gamma):
        made = functional.linear(x, weight, bias if biased else None)
    found = relevance(made, x)[0]
    for row in range(3):
        expected = torch.zeros(5, dtype=torch.float64)
        for unit in range(4):
            parts = [float(x[row, k].detach() * weight[unit, k]) for k in range(5)] + [float(bias[unit])]
            out = sum(parts)
            favoured = [p * (1 + gamma) if p * out > 0 else p for p in parts]
            expected += torch.tensor([p / sum(favoured) * out for p in favoured[:5]], dtype=torch.float64)
        torch.testing.assert_close(found[row], expected, rtol=1e-7, atol=1e-9)


def test_gamma_rule_where_a_unit_is_exactly_zero() -> None:
    x = torch.tensor([[1.0, 1.0]], requires_grad=True)
    with LocalRules(None, detach_attention=True, gamma=0.5):
        made = functional.linear(x, torch.tensor([[1.0, -1.0], [0.0, 0.0]]))
    assert relevance(made, x)[0].tolist() == [[0.0, 0.0]]


def test_a_product_shares_evenly_and_a_constant_factor_takes_nothing() -> None:
    a, b = leaf(3, 4), leaf(3, 4, seed=1)
    with LocalRules(None, detach_attention=False):
        both, one, matrix = a * b, a * b.detach(), a @ b.T
    for share in relevance(both, a, b):
        torch.testing.assert_close(share, (a * b).detach() / 2)
    torch.testing.assert_close(relevance(one, a)[0], (a * b).detach())
    torch.testing.assert_close(sum(r.sum() for r in relevance(matrix, a, b)), matrix.sum().detach())


@pytest.mark.parametrize("constant", ["", "query", "key", "value"])
def test_attention_shares_between_what_carries_relevance(constant: str) -> None:
    """Written out with single products, each of which shares evenly, and with the fused function."""
    parts = {name: leaf(2, 3, 5, 4, seed=i) for i, name in enumerate(("query", "key", "value"))}
    if constant:
        parts[constant].requires_grad_(False)
    query, key, value = parts.values()
    with LocalRules(None, detach_attention=False):
        fused = functional.scaled_dot_product_attention(query, key, value)
        plain = ((query * 0.5) @ key.transpose(-2, -1)).softmax(dim=-1) @ value
    sources = [part for part in parts.values() if part.requires_grad]
    for one, other in zip(relevance(fused, *sources), relevance(plain, *sources), strict=True):
        torch.testing.assert_close(one, other)


def test_detached_attention_gives_all_relevance_to_the_values() -> None:
    query, key, value = (leaf(2, 3, 5, 4, seed=i) for i in range(3))
    with LocalRules(None, detach_attention=True):
        made = functional.scaled_dot_product_attention(query, key, value)
    of_query, of_key, of_value = relevance(made, query, key, value)
    assert not of_query.any()
    assert not of_key.any()
    torch.testing.assert_close(of_value.sum(), made.sum().detach())


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"is_causal": True},
        {"scale": 0.1},
        {"attn_mask": torch.ones(5, 5, dtype=torch.bool).tril(1)},
        {"attn_mask": draw(3, 5, 5, seed=9)},
    ],
)
def test_attention_in_the_open_equals_the_fused_one(options: dict[str, Any]) -> None:
    query, key, value = (draw(2, 3, 5, 4, seed=i) for i in range(3))
    expected = functional.scaled_dot_product_attention(query, key, value, **options)
    options = {"mask" if name == "attn_mask" else name: option for name, option in options.items()}
    torch.testing.assert_close(attention_weights(query, key, **options) @ value, expected)


def test_capture_records_fused_and_open_attention() -> None:
    query, key, value = (draw(2, 3, 5, 4, seed=i) for i in range(3))
    with CaptureAttention() as attention:
        functional.scaled_dot_product_attention(query, key, value)
        functional.softmax(query @ key.transpose(-2, -1) / 2, dim=-1)
        torch.softmax(draw(2, 7), dim=-1)  # no attention matrix
    first, second = attention.weights
    torch.testing.assert_close(first, second)
    assert first.is_leaf
    assert first.requires_grad


def test_the_rules_end_with_the_block_that_uses_them() -> None:
    x = leaf(5)
    with pytest.raises(ZeroDivisionError), LocalRules(None, detach_attention=True):
        raise ZeroDivisionError
    assert _len_torch_function_stack() == 0
    (slope,) = torch.autograd.grad(functional.gelu(x).sum(), x)
    torch.testing.assert_close(slope, torch.autograd.functional.jacobian(lambda v: functional.gelu(v).sum(), x))
