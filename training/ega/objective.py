"""What training minimises, computed in parts: each thread takes some captions of a batch, and the parts add up.

One thread for each part is faster on a CPU than several threads inside each operation, because the decoder's operations
are many and small.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from contextlib import nullcontext
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from saaa.models.captioner import Captioner, word_cost
from training.ega.batches import Batch
from training.ega.config import EgaConfig
from training.ega.explanation import ExplanationLoss, explanation_cost
from training.precision import Precision

SMALLEST_PART = 16
"""Captions; with fewer the matrix products become too small to gain."""


@dataclass(frozen=True, kw_only=True)
class Weights:
    """What the loss is made of; see the options of the same names in `EgaConfig`."""

    smoothing: float = 0.0
    explanation: float = 0.0
    distance: ExplanationLoss = "cross_entropy"
    """How far the attention is from the nodes that a word names."""
    naming: float = 0.0
    feature_dropout: float = 0.0
    dropout: float = 0.0
    sampling: float = 0.0
    """Probability that a word the decoder is given is its own."""

    @classmethod
    def at(cls, config: EgaConfig, epochs: float) -> Weights:
        """What holds after so many epochs; only `sampling` changes with them."""
        rise = config.scheduled_sampling_epochs
        return cls(
            smoothing=config.smoothing,
            explanation=config.explanation_weight,
            distance=config.explanation_loss,
            naming=config.naming_weight,
            feature_dropout=config.feature_dropout,
            dropout=config.dropout,
            sampling=config.scheduled_sampling * (min(1.0, epochs / rise) if rise else 1.0),
        )


class Totals(NamedTuple):
    """What the parts of the loss are divided by; those of several batches add up to those of the batches together."""

    words: float
    """Tokens to predict."""
    explained: float
    """Weights of the words that name a node, summed."""
    named: float
    """Nodes whose name is to be told."""


def count_totals(batch: Batch, weights: Weights) -> Totals:
    """The denominators of a batch; 0 for what is not part of the loss."""
    return Totals(
        words=float(batch.lengths.sum()) - len(batch),
        explained=float(batch.named[:, 1:].sum()) if weights.explanation else 0.0,
        named=float((batch.names >= 0).sum()) if weights.naming else 0.0,
    )


def split(batch: Batch, parts: int) -> list[Batch]:
    """Deal the captions of a batch out to at most `parts` batches, neither much smaller than `SMALLEST_PART`."""
    count = max(1, min(parts, len(batch) // SMALLEST_PART))
    return [batch.select(torch.arange(k, len(batch), count)) for k in range(count)]


def loss_and_gradients(
    captioner: Captioner,
    naming: nn.Linear,
    batch: Batch,
    weights: Weights,
    totals: Totals,
    *,
    seed: Sequence[int],
    parts: int = 1,
    pool: Executor | None = None,
    precision: Precision | None = None,
) -> tuple[float, list[Tensor | None]]:
    """The loss of a batch and its gradients.

    Args:
        captioner: what is trained.
        naming: the head of the side task, from a node's memory to its name.
        batch: the captions.
        weights: of the loss's parts, and how much is dropped.
        totals: what the parts of the loss are divided by: `count_totals` of this batch, or of all that are computed
            elsewhere at the same time, whose losses and gradients then are to be added to these.
        seed: of what is dropped and drawn; the same for the same step of the same run.
        parts: into how many parts to split; the result depends on it only by rounding and by what is dropped.
        pool: computes the parts, in the order given.
        precision: of the forward; default: that of the parameters. The gradients are scaled as its scaler asks, the
            loss is not.

    Returns:
        The loss and a gradient for each parameter of the captioner, then of `naming`; None where it has none.
    """
    parameters = [*captioner.parameters(), *naming.parameters()]
    # Here, not in the threads: the first call is what sets the scaler up.
    scale = None if precision is None else precision.scaler.scale(torch.ones((), device=batch.regions.device))

    def one(part: Batch, index: int) -> tuple[float, Sequence[Tensor | None]]:
        rng = np.random.default_rng([*seed, index])
        with nullcontext() if precision is None else precision.autocast():
            loss = _loss(captioner, naming, part, weights, totals, rng)
        gradients = torch.autograd.grad(loss if scale is None else loss * scale, parameters, allow_unused=True)
        return float(loss.detach()), gradients

    pieces = split(batch, parts)
    results = list((map if pool is None else pool.map)(one, pieces, range(len(pieces))))
    total = [_sum([gradients[k] for _, gradients in results]) for k in range(len(parameters))]
    return sum(loss for loss, _ in results), total


def _loss(
    captioner: Captioner,
    naming: nn.Linear,
    part: Batch,
    weights: Weights,
    totals: Totals,
    rng: np.random.Generator,
) -> Tensor:
    """The part's share of the loss; what is dropped and drawn comes from `rng`, because threads would draw from
    torch's generator in an order of chance."""
    regions = part.regions
    if weights.feature_dropout:
        regions = regions * _keep(regions, weights.feature_dropout, rng)
    quantiles = None
    if weights.sampling:
        # One draw says both whether (below the probability) and which word (how far below it).
        drawn = rng.random(part.captions.shape) / weights.sampling
        quantiles = torch.from_numpy(drawn).to(regions.device)
    taught = captioner.teach(regions, part.image, part.graphs, part.captions, part.lengths, quantiles)
    hidden = taught.hidden
    if weights.dropout:
        hidden = hidden * _keep(hidden, weights.dropout, rng)
    loss = word_cost(hidden, captioner.decoder.words.weight, taught.targets, weights.smoothing) / totals.words
    # A total of 0 says that there is nothing to add.
    if weights.explanation and totals.explained:
        wanted = part.named[taught.rows, taught.steps + 1]
        apart = explanation_cost(taught.attention, wanted, weights.distance).sum()
        loss = loss + weights.explanation * apart / totals.explained
    if weights.naming and totals.named:
        known = part.names >= 0
        told = nn.functional.cross_entropy(naming(taught.memory[known]), part.names[known], reduction="sum")
        loss = loss + weights.naming * told / totals.named
    return loss


def _sum(terms: Sequence[Tensor | None]) -> Tensor | None:
    """The sum in the order given, so that equal runs round alike."""
    total: Tensor | None = None
    for term in terms:
        if term is not None:
            # A copy: two parameters that are only ever added up share one gradient tensor.
            total = term.clone() if total is None else total.add_(term)
    return total


def _keep(like: Tensor, rate: float, rng: np.random.Generator) -> Tensor:
    """A dropout mask: 0 with probability `rate`, else what keeps the mean.

    Bytes are drawn, not fractions: several times faster, and rates are exact to 1/256.
    """
    limit = round(rate * 256)
    drawn = np.frombuffer(rng.bytes(like.numel()), np.uint8).reshape(like.shape)
    return torch.from_numpy(drawn >= limit).to(like.device, like.dtype).mul_(256 / (256 - limit))
