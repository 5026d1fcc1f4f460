"""The lane by itself, in front of a backend function that the test holds in its hand, in virtual time."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from saaa.errors import BackendFailed, BackendUnavailable, DeadlineExceeded
from saaa.work import CaptionOptions, ExplainOptions, ItemResult, Work, WorkBatch
from serving.lanes.lanes import BatchKey, Lane
from serving.settings import LaneSettings
from tests.serving.lanes.bench import KEY, Bench, ask, until, value_of
from tests.serving.virtual_time import in_virtual_time


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
async def test_long_batches_stay_small() -> None:
    bench = Bench(per_item=0.03)
    lane = Lane(bench.run, LaneSettings(max_batch=8, max_batch_s=0.1, first_estimate_s=0.03))
    await asyncio.gather(*(ask(lane) for _ in range(9)))
    assert max(bench.sizes) <= 3


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
