"""The simulated pod against cases that can be solved by hand, and against an independent recursion."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("simpy")

import simpy

from benchmarks.simulate_clock import SimulatedLoop
from benchmarks.simulate_pod import Asked, Costs, Figures, kinds, simulate_pod
from saaa.work import Work
from serving.settings import FacadeSettings, LaneSettings

ONE_BY_ONE = FacadeSettings(predict=LaneSettings(max_batch=1))


def run(
    seconds: dict[int, float],
    times: list[float],
    *,
    deadline_s: float = 50.0,
    told: FacadeSettings = ONE_BY_ONE,
    **costs: float,
) -> list[Asked]:
    """Predictions only, of exact times, on a pod that knows them."""
    made = Costs(batches={Work.PREDICT: {items: [each] for items, each in seconds.items()}}, **costs)  # type: ignore[arg-type]
    return simulate_pod(made, told, times, [Work.PREDICT] * len(times), deadline_s=deadline_s, warm=3)


def test_a_lone_request_takes_the_sum_of_its_parts() -> None:
    costs = Costs(batches={Work.PREDICT: {1: [0.1]}}, decode=(0.02,), before=0.003, around=0.004, after=0.005)
    (asked,) = simulate_pod(costs, FacadeSettings(), [1.0], [Work.PREDICT], deadline_s=1.0)
    assert asked.outcome == "answered"
    assert asked.at == pytest.approx(1.0)
    assert asked.seconds == pytest.approx(0.132)


def test_one_server_and_one_at_a_time_is_lindleys_recursion() -> None:
    """M/D/1: W' = max(0, W + service - gap), exactly; and on average near Pollaczek and Khinchine's formula."""
    service, load = 0.1, 0.5
    gaps = np.random.default_rng(3).exponential(service / load, 600)
    waits = [0.0]
    for gap in gaps[1:]:
        waits.append(max(0.0, waits[-1] + service - gap))
    asked = run({1: service}, np.cumsum(gaps).tolist())
    found = [each.seconds - service for each in sorted(asked, key=lambda each: each.at)]
    assert found == pytest.approx(waits, abs=1e-6)
    assert np.mean(found) == pytest.approx(load * service / (2 * (1 - load)), rel=0.3)


def test_what_arrives_together_travels_together() -> None:
    told = FacadeSettings(decode_threads=4, predict=LaneSettings(max_batch=4, max_batch_s=10.0))
    asked = run({1: 1.0, 4: 2.0}, [0.0] * 4, told=told)
    assert [each.seconds for each in asked] == pytest.approx([2.0] * 4)


def test_a_busy_lane_gathers_what_comes_meanwhile() -> None:
    told = FacadeSettings(predict=LaneSettings(max_batch=4, max_batch_s=10.0))
    asked = run({1: 1.0, 3: 1.5}, [0.0, 0.2, 0.3, 0.4], told=told)
    assert sorted(each.at + each.seconds for each in asked) == pytest.approx([1.0, 2.5, 2.5, 2.5])


def test_refuses_who_could_not_be_answered_in_time() -> None:
    """One second each, margin 5 %: the second is expected after 2.1 s, the third after 3.15 s; 2.5 s are allowed."""
    asked = run({1: 1.0}, [0.0] * 4, deadline_s=2.5)
    assert sorted(each.outcome for each in asked) == ["answered", "answered", "refused", "refused"]
    assert [each.seconds for each in asked if each.outcome == "refused"] == [0.0, 0.0]


def test_expires_who_was_taken_in_and_came_too_late() -> None:
    """Batches of one suddenly take five times what the lane has learnt."""
    times = Costs(batches={Work.PREDICT: {1: [1.0], 2: [9.0]}})
    told = FacadeSettings(predict=LaneSettings(max_batch=2, max_batch_s=100.0))
    asked = simulate_pod(times, told, [0.0, 0.5, 0.6], [Work.PREDICT] * 3, deadline_s=4.0, warm=3)
    assert [each.outcome for each in sorted(asked, key=lambda each: each.at)] == ["answered", "expired", "expired"]


@settings(max_examples=25, deadline=None)
@given(
    gaps=st.lists(st.floats(0, 0.5), min_size=1, max_size=60),
    service=st.lists(st.floats(0.001, 0.6), min_size=1, max_size=4),
    deadline_s=st.floats(0.05, 3),
    explained=st.floats(0, 1),
    workers=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_every_arrival_has_one_outcome(
    gaps: list[float], service: list[float], deadline_s: float, explained: float, workers: int, seed: int
) -> None:
    times = np.cumsum(gaps).tolist()
    costs = Costs(batches={work: {1: service} for work in (Work.PREDICT, Work.EXPLAIN)}, decode=(0.01, 0.03))
    wanted = kinds(len(times), explained, seed)
    asked = simulate_pod(costs, FacadeSettings(), times, wanted, deadline_s=deadline_s, workers=workers, seed=seed)
    assert sorted(each.at for each in asked) == pytest.approx(times)
    assert {each.outcome for each in asked} <= {"answered", "refused", "expired"}
    assert sum(each.work is Work.EXPLAIN for each in asked) == wanted.count(Work.EXPLAIN)
    assert all(each.seconds <= deadline_s + 1e-9 for each in asked if each.outcome == "answered")
    again = simulate_pod(costs, FacadeSettings(), times, wanted, deadline_s=deadline_s, workers=workers, seed=seed)
    assert asked == again


def test_times_between_measured_sizes_lie_on_a_line_and_draws_scale() -> None:
    costs = Costs(batches={Work.PREDICT: {1: [1.0], 3: [2.0]}})
    assert [costs.mean(Work.PREDICT, items) for items in (1, 2, 3, 6)] == pytest.approx([1.0, 1.5, 2.0, 4.0])
    assert costs.seconds(Work.PREDICT, 6, np.random.default_rng(0)) == pytest.approx(4.0)
    full = FacadeSettings(predict=LaneSettings(max_batch=3))
    assert costs.capacity({Work.PREDICT: 1.0}, full) == pytest.approx(1.5)


def test_figures() -> None:
    rows = [Asked(at=0, work=Work.PREDICT, outcome="answered", seconds=s) for s in (1.0, 2.0, 3.0)]
    rows.append(Asked(at=0, work=Work.PREDICT, outcome="refused", seconds=0.0))
    assert Figures.of(rows, 2.0) == Figures(throughput=1.5, shed=0.25, p50=2.0, p95=pytest.approx(2.9))


def test_coroutines_and_processes_share_one_clock() -> None:
    env = simpy.Environment()
    loop, told = SimulatedLoop(env), list[tuple[float, str]]()

    async def coroutine() -> None:
        await asyncio.sleep(1)
        told.append((loop.time(), "slept"))
        try:
            async with asyncio.timeout(2):
                await asyncio.sleep(60)
        except TimeoutError:
            told.append((loop.time(), "timed out"))
        await loop.happens(process)
        told.append((loop.time(), "process seen"))

    def work():  # type: ignore[no-untyped-def]
        yield env.timeout(5)
        told.append((env.now, "process"))

    process = env.process(work())
    loop.create_task(coroutine())
    loop.run()
    assert told == [(1, "slept"), (3, "timed out"), (5, "process"), (5, "process seen")]


def test_a_failed_callback_ends_the_simulation() -> None:
    loop = SimulatedLoop(simpy.Environment())
    loop.call_later(1, lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        loop.run()
