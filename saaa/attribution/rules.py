"""Local rules that turn gradient x input into layer-wise relevance propagation (LRP).

Relevance of an intermediate x is x * d logit / d x, with the gradient taken as if each layer were linear in its input:
normalisations divide by a constant, activations multiply by a constant, attention weighs by a constant (CP-LRP) or
shares relevance evenly between the two factors of each product (AttnLRP). Where no layer adds a constant (a bias), the
relevance of every layer then sums to the logit.

Ali et al. 2022, XAI for Transformers: Better Explanations through Conservative Propagation, arXiv:2202.07304 (CP-LRP);
Achtibat et al. 2024, AttnLRP, arXiv:2402.05602 (equations 8 to 16); gamma rule: Montavon et al. 2019, Layer-Wise
Relevance Propagation: An Overview, generalised to inputs of either sign as in the appendix of AttnLRP.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from saaa.attribution.attention import SOFTMAX, attention_weights


class LocalRules(TorchFunctionMode):
    """While active on this thread, what a timm transformer calls is differentiated by the rules; values stay the same.

    It works on functions, not on modules: the network has no hook, flag or state to put back.

    Args:
        embedding: the patch embedding's convolution. The graph begins at its output, kept as `tokens`. With None the
            caller sees to where the graph begins.
        detach_attention: CP-LRP: attention weights are constants. Else AttnLRP: gradient through the softmax, and the
            uniform rule on both matrix products.
        gamma: of the gamma rule in linear layers, at least 0; 0 is the epsilon rule.
        joint: weights of the layers that make queries, keys and values at once. Only saves time: under CP-LRP their
            backward is a third, since no gradient comes from queries and keys.
    """

    def __init__(
        self, embedding: nn.Conv2d | None, *, detach_attention: bool, gamma: float = 0.0, joint: Iterable[Tensor] = ()
    ) -> None:
        super().__init__()
        self.embedding = embedding
        self.detach_attention = detach_attention
        self.gamma = gamma
        self.joint = frozenset(map(id, joint)) if detach_attention else frozenset()
        self.tokens: Tensor | None = None
        """(images, channels, rows, columns), the leaf from which relevance is read."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        rule = RULES.get(func)
        if rule is None:
            return func(*args, **(kwargs or {}))
        return rule(self, func, *args, **(kwargs or {}))


def _convolution(mode: LocalRules, func: Any, input: Tensor, weight: Tensor, *rest: Any, **options: Any) -> Tensor:
    made: Tensor = func(input, weight, *rest, **options)
    if mode.embedding is None or weight is not mode.embedding.weight:
        return made
    mode.tokens = made.detach().requires_grad_(True)
    return mode.tokens


def _layer_norm(
    mode: LocalRules,
    func: Any,
    input: Tensor,  # as torch names it, in case it is named; so below
    normalized_shape: Any,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    return _scale_detached(input, list(normalized_shape), weight, bias, eps)


class _ScaleDetached(Function):
    """Layer norm whose standard deviation is a constant: what is left is to subtract the mean and to scale."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, shape: list[int], weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> Tensor:
        made, _, inverse = torch.native_layer_norm(x, shape, weight, bias, eps)
        ctx.save_for_backward(weight, inverse)
        ctx.axes = tuple(range(-len(shape), 0))
        return made

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        weight, inverse = ctx.saved_tensors
        scaled = gradient.clone() if weight is None else gradient * weight
        scaled -= scaled.mean(ctx.axes, keepdim=True)
        return scaled.mul_(inverse), None, None, None, None


_scale_detached: Callable[..., Tensor] = _ScaleDetached.apply


def _rms_norm(
    mode: LocalRules,
    func: Any,
    input: Tensor,
    normalized_shape: Any,
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Tensor:
    axes = tuple(range(-len(normalized_shape), 0))
    with torch.no_grad():
        square = input.square().mean(axes, keepdim=True)
        inverse = (square + (torch.finfo(input.dtype).eps if eps is None else eps)).rsqrt()
    made = input * inverse
    return made if weight is None else made * weight


def _group_norm(
    mode: LocalRules,
    func: Any,
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    groups = input.reshape(input.shape[0], num_groups, -1)
    with torch.no_grad():
        inverse = (groups.var(dim=-1, keepdim=True, correction=0) + eps).rsqrt()
    made = ((groups - groups.mean(dim=-1, keepdim=True)) * inverse).view_as(input)
    channels = (-1, *[1] * (input.ndim - 2))
    made = made if weight is None else made * weight.view(channels)
    return made if bias is None else made + bias.view(channels)


def _activation(gate: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The secant rule for act(x) = x * gate(x): the gate is a constant, and nothing is divided by x."""

    def rule(mode: LocalRules, func: Any, input: Tensor, inplace: bool = False, **options: Any) -> Tensor:
        if not input.requires_grad:
            return cast(Tensor, func(input, **options))
        with torch.no_grad():
            constant = gate(input, **options)
        return input * constant

    return rule


def _gelu_gate(x: Tensor, approximate: str = "none") -> Tensor:
    """Phi(x); written so that only one temporary is made."""
    if approximate == "tanh":
        gate = ((x + 0.044715 * x**3) * math.sqrt(2 / math.pi)).tanh_()
    else:
        gate = torch.mul(x, math.sqrt(0.5)).erf_()
    return torch.add(torch.tensor(0.5, dtype=x.dtype), gate, alpha=0.5, out=gate)


def _hardswish_gate(x: Tensor) -> Tensor:
    return ((x + 3) / 6).clamp_(0, 1)


def _mish_gate(x: Tensor) -> Tensor:
    return functional.softplus(x).tanh_()


def _constant(mode: LocalRules, func: Any, *args: Any, **options: Any) -> Tensor:
    """Gates and inverse deviations that a network computes by hand."""
    with torch.no_grad():
        made: Tensor = func(*args, **options)
    return made


def _softmax(mode: LocalRules, func: Any, *args: Any, **options: Any) -> Tensor:
    made: Tensor = func(*args, **options)
    return made.detach() if mode.detach_attention else made


def _attention(
    mode: LocalRules,
    func: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,  # the network is in evaluation mode: always 0
    is_causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    if mode.detach_attention:
        with torch.no_grad():
            if not value.requires_grad:  # the graph begins further up
                return cast(Tensor, func(query, key, value, attn_mask=attn_mask, is_causal=is_causal, scale=scale))
            weights = attention_weights(query, key, attn_mask, is_causal, scale)
        return weights @ value
    # Half of the relevance goes to the value; the other half, that of the weights, evenly to query and key. A factor
    # that carries none, such as the learned query of attention pooling, leaves its half to the other.
    pair = 0.5 if query.requires_grad and key.requires_grad else 1.0
    sides = 0.5 if value.requires_grad and (query.requires_grad or key.requires_grad) else 1.0
    made: Tensor = func(
        _fade(query, pair * sides),
        _fade(key, pair * sides),
        _fade(value, sides),
        attn_mask=attn_mask,
        is_causal=is_causal,
        scale=scale,
    )
    return made


class _Fade(Function):
    """The same values; the gradient times a constant."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, share: float) -> Tensor:
        ctx.share = share
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return gradient * ctx.share, None


_fade: Callable[..., Tensor] = _Fade.apply


def _product(mode: LocalRules, func: Any, left: Any, right: Any, **options: Any) -> Any:
    """The uniform rule: a product of two things that both carry relevance shares it evenly."""
    if all(isinstance(factor, Tensor) and factor.requires_grad for factor in (left, right)):
        left, right = _fade(left, 0.5), _fade(right, 0.5)
    return func(left, right, **options)


def _linear(mode: LocalRules, func: Any, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    if input.requires_grad and mode.gamma:
        return _gamma_linear(input, weight, bias, mode.gamma)
    if input.requires_grad and id(weight) in mode.joint:
        return _values_only(input, weight, bias)
    made: Tensor = func(input, weight, bias)
    return made


class _ValuesOnly(Function):
    """A linear layer of queries, keys and values, of which only the values receive a gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight)
        return functional.linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        (weight,) = ctx.saved_tensors
        start = len(weight) // 3 * 2
        return gradient[..., start:] @ weight[start:], None, None


_values_only: Callable[..., Tensor] = _ValuesOnly.apply


class _GammaLinear(Function):
    """y = x W^T + b, differentiated as y_mod * (y / y_mod), the ratio a constant.

    y_mod favours by gamma the contributions with the sign of y. Let P be the sum of the positive contributions to y and
    N that of the negative ones: y_mod = y + gamma P where y > 0, y + gamma N where y < 0. Since P + N = y, one half of
    them is computed, forward and backward: three matrix products instead of five.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, gamma: float) -> Tensor:
        up, down = weight.clamp(min=0), weight.clamp(max=0)
        offset = weight.new_zeros(len(weight)) if bias is None else bias
        made = functional.linear(x, weight, bias)
        positive = functional.linear(x.clamp(min=0), up, offset.clamp(min=0)) + functional.linear(x.clamp(max=0), down)
        favoured = torch.where(made > 0, positive, made - positive)
        # Both terms of the divisor have the sign of y; it is 0 only where y is, and there no relevance passes.
        ratio = torch.where(made == 0, 0, made / (made + gamma * favoured))
        ctx.save_for_backward(x > 0, made > 0, ratio, weight)
        ctx.gamma = gamma
        return made

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        x_up, y_up, ratio, weight = ctx.saved_tensors
        passed = gradient * ratio
        plain = passed @ weight
        same = (passed * y_up) @ weight.clamp(min=0) + (passed * ~y_up) @ weight.clamp(max=0)
        return plain + ctx.gamma * torch.where(x_up, same, plain - same), None, None, None


_gamma_linear: Callable[..., Tensor] = _GammaLinear.apply

RULES: dict[Any, Callable[..., Any]] = {
    torch.conv2d: _convolution,
    functional.layer_norm: _layer_norm,
    functional.rms_norm: _rms_norm,
    functional.group_norm: _group_norm,
    functional.gelu: _activation(_gelu_gate),
    functional.silu: _activation(torch.sigmoid),
    functional.hardswish: _activation(_hardswish_gate),
    functional.mish: _activation(_mish_gate),
    functional.scaled_dot_product_attention: _attention,
    functional.linear: _linear,
    **dict.fromkeys((torch.sigmoid, Tensor.sigmoid, torch.rsqrt, Tensor.rsqrt), _constant),
    **dict.fromkeys(SOFTMAX, _softmax),
    **dict.fromkeys(
        (torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm, torch.mul, Tensor.mul, Tensor.__mul__), _product
    ),
}
"""ReLU needs no rule: its gradient is its secant."""
