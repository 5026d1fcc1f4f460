"""The lane by itself, in front of a backend function that the test holds in its hand, in virtual time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from saaa.errors import BackendFailed, BackendUnavailable, DeadlineExceeded, LaneFull
from saaa.work import CaptionOptions, ExplainOptions, ItemError, ItemResult, Work, WorkBatch, WorkItem
from serving.lanes.fairness import Flow, Priority
from serving.lanes.lanes import BatchKey, Lane
from serving.settings import LaneSettings
from tests.serving.virtual_time import in_virtual_time

KEY = BatchKey(model="m", version="1", work=Work.PREDICT)


class Bench:
    """A backend function: each batch waits for `gate`, takes its time, and answers the mean of the pixels.

    Times scatter evenly by up to `jitter` as a part of them.
    """

    def __init__(self, seconds: float = 0.0, per_item: float = 0.0, *, jitter: float = 0.0) -> None:
        self.seconds = seconds
        self.per_item = per_item
        self.jitter = jitter
        self.random = random.Random(0)
        self.gate = asyncio.Event()
        self.gate.set()
        self.batches: list[WorkBatch] = []
        self.at_once = 0
        self.most_at_once = 0

    async def run(self, batch: WorkBatch, *, timeout: float) -> list[ItemResult]:
        self.batches.append(batch)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await self.gate.wait()
            factor = 1 + self.jitter * self.random.uniform(-1, 1)
            await asyncio.sleep(factor * (self.seconds + self.per_item * len(batch.items)))
        finally:
            self.at_once -= 1
        return [answer(pixels) for pixels in batch.pixels]

    @property
    def sizes(self) -> list[int]:
        return [len(batch.items) for batch in self.batches]


def answer(pixels: np.ndarray) -> ItemResult:
    if pixels.max() == 255:
        return ItemResult(error=ItemError(reason="INTERNAL", message="white"))
    return ItemResult(probabilities=np.array([pixels.mean()], np.float32))


def picture(value: int) -> np.ndarray:
    return np.full((2, 2, 3), value, np.uint8)


def ask(
    lane: Lane,
    value: int = 0,
    *,
    key: BatchKey = KEY,
    within: float = 30.0,
    work: float = 1.0,
    caller: str = "",
    priority: Priority = Priority.INTERACTIVE,
) -> asyncio.Task[ItemResult]:
    async def answered() -> ItemResult:
        deadline = asyncio.get_running_loop().time() + within
        with lane.admit(key, deadline, flow=Flow(caller, priority), work=work) as place:
            return await place.result(picture(value), WorkItem())

    return asyncio.create_task(answered())


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


def value_of(result: ItemResult) -> float:
    assert result.probabilities is not None
    return float(result.probabilities[0])


@in_virtual_time
async def test_lone_request_goes_at_once() -> None:
    bench = Bench()
    lane = Lane(bench.run, LaneSettings())
    start = asyncio.get_running_loop().time()
    assert value_of(await ask(lane, 7)) == 7
    assert asyncio.get_running_loop().time() - start < 0.05
    assert bench.sizes == [1]


@in_virtual_time
async def test_gathers_while_busy_and_gives_everyone_his_own_answer() -> None:
    bench = Bench()
    bench.gate.clear()
    lane = Lane(bench.run, LaneSettings(max_batch=4, max_batch_s=10))
    first = ask(lane, 100)
    await until(lambda: bench.at_once == 1)
    others = [ask(lane, value) for value in range(6)]
    await asyncio.sleep(0.01)
    assert bench.sizes == [1]
    bench.gate.set()
    assert [value_of(await task) for task in [first, *others]] == [100, 0, 1, 2, 3, 4, 5]
    assert bench.sizes == [1, 4, 2]


@in_virtual_time
async def test_batches_in_flight_are_capped() -> None:
    bench = Bench(0.005)
    lane = Lane(bench.run, LaneSettings(max_batch=1, max_in_flight=3))
    await asyncio.gather(*(ask(lane, value) for value in range(12)))
    assert bench.most_at_once == 3
    assert (lane.waiting, lane.in_flight) == (0, 0)


@in_virtual_time
async def test_only_equal_keys_share_a_batch_and_keys_take_turns() -> None:
    bench = Bench()
    bench.gate.clear()
    lane = Lane(bench.run, LaneSettings(max_batch=2, max_batch_s=10))
    other = BatchKey(model="m", version="1", work=Work.EXPLAIN, explain=ExplainOptions(method="x", steps=3))
    first = ask(lane)
    await until(lambda: bench.at_once == 1)
    tasks = [ask(lane, key=KEY) for _ in range(4)] + [ask(lane, key=other)]
    await asyncio.sleep(0.01)
    bench.gate.set()
    await asyncio.gather(first, *tasks)
    assert [(batch.work, len(batch.items)) for batch in bench.batches] == [
        (Work.PREDICT, 1),
        (Work.PREDICT, 2),
        (Work.EXPLAIN, 1),
        (Work.PREDICT, 2),
    ]
    assert bench.batches[2].explain == other.explain


def test_a_key_changed_is_another_one_also_where_it_was_looked_up_before() -> None:
    key = BatchKey(model="m", version="1", work=Work.EXPLAIN)
    times = {key: 1.0}
    assert times[BatchKey(model="m", version="1", work=Work.EXPLAIN)] == 1.0
    changes: tuple[dict[str, Any], ...] = (
        {"model": "n"},
        {"version": "2"},
        {"work": Work.CAPTION},
        {"explain": ExplainOptions(steps=2)},
        {"caption": CaptionOptions(beam_width=2)},
    )
    assert not any(replace(key, **change) in times for change in changes)


@in_virtual_time
async def test_bad_item_leaves_the_others_alone() -> None:
    bench = Bench()
    lane = Lane(bench.run, LaneSettings())
    good, bad, fine = await asyncio.gather(ask(lane, 1), ask(lane, 255), ask(lane, 3))
    assert bench.sizes == [3]
    assert (value_of(good), value_of(fine)) == (1, 3)
    assert bad.error is not None


@in_virtual_time
async def test_expired_work_is_not_computed() -> None:
    bench = Bench()
    bench.gate.clear()
    lane = Lane(bench.run, LaneSettings(max_batch=1, first_estimate_s=0.001))
    first = ask(lane)
    await until(lambda: bench.at_once == 1)
    late = [ask(lane, within=0.05) for _ in range(5)]
    for task in late:
        with pytest.raises(DeadlineExceeded):
            await task
    bench.gate.set()
    await first
    await asyncio.sleep(0.01)
    assert bench.sizes == [1]


@in_virtual_time
async def test_work_of_callers_who_left_is_not_computed() -> None:
    bench = Bench()
    bench.gate.clear()
    lane = Lane(bench.run, LaneSettings(max_batch=4))
    first = ask(lane)
    await until(lambda: bench.at_once == 1)
    gone, stays = ask(lane, 1), ask(lane, 2)
    await until(lambda: lane.waiting == 2)
    gone.cancel()
    await asyncio.sleep(0.01)
    bench.gate.set()
    await first
    assert value_of(await stays) == 2
    assert bench.sizes == [1, 1]


@in_virtual_time
async def test_place_at_the_backend_is_held_while_it_computes_for_nobody() -> None:
    bench = Bench()
    bench.gate.clear()
    lane = Lane(bench.run, LaneSettings(max_batch=1, max_in_flight=1))
    first = ask(lane)
    await until(lambda: bench.at_once == 1)
    first.cancel()
    second = ask(lane, 5)
    await asyncio.sleep(0.02)
    assert bench.sizes == [1]
    bench.gate.set()
    assert value_of(await second) == 5


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
async def test_long_batches_stay_small() -> None:
    bench = Bench(per_item=0.03)
    lane = Lane(bench.run, LaneSettings(max_batch=8, max_batch_s=0.1, first_estimate_s=0.03))
    await asyncio.gather(*(ask(lane) for _ in range(9)))
    assert max(bench.sizes) <= 3


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
async def test_estimates_are_a_line_in_work_and_bound_batches() -> None:
    bench = Bench()
    lane = Lane(bench.run, LaneSettings(max_batch=8, max_batch_s=0.5))
    for bench.seconds, work in ((0.05, 1), (0.35, 7), (0.15, 3)):
        await ask(lane, work=work)
    assert lane.estimate(KEY, 5) == pytest.approx(0.25, abs=0.05)
    bench.seconds = 0.2
    # Two items of 4 forwards fill half a second; three would pass it.
    await asyncio.gather(*(ask(lane, work=4) for _ in range(4)))
    assert bench.sizes[3:] == [2, 2]


@in_virtual_time
async def test_batch_does_not_grow_past_its_tightest_deadline() -> None:
    bench = Bench(per_item=0.1)
    lane = Lane(bench.run, LaneSettings(max_batch=8, max_batch_s=10, first_estimate_s=0.1))
    first = ask(lane)
    await until(lambda: bench.at_once == 1)
    later = [ask(lane, within=0.45), *(ask(lane, within=60) for _ in range(5))]
    await asyncio.gather(first, *later)
    assert bench.sizes[:2] in ([1, 2], [1, 3])


@in_virtual_time
async def test_passed_deadline_is_told_at_admission() -> None:
    lane = Lane(Bench().run, LaneSettings())
    with pytest.raises(DeadlineExceeded):
        await ask(lane, within=-1)


@pytest.mark.parametrize("failure", [BackendUnavailable("gone"), ValueError("bug")])
@in_virtual_time
async def test_failed_batch_fails_its_items_and_the_lane_goes_on(failure: Exception) -> None:
    bench = Bench()
    run = bench.run
    broken = True

    async def sometimes(batch: WorkBatch, *, timeout: float) -> list[ItemResult]:
        if broken:
            raise failure
        return await run(batch, timeout=timeout)

    lane = Lane(sometimes, LaneSettings())
    for result in await asyncio.gather(ask(lane), ask(lane), return_exceptions=True):
        assert type(result) is type(failure)
    broken = False
    assert value_of(await ask(lane, 4)) == 4


@in_virtual_time
async def test_wrong_number_of_answers_is_a_backend_failure() -> None:
    async def forgetful(batch: WorkBatch, *, timeout: float) -> list[ItemResult]:
        return []

    with pytest.raises(BackendFailed):
        await ask(Lane(forgetful, LaneSettings()))


@in_virtual_time
async def test_silent_backend_is_given_up() -> None:
    bench = Bench()
    bench.gate.clear()
    lane = Lane(bench.run, LaneSettings(batch_timeout_s=0.05))
    with pytest.raises(BackendUnavailable):
        await ask(lane)
    assert lane.in_flight == 0


@in_virtual_time
async def test_a_batch_much_slower_than_its_like_is_given_up_early() -> None:
    bench = Bench(seconds=2.0)
    lane = Lane(bench.run, LaneSettings(batch_timeout_s=1000.0, overdue_s=3.0, overdue_factor=4.0))
    clock = asyncio.get_running_loop().time
    # Nothing is known of the first one, so it gets all the time.
    bench.seconds = 50.0
    await ask(lane, within=2000)
    for _ in range(60):
        bench.seconds = 2.0
        await ask(lane, within=2000)
    bench.seconds = 500.0
    start = clock()
    with pytest.raises(BackendUnavailable, match=r"within 8\.\d* s"):
        await ask(lane, within=2000)
    assert clock() - start == pytest.approx(4.0 * 2.0, rel=0.01)
    quick = Lane(bench.run, LaneSettings(batch_timeout_s=1000.0, overdue_s=3.0, overdue_factor=4.0))
    bench.seconds = 0.01
    await ask(quick)
    bench.seconds, start = 500.0, clock()
    with pytest.raises(BackendUnavailable, match="within 3 s"):
        await ask(quick, within=2000)
    assert clock() - start == pytest.approx(3.0)


@in_virtual_time
async def test_place_that_is_never_used_is_given_back() -> None:
    lane = Lane(Bench().run, LaneSettings())
    with lane.admit(KEY, asyncio.get_running_loop().time() + 1):
        assert lane.waiting == 1
    assert lane.waiting == 0


@in_virtual_time
async def test_close_fails_what_waits() -> None:
    bench = Bench()
    bench.gate.clear()
    lane = Lane(bench.run, LaneSettings(max_batch=1))
    tasks = [ask(lane), ask(lane)]
    await until(lambda: bench.at_once == 1 and lane.waiting == 1)
    await lane.close()
    for task in tasks:
        with pytest.raises(BackendUnavailable):
            await task
    assert bench.at_once == 0
