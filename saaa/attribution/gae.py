"""Generic attention explainability (GAE): how relevance spreads over tokens through all attention matrices."""

from __future__ import annotations

import torch
from torch import Tensor

from saaa.attribution.attention import CaptureAttention
from saaa.attribution.base import Explained, Job, target_gradients
from saaa.attribution.layers import Transformer, find_transformer
from saaa.models.classifier import Classifier

POOLINGS = ("token", "avg", "map")
"""Those that say which tokens are pooled, and by how much."""


class Gae:
    """Map on the patch grid, at least 0, in the form of a row.

    With Ahat = mean over heads of relu(A * d logit / d A), the method adds R <- R + Ahat R from R = 1, first block to
    last, and reads the pooled row of R. Only that row is computed, from the last block to the first:
    r <- r + r Ahat, beginning with the pooling's distribution over the tokens. It is the class token alone; 1 / n over
    the tokens of mean pooling; or the Ahat of an attention pooling.
    """

    name = "gae"
    reference = "Chefer et al. 2021, Generic Attention-Model Explainability, arXiv:2103.15679"

    def supports(self, classifier: Classifier) -> bool:
        """Plain vision transformers of timm that pool by class token, mean or attention."""
        parts = find_transformer(classifier.net)
        return parts is not None and parts.pooling in POOLINGS

    def cost(self, classifier: Classifier) -> float:
        """One forward with a graph and one backward, as measured."""
        return 2.6

    def run(self, job: Job) -> Explained:
        """One forward, and one backward a target (shared by the images)."""
        parts = find_transformer(job.classifier.net)
        assert parts is not None, "the registry asks `supports` first"
        with CaptureAttention() as attention:
            logits = job.classifier(job.inputs)
        weights = attention.weights

        def spread(*gradients: Tensor) -> Tensor:
            steps = [(w.detach() * g).relu_().mean(dim=1) for w, g in zip(weights, gradients, strict=True)]
            row = _pooled(parts, steps)
            for step in reversed(steps[: len(parts.blocks)]):
                row = torch.baddbmm(row, row, step)
            return parts.as_maps(row[:, 0])

        targets = job.choose(logits.detach())
        return Explained(
            logits=logits.detach(), targets=targets, maps=target_gradients(logits, targets, weights, spread)
        )


def _pooled(parts: Transformer, steps: list[Tensor]) -> Tensor:
    """How much of each token is pooled, (images, 1, tokens)."""
    tokens = steps[0].shape[-1]
    row = steps[0].new_zeros(len(steps[0]), 1, tokens)
    start = 0 if parts.pools_prefix else parts.prefix_tokens
    if parts.pooling == "token":
        row[..., 0] = 1
    elif parts.pooling == "avg":
        row[..., start:] = 1 / (tokens - start)
    else:
        row[..., start:] = steps[-1]
    return row
