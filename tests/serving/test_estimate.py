import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.estimate import ServiceTime


def test_recovers_fixed_and_per_item_time() -> None:
    times = ServiceTime()
    for items in (1, 4, 2, 8):
        times.add(items, 0.1 + 0.02 * items)
    assert times.estimate(1) == pytest.approx(0.12)
    assert times.estimate(6) == pytest.approx(0.22)


def test_one_size_only_errs_on_the_long_side() -> None:
    times = ServiceTime()
    times.add(4, 0.4)
    assert times.estimate(8) == pytest.approx(0.8)
    assert times.estimate(1) == pytest.approx(0.4)


def test_follows_a_change_of_speed() -> None:
    times = ServiceTime()
    for _ in range(10):
        times.add(1, 5.0)
    for _ in range(20):
        times.add(1, 0.1)
    assert times.estimate(1) < 0.2


@given(st.lists(st.tuples(st.integers(1, 16), st.floats(0, 100)), min_size=1, max_size=30))
def test_more_items_never_take_less_and_never_negative_time(batches: list[tuple[int, float]]) -> None:
    times = ServiceTime()
    for items, seconds in batches:
        times.add(items, seconds)
    estimates = [times.estimate(items) for items in range(1, 20)]
    assert all(later >= sooner - 1e-9 for sooner, later in itertools.pairwise(estimates))
    assert estimates[0] >= -1e-9
