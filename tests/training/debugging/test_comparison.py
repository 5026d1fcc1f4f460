"""Accuracies before and after: groups, intervals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saaa.errors import DataError
from training.debugging.comparison import Change, compare, paired_interval
from training.debugging.examples import choose
from training.debugging.pool import Candidates
from training.egdd.listing import Extent, Listing

CLASSES = ("den", "hall")
LABELS = (0, 0, 0, 0, 1, 1, 1, 1)
NAMES = tuple(f"{CLASSES[label]}/{i}.jpg" for i, label in enumerate(LABELS))
SLICES = {**{NAMES[i]: "aligned" for i in (0, 1, 4)}, **{NAMES[i]: "counter" for i in (2, 3, 5, 6)}, "den/gone": "lost"}
BEFORE, AFTER = (1, 1, 0, 0, 1, 0, 1, 1), (1, 0, 1, 1, 1, 1, 0, 1)
"""Which of the images are right."""


def said(right: tuple[int, ...], names: tuple[str, ...] = NAMES) -> Candidates:
    predicted = [label if good else 1 - label for label, good in zip(LABELS, right, strict=True)]
    listing = Listing(Path(), CLASSES, names, LABELS, tuple(map(Extent, names)))
    return Candidates(listing, np.eye(2, dtype=np.float32)[predicted], np.zeros((len(names), 1), np.float32))


def flags(both: int, gained: int, lost: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    before = np.repeat([True, False, True, False], [both, gained, lost, neither])
    return before, np.repeat([True, True, False, False], [both, gained, lost, neither])


def test_groups_by_hand() -> None:
    found = compare(said(BEFORE), said(AFTER), SLICES)

    def figures(change: Change | None) -> tuple[int, float, float]:
        assert change is not None
        return change.images, change.before, change.after

    assert figures(found.original) == (8, 5 / 8, 6 / 8)
    assert figures(found.failures) == (3, 0, 1)
    assert figures(found.successes) == (5, 1, 3 / 5)
    assert {name: figures(c) for name, c in found.classes.items()} == {
        "den": (4, 1 / 2, 3 / 4),
        "hall": (4, 3 / 4, 3 / 4),
    }
    assert {name: figures(c) for name, c in found.slices.items()} == {
        "aligned": (3, 1, 2 / 3),
        "counter": (4, 1 / 4, 3 / 4),
    }
    assert {name: figures(c) for name, c in found.by_class["counter"].items()} == {
        "den": (2, 0, 1),
        "hall": (2, 0.5, 0.5),
    }
    assert found.gap == (pytest.approx(3 / 4), pytest.approx(2 / 3 - 3 / 4))
    told = found.to_json()
    assert told["confound_gap"] == {"before": 0.75, "after": round(2 / 3 - 3 / 4, 6)}
    assert told["slices"]["counter"]["change"] == 0.5


def test_without_slices_or_failures() -> None:
    found = compare(said((1,) * 8), said(AFTER), {})
    assert found.failures is None
    assert (found.gap, found.slices, found.to_json()["confound_gap"]) == (None, {}, None)


def test_other_images() -> None:
    with pytest.raises(DataError, match="changed"):
        compare(said(BEFORE), said(AFTER, (*NAMES[:-1], "hall/other.jpg")), {})


def test_interval_of_the_paper() -> None:
    """Newcombe's first example: 36, 12, 2, 0 of 50."""
    assert paired_interval(*flags(36, 12, 2, 0)) == (pytest.approx(0.0569, abs=5e-5), pytest.approx(0.3404, abs=5e-5))


def test_interval_without_a_change_is_not_nothing() -> None:
    low, high = paired_interval(*flags(5, 0, 0, 0))
    assert low < -0.3
    assert high == pytest.approx(-low)


@pytest.mark.parametrize("shares", [(0.5, 0.2, 0.1, 0.2), (0.05, 0.1, 0.02, 0.83), (0.8, 0.15, 0.05, 0.0)])
def test_interval_holds_the_truth_as_often_as_it_says(shares: tuple[float, ...]) -> None:
    rng = np.random.default_rng(0)
    truth, drawn = shares[1] - shares[2], rng.multinomial(60, shares, size=1000)
    ends = np.array([paired_interval(*flags(*counts)) for counts in drawn.tolist()])
    assert np.mean((ends[:, 0] <= truth) & (truth <= ends[:, 1])) > 0.93


@given(st.tuples(*[st.integers(0, 40)] * 4).filter(any))
def test_interval_is_around_the_change_and_turns_with_it(counts: tuple[int, int, int, int]) -> None:
    before, after = flags(*counts)
    low, high = paired_interval(before, after)
    assert low <= after.mean() - before.mean() <= high
    assert paired_interval(after, before) == (pytest.approx(-high), pytest.approx(-low))
    assert paired_interval(~before, ~after) == (pytest.approx(-high), pytest.approx(-low))


def test_examples_are_repaired_then_broken_then_wrong_still() -> None:
    assert choose(said(BEFORE), said(AFTER), SLICES, 8) == [2, 5, 3, 6, 1]
    assert choose(said(BEFORE), said(AFTER), SLICES, 3) == [2, 5, 6], "one that is wrong now is shown, too"
    assert choose(said(BEFORE), said(BEFORE), {}, 5) == [2, 5, 3]
    assert choose(said(BEFORE), said(AFTER), {}, 0) == []
