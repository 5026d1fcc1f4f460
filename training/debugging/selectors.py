"""Choosing images: every selector gives each candidate a score, and the highest of each class are taken.

Sources: the strategies as the AACA repository defines them; for the distance to the nearest failure Singla et al.,
Data-Centric Debugging (arXiv 2211.09859).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from training.egdd.measures import log_probabilities

Scores = NDArray[np.float64]
"""(n,), higher is better; NaN where a selector has nothing to go by."""
Similarity = Literal["centroid", "nearest"]
Uncertainty = Literal["entropy", "margin", "least_confidence"]
MEASURES: tuple[Uncertainty, ...] = ("entropy", "margin", "least_confidence")


@dataclass(frozen=True)
class Failures:
    """The images of a failures set that a model gets wrong."""

    embeddings: NDArray[np.float32]
    """(f, d)."""
    labels: NDArray[np.int64]
    """(f,), the true classes."""

    def of(self, label: int) -> NDArray[np.float64]:
        """Those of one class, (f_c, d)."""
        return np.asarray(self.embeddings[self.labels == label], dtype=np.float64)


@dataclass(frozen=True)
class Selection:
    """What was chosen."""

    indices: Mapping[int, tuple[int, ...]]
    """Of each label asked for the chosen candidates, best first."""
    told: tuple[str, ...] = ()
    """What a person should know of it."""


def take(scores: Scores, labels: NDArray[np.int64], wanted: Mapping[int, str], budget: int, *, seed: int) -> Selection:
    """Take the candidates with the highest scores of each class, all of them where there are fewer.

    Args:
        scores: (n,); of a class without scores (NaN) candidates are taken at random. Equal ones in the order of the
            candidates, which is that of their names.
        labels: (n,).
        wanted: labels to take from, and their names.
        budget: candidates a class.
        seed: of the random choice.
    """
    spare = random_scores(len(labels), seed)
    indices, told = {}, []
    for label, name in wanted.items():
        members = np.flatnonzero(labels == label)
        own = scores[members]
        if np.isnan(own).any():
            told.append(f"{name}: no image of the failures set is misclassified; chosen at random")
            own = spare[members]
        best = members[np.argsort(-own, kind="stable")][:budget]
        if len(best) < budget:
            told.append(f"{name}: {len(best)} images, where {budget} are wanted")
        indices[label] = tuple(int(i) for i in best)
    return Selection(indices, tuple(told))


def random_scores(count: int, seed: int) -> Scores:
    """S-Random."""
    return np.asarray(np.random.default_rng(seed).random(count))


def uncertainty(logits: NDArray[np.float32], measure: Uncertainty) -> Scores:
    """S-Active-Learning: how unsure the model is.

    Args:
        logits: (n, K).
        measure: the entropy in nats; `margin`, minus the difference of the two highest probabilities; or
            `least_confidence`, one minus the highest.
    """
    logs = log_probabilities(logits)
    chances = np.exp(logs)
    if measure == "entropy":
        return np.asarray(-(chances * logs).sum(axis=1))
    if measure == "least_confidence":
        return np.asarray(1 - chances.max(axis=1))
    second, first = np.partition(chances, -2, axis=1)[:, -2:].T
    return np.asarray(second - first)


def nearness(
    embeddings: NDArray[np.float32], labels: NDArray[np.int64], failures: Failures, mode: Similarity
) -> Scores:
    """S-Similarity: minus the squared distance to the misclassified images of the same class.

    Args:
        embeddings: (n, d).
        labels: (n,).
        failures: of the same model.
        mode: `centroid`, to their mean (as published); `nearest`, to the nearest of them.

    Returns:
        Scores; NaN for classes without failures.
    """
    scores = np.full(len(labels), np.nan)
    for label in np.unique(labels):
        wrong, members = failures.of(label), labels == label
        if len(wrong):
            targets = wrong.mean(axis=0, keepdims=True) if mode == "centroid" else wrong
            scores[members] = -_squared_distances(embeddings[members].astype(np.float64), targets).min(axis=1)
    return scores


def hybrid(
    logits: NDArray[np.float32],
    embeddings: NDArray[np.float32],
    labels: NDArray[np.int64],
    failures: Failures,
    weights: Sequence[float] = (0.5, 0.5),
) -> Scores:
    """The published filter: weighted sum of the entropy and of the squared distance to the failures' mean.

    Both are scaled to 0..1 within each class; where all are equal they count 0. Of a class without failures only the
    entropy counts. Note that the distance counts the other way round than in `nearness`: far is good.

    Args:
        logits, embeddings, labels: (n, K), (n, d), (n,).
        failures: of the same model.
        weights: of entropy and distance.
    """
    parts = uncertainty(logits, "entropy"), -nearness(embeddings, labels, failures, "centroid")
    scores = np.zeros(len(labels))
    for label in np.unique(labels):
        members = labels == label
        for weight, part in zip(weights, parts, strict=True):
            scores[members] += weight * _scaled(part[members])
    return scores


def _scaled(values: Scores) -> Scores:
    """To 0..1; zeros where all are equal or unknown."""
    low, high = values.min(), values.max()
    # What differs by rounding only is equal; it must not be blown up to 0..1.
    differ = high - low > 1e-9 * max(abs(low), abs(high))
    return (values - low) / (high - low) if differ else np.zeros_like(values)


def _squared_distances(points: NDArray[np.float64], targets: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, d), (m, d) -> (n, m); by differences, so that equal points are 0 apart."""
    return np.stack([((points - target) ** 2).sum(axis=1) for target in targets], axis=1)
