import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.lanes.margin import Margin


def test_a_little_is_kept_free_where_nothing_was_measured() -> None:
    margin = Margin()
    assert margin.factor == 1.05
    margin.add(0.0, 3.0)
    assert margin.factor == 1.05


def test_the_worst_of_the_last_counts_until_it_is_forgotten() -> None:
    margin = Margin()
    margin.add(2.0, 4.0)
    for _ in range(198):
        margin.add(2.0, 2.4)
    assert margin.factor == pytest.approx(2.0 * 1.05)
    margin.add(2.0, 1.0)
    assert margin.factor == pytest.approx(1.2 * 1.05)


def test_work_goes_on_after_an_accident() -> None:
    margin = Margin()
    margin.add(0.1, 1000)
    assert margin.factor == 3.0


@settings(max_examples=30)
@given(st.integers(0, 2**32), st.floats(0.01, 0.35))
def test_one_promise_of_a_hundred_is_broken_at_most_however_times_scatter(seed: int, spread: float) -> None:
    draw = random.Random(seed)
    margin, broken, promises = Margin(), 0, 4000
    for _ in range(promises):
        took = draw.lognormvariate(0.0, spread)
        broken += took > margin.factor
        margin.add(1.0, took)
    # The first ones, of which little is known, included.
    assert broken <= 0.01 * promises


@given(st.lists(st.tuples(st.floats(0.001, 100), st.floats(0, 100)), max_size=300))
def test_the_factor_is_bounded(measured: list[tuple[float, float]]) -> None:
    margin = Margin()
    for expected, actual in measured:
        margin.add(expected, actual)
        assert 1.05 <= margin.factor <= 3.0
