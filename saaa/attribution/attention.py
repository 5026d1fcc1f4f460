"""The attention matrices of a transformer, without touching the transformer.

Fused attention never makes the matrix. These function modes are active on the calling thread for one forward, and
compute attention in the open; the network's own flags stay as they are.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

SOFTMAX = frozenset({functional.softmax, torch.softmax, Tensor.softmax})


def attention_weights(
    query: Tensor, key: Tensor, mask: Tensor | None = None, is_causal: bool = False, scale: float | None = None
) -> Tensor:
    """Give softmax(query key^T scale + mask), (..., queries, keys), as scaled_dot_product_attention defines it.

    Args:
        query: (..., queries, d).
        key: (..., keys, d).
        mask: bool (false = ignored) or to be added, of a shape that broadcasts to the result.
        is_causal: whether a query ignores later keys.
        scale: None for d^-1/2.
    """
    scores = (query * (query.shape[-1] ** -0.5 if scale is None else scale)) @ key.transpose(-2, -1)
    if is_causal:
        mask = scores.new_ones(scores.shape[-2:], dtype=torch.bool).tril()
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    return scores.softmax(dim=-1)


class CaptureAttention(TorchFunctionMode):
    """Record every attention matrix of a forward, so that gradients with respect to it can be taken.

    Where nothing before the attention needs a gradient, the matrix is a leaf and the graph begins with it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.weights: list[Tensor] = []
        """In order of the forward, each (images, heads, queries, keys)."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is functional.scaled_dot_product_attention:
            return self._attend(*args, **kwargs)
        result = func(*args, **kwargs)
        return self._keep(result) if func in SOFTMAX and result.ndim == 4 else result

    def _attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,  # the network is in evaluation mode: always 0
        is_causal: bool = False,
        scale: float | None = None,
    ) -> Tensor:
        return self._keep(attention_weights(query, key, attn_mask, is_causal, scale)) @ value

    def _keep(self, weights: Tensor) -> Tensor:
        if not weights.requires_grad:
            weights.requires_grad_(True)
        self.weights.append(weights)
        return weights
