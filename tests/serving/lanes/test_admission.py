"""Who is let into a lane: what cannot be ready in time is refused, and nothing is computed in vain; in virtual time."""

from __future__ import annotations

import asyncio

import pytest

from saaa.errors import DeadlineExceeded, LaneFull
from saaa.work import ItemResult
from serving.lanes.lanes import Lane
from serving.settings import LaneSettings
from tests.serving.lanes.bench import KEY, Bench, ask, until
from tests.serving.virtual_time import in_virtual_time


@in_virtual_time
async def test_refuses_at_once_what_cannot_be_ready_in_time() -> None:
    bench = Bench(0.1)
    lane = Lane(bench.run, LaneSettings(max_batch=1, first_estimate_s=0.1))
    running = [ask(lane) for _ in range(5)]
    await until(lambda: bench.at_once == 1 and lane.waiting == 4)
    start = asyncio.get_running_loop().time()
    with pytest.raises(LaneFull) as refusal:
        await ask(lane, within=0.3)
    assert asyncio.get_running_loop().time() - start < 0.02
    # Half a second of work lies ahead and its own tenth follows: three tenths too late.
    assert refusal.value.retry_after_s == pytest.approx(0.3, abs=0.06)
    await asyncio.gather(*running)


@in_virtual_time
@pytest.mark.parametrize("jitter", [0.0, 0.3])
async def test_goodput_under_overload_is_near_capacity_and_nothing_is_computed_in_vain(jitter: float) -> None:
    bench = Bench(0.02, jitter=jitter)
    lane = Lane(bench.run, LaneSettings(max_batch=1, first_estimate_s=0.02))
    loop = asyncio.get_running_loop()
    end, outcomes = loop.time() + 4.0, []
    while loop.time() < end:
        outcomes += [ask(lane, within=0.2) for _ in range(5)]
        await asyncio.sleep(0.02)
    done = await asyncio.gather(*outcomes, return_exceptions=True)
    answered = sum(isinstance(result, ItemResult) for result in done)
    refused = sum(isinstance(result, LaneFull) for result in done)
    expired = sum(isinstance(result, DeadlineExceeded) for result in done)
    assert answered + refused + expired == len(done)
    # The capacity is 200; 1000 are asked.
    assert answered >= 195
    assert expired <= 2
    assert len(bench.batches) - answered <= 2


@in_virtual_time
async def test_idle_lane_tries_whatever_its_estimate_says() -> None:
    bench = Bench(0.3)
    lane = Lane(bench.run, LaneSettings(first_estimate_s=0.1))
    await ask(lane)
    assert lane.estimate(KEY) > 0.25
    bench.seconds = 0.0
    for _ in range(20):
        await ask(lane, within=0.2)
    assert lane.estimate(KEY) < 0.1


@in_virtual_time
async def test_wait_is_bounded_without_a_deadline_too() -> None:
    bench = Bench()
    bench.gate.clear()
    lane = Lane(bench.run, LaneSettings(max_batch=1, max_wait_s=1.0, first_estimate_s=0.3))
    running = [ask(lane, within=1e6) for _ in range(4)]
    await until(lambda: bench.at_once == 1 and lane.waiting == 3)
    with pytest.raises(LaneFull):
        await ask(lane, within=1e6)
    bench.gate.set()
    await asyncio.gather(*running)


@in_virtual_time
async def test_number_waiting_is_bounded() -> None:
    bench = Bench()
    bench.gate.clear()
    lane = Lane(bench.run, LaneSettings(max_batch=1, max_waiting=3, first_estimate_s=1e-6))
    running = [ask(lane) for _ in range(1)]
    await until(lambda: bench.at_once == 1)
    running += [ask(lane) for _ in range(3)]
    await until(lambda: lane.waiting == 3)
    with pytest.raises(LaneFull):
        await ask(lane)
    bench.gate.set()
    await asyncio.gather(*running)


@in_virtual_time
async def test_waiting_work_is_counted_not_waiting_items() -> None:
    bench = Bench()
    bench.gate.clear()
    lane = Lane(bench.run, LaneSettings(max_batch=4, first_estimate_s=0.1))
    first = ask(lane, work=0.001)
    await until(lambda: bench.at_once == 1)
    tasks = [ask(lane, work=work) for work in (1, 1, 1, 1, 30)]
    await until(lambda: lane.waiting == 5)
    assert lane.expected_wait() == pytest.approx(3.4, abs=0.3)
    with pytest.raises(LaneFull):
        await ask(lane, work=600, within=40)
    tasks[4].cancel()
    await until(lambda: lane.waiting == 4)
    assert lane.expected_wait() == pytest.approx(0.4, abs=0.3)
    bench.gate.set()
    await asyncio.gather(first, *tasks[:4])
    assert (lane.waiting, lane.gathered) == (0, 0)


@in_virtual_time
async def test_passed_deadline_is_told_at_admission() -> None:
    lane = Lane(Bench().run, LaneSettings())
    with pytest.raises(DeadlineExceeded):
        await ask(lane, within=-1)


@in_virtual_time
async def test_place_that_is_never_used_is_given_back() -> None:
    lane = Lane(Bench().run, LaneSettings())
    with lane.admit(KEY, asyncio.get_running_loop().time() + 1):
        assert lane.waiting == 1
    assert lane.waiting == 0
