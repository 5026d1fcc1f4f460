"""What training minimises, computed in parts: each thread takes some captions of a batch, and the parts add up.

One thread for each part is faster on a CPU than several threads inside each operation, because the decoder's operations
are many and small.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from saaa.models.captioner import Captioner, word_cost
from training.ega.dataset import Batch
from training.ega.explanation import explanation_cost

SMALLEST_PART = 16
"""Captions; with fewer the matrix products become too small to gain."""


@dataclass(frozen=True, kw_only=True)
class Weights:
    """What the loss is made of; see the options of the same names in `EgaConfig`."""

    smoothing: float = 0.0
    explanation: float = 0.0
    naming: float = 0.0
    feature_dropout: float = 0.0
    dropout: float = 0.0


def split(batch: Batch, parts: int) -> list[Batch]:
    """Deal the captions of a batch out to at most `parts` batches, neither much smaller than `SMALLEST_PART`."""
    count = max(1, min(parts, len(batch) // SMALLEST_PART))
    return [batch.select(torch.arange(k, len(batch), count)) for k in range(count)]


def loss_and_gradients(
    captioner: Captioner,
    naming: nn.Linear,
    batch: Batch,
    weights: Weights,
    *,
    seed: Sequence[int],
    parts: int = 1,
    pool: Executor | None = None,
) -> tuple[float, list[Tensor | None]]:
    """The loss of a batch and its gradients.

    Args:
        captioner: what is trained.
        naming: the head of the side task, from a node's memory to its name.
        batch: the captions.
        weights: of the loss's parts, and how much is dropped.
        seed: of what is dropped; the same for the same step of the same run.
        parts: into how many parts to split; the result depends on it only by rounding and by what is dropped.
        pool: computes the parts, in the order given.

    Returns:
        The loss and a gradient for each parameter of the captioner, then of `naming`; None where it has none.
    """
    parameters = [*captioner.parameters(), *naming.parameters()]
    # Means are over the whole batch, so the denominators are known before it is split.
    words = int(batch.lengths.sum()) - len(batch)
    explained = max(1, int((batch.named[:, 1:].sum(-1) > 0).sum()))
    named = max(1, int((batch.names >= 0).sum()))

    def one(part: Batch, index: int) -> tuple[float, Sequence[Tensor | None]]:
        keep = _keeper([*seed, index])
        regions = batch_regions = part.regions
        if weights.feature_dropout:
            regions = batch_regions * keep(batch_regions, weights.feature_dropout)
        taught = captioner.teach(regions, part.image, part.graphs, part.captions, part.lengths)
        hidden = taught.hidden
        if weights.dropout:
            hidden = hidden * keep(hidden, weights.dropout)
        loss = word_cost(hidden, captioner.decoder.words.weight, taught.targets, weights.smoothing) / words
        if weights.explanation:
            wanted = part.named[taught.rows, taught.steps + 1]
            loss = loss + weights.explanation * explanation_cost(taught.attention, wanted).sum() / explained
        if weights.naming:
            known = part.names >= 0
            told = nn.functional.cross_entropy(naming(taught.memory[known]), part.names[known], reduction="sum")
            loss = loss + weights.naming * told / named
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        return float(loss.detach()), gradients

    pieces = split(batch, parts)
    results = list((map if pool is None else pool.map)(one, pieces, range(len(pieces))))
    total = [_sum([gradients[k] for _, gradients in results]) for k in range(len(parameters))]
    return sum(loss for loss, _ in results), total


def _sum(terms: Sequence[Tensor | None]) -> Tensor | None:
    """The sum in the order given, so that equal runs round alike."""
    total: Tensor | None = None
    for term in terms:
        if term is not None:
            # A copy: two parameters that are only ever added up share one gradient tensor.
            total = term.clone() if total is None else total.add_(term)
    return total


def _keeper(seed: Sequence[int]) -> Callable[[Tensor, float], Tensor]:
    """Dropout masks from a generator of their own: threads would draw from torch's in an order of chance.

    Bytes are drawn, not fractions: several times faster, and rates are exact to 1/256.
    """
    rng = np.random.default_rng(seed)

    def keep(like: Tensor, rate: float) -> Tensor:
        limit = round(rate * 256)
        drawn = np.frombuffer(rng.bytes(like.numel()), np.uint8).reshape(like.shape)
        return torch.from_numpy(drawn >= limit).to(like.device, like.dtype).mul_(256 / (256 - limit))

    return keep
