"""Cross-entropy of words without keeping their scores: of long captions and large vocabularies these are most of what a
training step holds in memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

CHUNK = 512
"""Tokens whose scores are held at once."""


def word_cost(hidden: Tensor, words: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
    """As `cross_entropy(hidden @ words.T, targets, reduction="sum", label_smoothing=smoothing)`, part by part.

    Gradients are computed with the scores, so that no score outlives its part; there are no second derivatives.

    Args:
        hidden: (tokens, width).
        words: (vocabulary, width).
        targets: int64 (tokens,).
        smoothing: label smoothing, 0 to 1.

    Returns:
        A scalar, in float32 or better.
    """
    cost: Tensor = _WordCost.apply(hidden, words, targets, smoothing)
    return cost


class _WordCost(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, words: Tensor, targets: Tensor, smoothing: float) -> Tensor:
        wanted = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        by_hidden, by_words = (torch.zeros_like(x) if wanted else x for x in (hidden, words))
        total = hidden.new_zeros((), dtype=torch.promote_types(hidden.dtype, torch.float32))
        for first in range(0, len(hidden), CHUNK):
            part = slice(first, first + CHUNK)
            scores = nn.functional.linear(hidden[part], words)
            chances = torch.log_softmax(scores.to(total.dtype), dim=1)
            picked = targets[part, None]
            total -= (1 - smoothing) * chances.gather(1, picked).sum()
            if smoothing:
                total -= smoothing * chances.mean(1).sum()
            if wanted:
                gradient = chances.exp_()
                if smoothing:
                    gradient -= smoothing / words.shape[0]
                gradient.scatter_add_(1, picked, gradient.new_full(picked.shape, smoothing - 1))
                gradient = gradient.to(scores.dtype)
                by_hidden[part] = gradient @ words.to(scores.dtype)
                by_words += gradient.t() @ hidden[part].to(scores.dtype)
        ctx.save_for_backward(by_hidden, by_words)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, weight: Tensor) -> tuple[Tensor, Tensor, None, None]:
        by_hidden, by_words = ctx.saved_tensors
        return by_hidden * weight.to(by_hidden.dtype), by_words * weight.to(by_words.dtype), None, None
