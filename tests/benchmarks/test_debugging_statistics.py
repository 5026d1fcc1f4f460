"""Intervals and Holm's correction, against values from tables and against each other."""

from __future__ import annotations

import pytest

from benchmarks.debugging_statistics import figure, holm, interval

VALUES = [1.0, 2.0, 3.0, 4.0, 5.0]
"""Mean 3, standard error sqrt(2.5 / 5)."""
ERROR = 0.5**0.5


def test_interval_is_students() -> None:
    """The 97.5 % and 99 % points of t with four degrees of freedom, from a table: 2.776 and 3.747."""
    assert interval(VALUES) == pytest.approx((3 - 2.776 * ERROR, 3 + 2.776 * ERROR), abs=1e-3)
    assert interval(VALUES, 0.98) == pytest.approx((3 - 3.747 * ERROR, 3 + 3.747 * ERROR), abs=1e-3)
    assert interval([2.0, 2.0, 2.0]) == (2.0, 2.0)


def test_figure_of_one_value_has_no_interval() -> None:
    found = figure([0.5])
    assert found["mean"] == 0.5
    assert all(end != end for end in found["interval"])


def test_holm_steps_down() -> None:
    """Three comparisons: the clearest one counts three times, the next twice, the last once; none below the one
    before it."""
    clear, close, none = VALUES, [x - 1.5 for x in VALUES], [x - 3.0 for x in VALUES]
    found = holm({"none": none, "clear": clear, "close": close})
    assert list(found) == ["none", "clear", "close"]
    alone = {name: holm({name: values})[name]["p"] for name, values in (("a", clear), ("b", close), ("c", none))}
    assert found["clear"]["p"] == pytest.approx(3 * alone["a"])
    assert found["close"]["p"] == pytest.approx(2 * alone["b"])
    assert found["none"]["p"] == pytest.approx(1.0)
    # The widest interval is that of the smallest p value.
    assert found["clear"]["interval"] == pytest.approx(list(interval(clear, 1 - 0.05 / 3)))
    assert found["close"]["interval"] == pytest.approx(list(interval(close, 1 - 0.05 / 2)))
    assert found["none"]["interval"] == pytest.approx(list(interval(none)))
    assert found["clear"]["difference"] == 3.0


def test_holm_never_lets_a_weaker_one_pass_before_a_stronger_one() -> None:
    same = dict.fromkeys("abc", VALUES)
    assert len({found["p"] for found in holm(same).values()}) == 1


@pytest.mark.parametrize(("values", "p"), [([0.0, 0.0], 1.0), ([0.1, 0.1], 0.0)])
def test_equal_differences_are_certain(values: list[float], p: float) -> None:
    assert holm({"a": values})["a"]["p"] == p
