"""Figures of predictions: by hand, and against naive loops."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from training.egdd.measures import BINS, calibration, failures, measure


def logits_of(rows: list[list[float]]) -> NDArray[np.float32]:
    return np.log(np.array(rows, np.float32))


def test_by_hand() -> None:
    logits = logits_of([[0.7, 0.2, 0.1], [0.5, 0.4, 0.1], [0.1, 0.1, 0.8], [0.2, 0.5, 0.3]])
    found = measure(logits, np.array([0, 1, 2, 2]), ("a", "b", "c"))
    assert found["images"] == 4
    assert found["accuracy"] == 0.5
    assert found["loss"] == pytest.approx(-np.log([0.7, 0.4, 0.8, 0.3]).mean(), rel=1e-5)
    assert found["confusion"] == [[1, 0, 0], [1, 0, 0], [0, 1, 1]]
    assert found["classes"] == {
        "a": {"images": 1, "accuracy": 1.0},
        "b": {"images": 1, "accuracy": 0.0},
        "c": {"images": 2, "accuracy": 0.5},
    }
    # Confidences 0.7 and 0.8 are right, 0.5 twice is wrong: (0.3 + 0.2 + 2 * 0.5) / 4, each pair of bins apart.
    assert found["ece"] == pytest.approx((0.3 + 0.2 + 2 * 0.5) / 4, rel=1e-5)


def test_class_without_images_and_large_logits() -> None:
    found = measure(np.array([[1e4, 0.0], [1e4, -1e4]], np.float32), np.array([0, 0]), ("a", "b"))
    assert found["classes"]["b"] == {"images": 0, "accuracy": None}
    assert found["loss"] == 0.0
    assert found["ece"] == 0.0


@pytest.mark.parametrize(("known", "expected"), [(2, 1.0), (5, 1.0), (7, 2 / 3)])
def test_top5_with_any_number_of_classes(known: int, expected: float) -> None:
    logits = np.tile(np.arange(known, 0, -1, dtype=np.float32), (3, 1))
    labels = np.array([0, min(4, known - 1), min(5, known - 1)])
    assert measure(logits, labels, tuple("abcdefg"[:known]))["top5"] == pytest.approx(expected)


@st.composite
def predictions(draw: st.DrawFn) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    n, known = draw(st.integers(1, 30)), draw(st.integers(2, 9))
    logits = draw(arrays(np.float32, (n, known), elements=st.floats(-9, 9, width=32)))
    return logits, draw(arrays(np.int64, n, elements=st.integers(0, known - 1)))


@given(predictions())
def test_against_loops(case: tuple[NDArray[np.float32], NDArray[np.int64]]) -> None:
    logits, labels = case
    known = logits.shape[1]
    found = measure(logits, labels, tuple(str(k) for k in range(known)))
    losses, hits, top5 = [], [], []
    bins: list[list[tuple[float, bool]]] = [[] for _ in range(BINS)]
    for row, label in zip(logits.astype(float).tolist(), labels.tolist(), strict=True):
        chances = [math.exp(v) / sum(math.exp(w) for w in row) for v in row]
        losses.append(-math.log(chances[label]))
        order = sorted(range(known), key=lambda k: -row[k])
        hits.append(order[0] == label)
        top5.append(label in order[:5])
        confidence = chances[order[0]]
        bins[next((m for m in range(BINS) if confidence <= (m + 1) / BINS), BINS - 1)].append((confidence, hits[-1]))
    gaps = [
        abs(sum(h for _, h in b) / len(b) - sum(c for c, _ in b) / len(b)) * len(b) / len(labels) for b in bins if b
    ]
    assert found["loss"] == pytest.approx(sum(losses) / len(losses), abs=1e-5)
    assert found["accuracy"] == pytest.approx(sum(hits) / len(hits))
    assert found["top5"] == pytest.approx(sum(top5) / len(top5))
    assert sum(b["count"] for b in found["calibration"]) == len(labels)
    assert np.sum(found["confusion"]) == len(labels)
    # A confidence on the edge of two bins may fall on either side by rounding: the figure then differs.
    if [b["count"] for b in found["calibration"]] == [len(b) for b in bins]:
        assert found["ece"] == pytest.approx(sum(gaps), abs=1e-6)


def test_bins_are_closed_above() -> None:
    found = calibration(np.array([0.0, 1 / 15, 0.07, 3 / 15, 1.0]), np.array([True, False, True, True, True]))
    assert [b["count"] for b in found] == [2, 1, 1, *[0] * 11, 1]
    assert found[0] == {"count": 2, "confidence": pytest.approx(1 / 30), "accuracy": 0.5}
    assert found[5] == {"count": 0, "confidence": None, "accuracy": None}


def test_calibrated_predictions_have_no_error() -> None:
    rng = np.random.default_rng(0)
    chances = rng.dirichlet(np.ones(4), 20_000)
    labels = (rng.random(20_000)[:, None] > chances.cumsum(axis=1)).sum(axis=1)
    logits = np.log(chances).astype(np.float32)
    assert measure(logits, labels, "abcd")["ece"] < 0.02
    assert measure(3 * logits, labels, "abcd")["ece"] > 0.15


def test_failures_worst_first() -> None:
    logits = logits_of([[0.4, 0.6, 1e-9], [0.1, 0.8, 0.1], [0.9, 0.05, 0.05]])
    found: list[dict[str, Any]] = failures(logits, np.array([0, 1, 2]), ("x", "y", "z"), ("blue", "green", "red"))
    assert found == [
        {"file": "z", "label": "red", "predicted": "blue", "probability": 0.9},
        {"file": "x", "label": "blue", "predicted": "green", "probability": 0.6},
    ]
