"""Agreement and bias, solved by hand."""

from __future__ import annotations

import pytest

from saaa.annotations import Content, Rating, Unit
from training.annotation.agreement import agreement


def rated(who: str | None, unit: int, rating: float) -> Rating:
    return Rating(
        id="x",
        unit=Unit(image="i", position=unit),
        stated=None,
        content=Content(),
        typed="",
        rating=rating,
        annotator=who,
    )


def test_alpha_by_hand() -> None:
    """Two annotators, three units: (1, 1), (5, 5), (1, 5).

    Within units the mean squared difference of pairs is (0 + 0 + 16) / 3; among all values 1 1 5 5 1 5 it is
    16 * (2 * 3 * 3) / (6 * 5); so alpha = 1 - (16 / 3) / 9.6 = 4 / 9.
    """
    found = agreement([rated(w, u, r) for w, u, r in (
        ("a", 1, 1), ("b", 1, 1), ("a", 2, 5), ("b", 2, 5), ("a", 3, 1), ("b", 3, 5), ("a", 4, 3), (None, 4, 1),
    )])  # fmt: skip
    assert found["alpha"] == pytest.approx(4 / 9, abs=1e-6)
    assert found["units"] == 3
    assert found["annotators"] == {
        "a": {"ratings": 4, "shared": 3, "bias": round(-4 / 3, 6)},
        "b": {"ratings": 3, "shared": 3, "bias": round(4 / 3, 6)},
    }


def test_repeated_ratings_of_one_annotator_are_averaged() -> None:
    once = [rated("a", 1, 3), rated("b", 1, 2), rated("a", 2, 5), rated("b", 2, 5)]
    twice = [rated("a", 1, 2), rated("a", 1, 4), *once[1:]]
    assert agreement(twice)["alpha"] == agreement(once)["alpha"]


def test_where_there_is_none() -> None:
    assert "two known" in agreement([rated("a", 1, 3), rated("a", 1, 4), rated(None, 1, 1)])["reason"]
    alone = agreement([rated("a", 1, 3), rated("b", 2, 4)])
    assert (alone["alpha"], alone["units"], alone["annotators"]["a"]["bias"]) == (None, 0, None)
    assert "equal" in agreement([rated("a", 1, 3), rated("b", 1, 3)])["reason"]
    assert agreement([])["annotators"] == {}
