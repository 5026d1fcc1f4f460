"""Planted hard instances: what is planted, and how a ranking is judged."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.debugging_difficulty import DILUTED, MEAN, RELATION_AWARE, auc, compare, rate, score

SCENE: dict[str, Any] = {
    "id": "7",
    "objects": [
        {"object_id": 1, "name": "pot", "attributes": ["red"]},
        {"object_id": 2, "name": "stove", "attributes": []},
        {"object_id": 3, "name": "chair", "attributes": ["blue"]},
        {"object_id": 4, "name": "chair", "attributes": ["white"]},
    ],
    "relationships": [
        {"subject_id": 1, "object_id": 2, "name": "on"},
        {"subject_id": 3, "object_id": 2, "name": "next to"},
    ],
}
EXACT = {"noise": 0.0, "low": [1.0, 2.0], "high": [4.0, 5.0]}


@given(st.integers(0, 50))
def test_a_hard_scene_has_one_object_whose_units_are_low(seed: int) -> None:
    ratings = rate(SCENE, True, EXACT, Random(seed))
    low = {str(r.content) for r in ratings if r.rating <= 2}
    assert low in ({"pot", "(pot, red)", "(pot, on, stove)"}, {"stove", "(pot, on, stove)", "(chair, next to, stove)"})
    assert all(r.rating >= 4 for r in ratings if str(r.content) not in low)
    assert len(ratings) == 4 + 3 + 2


def test_an_easy_scene_is_rated_high_and_noise_is_anybodys_guess() -> None:
    assert all(r.rating >= 4 for r in rate(SCENE, False, EXACT, Random(0)))
    guessed = [r.rating for seed in range(100) for r in rate(SCENE, False, {**EXACT, "noise": 1.0}, Random(seed))]
    assert (min(guessed), max(guessed)) == pytest.approx((1, 5), abs=0.1)


def test_all_scorers_call_the_hard_scene_harder() -> None:
    easy = rate({**SCENE, "id": "easy"}, False, EXACT, Random(0))
    hard = rate({**SCENE, "id": "hard"}, True, EXACT, Random(1))
    for found in score([*easy, *hard]).values():
        assert found["hard"] > found["easy"]


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=2))
def test_auc_is_the_share_of_pairs_in_order(rows: list[tuple[int, bool]]) -> None:
    scores, positive = (np.array(column) for column in zip(*rows, strict=True))
    if positive.all() or not positive.any():
        return
    pairs = [(p > n) + (p == n) / 2 for p in scores[positive] for n in scores[~positive]]
    assert auc(scores.astype(float), positive) == pytest.approx(np.mean(pairs))


def test_a_better_ranking_has_an_interval_above_the_means() -> None:
    rng = np.random.default_rng(0)
    hard = np.arange(100) < 50
    sharp, blurred = hard + rng.normal(0, 0.3, 100), hard + rng.normal(0, 2.0, 100)
    found = compare({RELATION_AWARE: sharp, DILUTED: blurred, MEAN: blurred}, hard, seed=0)
    assert found[f"{RELATION_AWARE}_above_mean"]["interval"][0] > 0
    assert found[f"{DILUTED}_above_mean"] == {"difference": 0.0, "interval": [0.0, 0.0]}
    assert found[RELATION_AWARE] == auc(sharp, hard)
