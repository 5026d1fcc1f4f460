"""Selectors against hand-solved cases and a naive implementation of their definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from training.debugging.selectors import (
    MEASURES,
    Failures,
    hybrid,
    nearness,
    random_scores,
    take,
    uncertainty,
)

LOGITS = hnp.arrays(np.float32, st.tuples(st.integers(1, 6), st.integers(2, 4)), elements=st.floats(-8, 8, width=32))


def failures(points: list[list[float]], labels: list[int]) -> Failures:
    return Failures(np.array(points, np.float32).reshape(-1, 2), np.array(labels, np.int64))


def test_takes_the_best_of_each_class_ties_in_order() -> None:
    scores = np.array([0.1, 0.9, 0.9, 0.5, 0.5, 0.5])
    labels = np.array([0, 0, 0, 2, 2, 2])
    found = take(scores, labels, {2: "den", 0: "attic"}, 2, seed=0)
    assert found.indices == {2: (3, 4), 0: (1, 2)}
    assert found.told == ()


def test_too_few_candidates_are_all_taken_and_told() -> None:
    found = take(np.array([0.1, 0.9]), np.array([0, 0]), {0: "attic", 1: "bath"}, 3, seed=0)
    assert found.indices == {0: (1, 0), 1: ()}
    assert found.told == ("attic: 2 images, where 3 are wanted", "bath: 0 images, where 3 are wanted")


def test_random_choice_is_seeded_and_fair() -> None:
    labels = np.zeros(20, np.int64)
    picks = [take(random_scores(20, seed), labels, {0: "a"}, 5, seed=seed).indices[0] for seed in range(400)]
    assert picks[3] == take(random_scores(20, 3), labels, {0: "a"}, 5, seed=3).indices[0]
    assert all(len(set(pick)) == 5 for pick in picks)
    counts = np.bincount(np.concatenate(picks), minlength=20)
    assert abs(counts - 100).max() < 45  # 5 standard deviations of a binomial (400, 1/4)


def test_similarity_by_hand() -> None:
    embeddings = np.array([[0, 0], [4, 0], [2, 0.5], [5, 5]], np.float32)
    labels = np.array([0, 0, 0, 1])
    wrong = failures([[0, 0], [4, 0]], [0, 0])
    assert nearness(embeddings, labels, wrong, "centroid")[:3] == pytest.approx([-4, -4, -0.25])
    assert nearness(embeddings, labels, wrong, "nearest")[:3] == pytest.approx([0, 0, -4.25])
    assert math.isnan(nearness(embeddings, labels, wrong, "nearest")[3])


def test_a_class_without_failures_is_chosen_at_random_and_told() -> None:
    labels = np.array([0] * 3 + [1] * 30)
    scores = nearness(np.zeros((33, 2), np.float32), labels, failures([[1, 1]], [0]), "centroid")
    one, two = (take(scores, labels, {0: "attic", 1: "bath"}, 3, seed=seed) for seed in (1, 2))
    assert one.indices[0] == two.indices[0] == (0, 1, 2)
    assert one.indices[1] != two.indices[1]
    assert one.told == ("bath: no image of the failures set is misclassified; chosen at random",)


def naive(logits: list[float], measure: str) -> float:
    weights = [math.exp(value - max(logits)) for value in logits]
    chances = sorted((weight / sum(weights) for weight in weights), reverse=True)
    if measure == "entropy":
        return -sum(p * math.log(p) for p in chances if p > 0)
    return chances[1] - chances[0] if measure == "margin" else 1 - chances[0]


@pytest.mark.parametrize("measure", MEASURES)
@given(logits=LOGITS)
def test_uncertainty_as_defined(measure: str, logits: np.ndarray) -> None:
    expected = [naive([float(v) for v in row], measure) for row in logits]
    assert uncertainty(logits, measure) == pytest.approx(expected, abs=1e-9)  # type: ignore[arg-type]


def test_measures_of_uncertainty_disagree_where_they_should() -> None:
    # Two classes nearly even, against three classes of which one leads a little more.
    logits = np.log(np.array([[0.50, 0.49, 0.01], [0.44, 0.28, 0.28]], np.float32))
    assert uncertainty(logits, "margin").argmax() == 0
    assert uncertainty(logits, "entropy").argmax() == 1
    assert uncertainty(logits, "least_confidence").argmax() == 1


@given(
    logits=hnp.arrays(np.float32, (7, 3), elements=st.floats(-5, 5, width=16)),
    points=hnp.arrays(np.float32, (7, 2), elements=st.floats(-5, 5, width=16)),
    labels=hnp.arrays(np.int64, 7, elements=st.integers(0, 2)),
)
def test_the_published_filter_as_defined(logits: np.ndarray, points: np.ndarray, labels: np.ndarray) -> None:
    wrong = failures([[0, 0], [1, 1], [3, 0]], [0, 0, 1])
    means = {0: (0.5, 0.5), 1: (3.0, 0.0)}
    expected = []
    for i, label in enumerate(labels):
        own = [k for k in range(7) if labels[k] == label]
        columns = [{k: naive([float(v) for v in logits[k]], "entropy") for k in own}]
        if label in means:
            x, y = means[label]
            columns.append({k: (float(points[k][0]) - x) ** 2 + (float(points[k][1]) - y) ** 2 for k in own})
        total = 0.0
        for values in columns:
            low, high = min(values.values()), max(values.values())
            if high - low <= 1e-6 * max(abs(high), abs(low)):
                return  # equal, or too near for this test's own rounding: see below
            total += 0.5 * (values[i] - low) / (high - low)
        expected.append(total)
    assert hybrid(logits, points, labels, wrong) == pytest.approx(expected, abs=1e-6)


def test_the_filter_is_safe_where_all_are_equal() -> None:
    same = hybrid(
        np.zeros((3, 2), np.float32), np.ones((3, 2), np.float32), np.array([0, 0, 1]), failures([[0, 0]], [0])
    )
    assert same.tolist() == [0, 0, 0]
    # Permuted logits have the same entropy but for rounding.
    turned = hybrid(
        np.array([[0.3, 1.7, -2.1], [1.7, -2.1, 0.3]], np.float32),
        np.ones((2, 2), np.float32),
        np.zeros(2, np.int64),
        failures([], []),
    )
    assert turned.tolist() == [0, 0]
    alone = hybrid(np.eye(1, 2, dtype=np.float32), np.ones((1, 2), np.float32), np.array([0]), failures([], []))
    assert alone.tolist() == [0]
