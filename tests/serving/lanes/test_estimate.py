import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.lanes.estimate import ServiceTime


def test_recovers_fixed_and_proportional_time() -> None:
    times = ServiceTime()
    for work in (1, 4.5, 2, 800):
        times.add(work, 0.1 + 0.02 * work)
    assert times.estimate(1) == pytest.approx(0.12)
    assert times.estimate(6.5) == pytest.approx(0.23)


def test_one_amount_only_errs_on_the_long_side() -> None:
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


@given(st.lists(st.tuples(st.floats(0.5, 1200), st.floats(0, 100)), min_size=1, max_size=30))
def test_more_work_never_takes_less_and_never_negative_time(batches: list[tuple[float, float]]) -> None:
    times = ServiceTime()
    for work, seconds in batches:
        times.add(work, seconds)
    estimates = [times.estimate(work) for work in range(1, 20)]
    assert all(later >= sooner - 1e-9 for sooner, later in itertools.pairwise(estimates))
    assert estimates[0] >= -1e-9


def test_tells_what_does_not_depend_on_the_work_once_it_can() -> None:
    times = ServiceTime()
    assert times.fixed == 0
    times.add(1, 0.12)
    times.add(1, 0.12)
    assert times.fixed == 0
    times.add(4, 0.18)
    assert times.fixed == pytest.approx(0.1)
