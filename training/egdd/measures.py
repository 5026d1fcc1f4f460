"""Figures of a classifier's predictions: accuracy, loss, confusion, calibration, and the images it gets wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 15
"""Bins of the calibration, as Guo et al. (2017) have them."""
TOP = 5


@dataclass(frozen=True)
class Predictions:
    """What a classifier says of n images, in their order."""

    logits: NDArray[np.float32]
    """(n, K)."""
    embeddings: NDArray[np.float32] | None
    """(n, D), the penultimate features, when asked for."""


def measure(logits: NDArray[np.float32], labels: NDArray[np.int64], classes: Sequence[str]) -> dict[str, Any]:
    """Compare predictions with the truth.

    Args:
        logits: (n, K), n at least 1, finite.
        labels: (n,) class indices.
        classes: K names.

    Returns:
        "images"; "accuracy" and "top5" in [0, 1] (with fewer than 5 classes, top5 looks at all of them); "loss", the
        mean cross-entropy in nats; "ece", the expected calibration error in [0, 1], and the "calibration" that it sums
        up (see `calibration`); "classes": per class "images" and "accuracy" (null without images); "confusion": counts,
        rows are the true classes, columns the predicted ones.
    """
    count, known = logits.shape
    chances = log_probabilities(logits)
    predicted = logits.argmax(axis=1)
    confusion = np.zeros((known, known), dtype=np.int64)
    np.add.at(confusion, (labels, predicted), 1)
    right = confusion.diagonal()
    totals = confusion.sum(axis=1)
    best = np.argsort(-logits, axis=1, kind="stable")[:, :TOP]
    bins = calibration(np.exp(chances.max(axis=1)), predicted == labels)
    return {
        "images": count,
        "accuracy": float(right.sum() / count),
        "top5": float((best == labels[:, None]).any(axis=1).mean()),
        "loss": float(-chances[np.arange(count), labels].mean()),
        "ece": sum(b["count"] * abs(b["accuracy"] - b["confidence"]) for b in bins if b["count"]) / count,
        "classes": {
            name: {"images": int(n), "accuracy": float(hits / n) if n else None}
            for name, hits, n in zip(classes, right, totals, strict=True)
        },
        "confusion": confusion.tolist(),
        "calibration": bins,
    }


def calibration(confidence: NDArray[np.float64], correct: NDArray[np.bool_]) -> list[dict[str, Any]]:
    """Sort predictions by confidence into bins of equal width and see how often each bin is right.

    Guo et al., "On Calibration of Modern Neural Networks", 2017, section 2: bin m of M takes the confidences in
    ((m - 1) / M, m / M]. The expected calibration error (equation 3) is the mean over all predictions of the gap
    between accuracy and confidence of their bin.

    Args:
        confidence: (n,), probability of the predicted class, in [0, 1].
        correct: (n,), whether the prediction is right.

    Returns:
        For each of the 15 bins "count", and the means "confidence" and "accuracy", null in an empty bin.
    """
    bins = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    counts = np.bincount(bins, minlength=BINS)
    sums = np.bincount(bins, confidence, BINS)
    hits = np.bincount(bins, correct, BINS)
    return [
        {"count": int(n), "confidence": float(total / n) if n else None, "accuracy": float(right / n) if n else None}
        for n, total, right in zip(counts, sums, hits, strict=True)
    ]


def failures(
    logits: NDArray[np.float32], labels: NDArray[np.int64], files: Sequence[str], classes: Sequence[str]
) -> list[dict[str, Any]]:
    """List the images that were classified wrongly, the most confident mistake first.

    Args:
        logits: (n, K).
        labels: (n,) class indices.
        files: where the n images are found.
        classes: K names.

    Returns:
        For each "file", "label", "predicted" (class names) and "probability" of the predicted class.
    """
    predicted = logits.argmax(axis=1)
    confidence = np.exp(log_probabilities(logits).max(axis=1))
    wrong = np.flatnonzero(predicted != labels)
    order = wrong[np.argsort(-confidence[wrong], kind="stable")]
    return [
        {
            "file": files[i],
            "label": classes[labels[i]],
            "predicted": classes[predicted[i]],
            "probability": round(float(confidence[i]), 4),
        }
        for i in order
    ]


def log_probabilities(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Give the logarithms of the softmax, (n, K), in float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))
