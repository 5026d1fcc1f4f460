"""Order and shares: by what they promise over any history, and by lanes in virtual time."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saaa.errors import DeadlineExceeded, LaneFull
from saaa.work import ItemResult, WorkItem
from serving.lanes.fairness import Backlog, FairQueue, Flow, Priority
from serving.lanes.lanes import ANYBODY, Lane
from serving.settings import LaneSettings
from tests.serving.lanes.bench import KEY, Bench, ask, picture, until
from tests.serving.virtual_time import in_virtual_time, run

FEW = settings(max_examples=50, deadline=None)
URGENT, PATIENT = Priority.INTERACTIVE, Priority.BATCH


@dataclass(eq=False)
class Item:
    flow: Flow
    work: float
    key: str = "k"


def queue(ageing: float = 0.1) -> FairQueue[Item]:
    return FairQueue(ageing, lambda item: item.work)


def serve(waiting: FairQueue[Item]) -> Item:
    """One batch of one item."""
    item = waiting.first()
    assert item is not None
    waiting.take(item)
    waiting.depart([item], item.work)
    return item


def item_of(caller: str, priority: Priority = URGENT, work: float = 1.0, key: str = "k") -> Item:
    return Item(Flow(caller, priority), work, key)


ITEMS = st.builds(item_of, st.sampled_from("abc"), st.sampled_from(Priority), st.floats(0.1, 10), st.sampled_from("kl"))
HISTORY = st.lists(st.one_of(ITEMS, st.none()), min_size=1, max_size=80)
"""What arrives, and None where a batch leaves."""


def play(history: Sequence[Item | None], ageing: float = 0.1) -> list[tuple[Item, frozenset[Flow]]]:
    """What left, in order, each with the flows that waited just before; all that came is served in the end."""
    waiting, here, left = queue(ageing), [], []

    def one() -> None:
        flows = frozenset(item.flow for item in here)
        left.append((serve(waiting), flows))
        here.remove(left[-1][0])

    for event in history:
        if event is not None:
            waiting.push(event)
            here.append(event)
        elif here:
            one()
        assert len(waiting) == len(here)
    while here:
        one()
    assert waiting.first() is None
    return left


@FEW
@given(HISTORY)
def test_everything_leaves_once_and_in_order_within_a_flow_and_key(history: list[Item | None]) -> None:
    came = [item for item in history if item is not None]
    left = [item for item, _ in play(history)]
    assert set(map(id, left)) == set(map(id, came))
    assert len(left) == len(came)
    for flow in {item.flow for item in came}:
        for key in "kl":
            chosen = [item for item in came if (item.flow, item.key) == (flow, key)]
            assert [item for item in left if (item.flow, item.key) == (flow, key)] == chosen


@FEW
@given(HISTORY)
def test_callers_who_wait_side_by_side_are_served_alike(history: list[Item | None]) -> None:
    """The bound of start-time fair queueing: never apart by more than one item of each, over any time."""
    left = play(history)
    largest: dict[Flow, float] = defaultdict(float)
    for item, _ in left:
        largest[item.flow] = max(largest[item.flow], item.work)
    for priority in Priority:
        one, other = Flow("a", priority), Flow("b", priority)
        lead = lowest = highest = 0.0
        for item, waited in left:
            if not {one, other} <= waited:
                lead = lowest = highest = 0.0
                continue
            lead += item.work * ((item.flow == one) - (item.flow == other))
            lowest, highest = min(lowest, lead), max(highest, lead)
            assert highest - lowest <= largest[one] + largest[other] + 1e-6


@FEW
@given(HISTORY, st.floats(0.05, 1))
def test_batch_work_gets_its_part_and_no_more_while_interactive_work_waits(
    history: list[Item | None], ageing: float
) -> None:
    left = play(history, ageing)
    largest = max((item.work for item, _ in left if item.flow.priority is PATIENT), default=0.0)
    lead = lowest = highest = 0.0
    for item, waited in left:
        if {flow.priority for flow in waited} != set(Priority):
            lead = lowest = highest = 0.0
            continue
        urgent = item.flow.priority is URGENT
        lead += ageing * item.work if urgent else -item.work
        lowest, highest = min(lowest, lead), max(highest, lead)
        # What it has gained is below its next item's cost before an interactive one leaves, and never negative after
        # one of its own; one interactive item is the grain.
        assert highest - lowest <= 2 * largest + ageing * 10 + 1e-6


def test_batch_work_waits_for_its_turn_and_never_starves() -> None:
    waiting = queue(ageing=0.125)
    for _ in range(3):
        waiting.push(item_of("b", PATIENT))
    order = []
    for _ in range(25):
        waiting.push(item_of("a"))
        order.append(serve(waiting).flow.priority)
    assert [place for place, priority in enumerate(order) if priority is PATIENT] == [8, 17]


@FEW
@given(st.lists(st.sampled_from("abcd"), max_size=40), st.integers(0, 20), st.sampled_from("abcde"))
def test_what_goes_ahead_is_foretold(callers: list[str], served: int, new: str) -> None:
    """Against the naive way to know it: let everything go and count. Of callers who are level either may be first."""
    waiting: FairQueue[Item] = queue()
    backlog: Backlog[str] = Backlog()
    for caller in callers:
        waiting.push(item_of(caller))
        backlog.add(Flow(caller), "k", 1.0)
    for _ in range(min(served, len(callers) - 1)):
        backlog.remove(serve(waiting).flow, "k", 1.0)
    foretold = waiting.ahead(Flow(new), 1.0, backlog.seconds(lambda _key, _count, work: work))
    mine = item_of(new)
    waiting.push(mine)
    ahead = 0
    while serve(waiting) is not mine:
        ahead += 1
    assert ahead <= foretold + 1e-9
    assert foretold <= ahead + len(set(callers))


def test_a_batch_is_filled_from_all_callers_and_paid_for_by_work() -> None:
    waiting = queue()
    for item in [item_of("a", work=2) for _ in range(4)] + [item_of("b", work=2) for _ in range(4)]:
        waiting.push(item)
    leader = waiting.first()
    assert leader is not None
    taken: list[Item] = []
    while len(taken) < 4 and (item := waiting.next_like(leader)) is not None:
        waiting.take(item)
        taken.append(item)
    assert sorted(item.flow.caller for item in taken) == ["a", "a", "b", "b"]
    # Together they took half of what they would have taken alone.
    waiting.depart(taken, 4.0)
    queued = {Flow("a"): 4.0, Flow("b"): 4.0}
    assert waiting.ahead(Flow("a"), 2.0, queued) == pytest.approx(8.0)
    assert waiting.ahead(Flow("c"), 2.0, queued) == pytest.approx(0.0)


@in_virtual_time
async def test_a_flood_holds_up_its_own_caller_only() -> None:
    bench = Bench(0.02)
    lane = Lane(bench.run, LaneSettings(max_batch=1, first_estimate_s=0.02, max_waiting=100))
    clock = asyncio.get_running_loop().time
    flood = [ask(lane, caller="flood") for _ in range(300)]
    await until(lambda: bench.at_once == 1)
    assert sum(isinstance(error, LaneFull) for task in flood if task.done() and (error := task.exception())) == 200
    for _ in range(20):
        start = clock()
        await ask(lane, within=0.1, caller="other")
        assert clock() - start <= 0.0601
        await asyncio.sleep(0.01)
    done = await asyncio.gather(*flood, return_exceptions=True)
    assert sum(isinstance(result, ItemResult) for result in done) == 100


@in_virtual_time
async def test_batch_priority_fills_what_is_left_and_has_its_part_under_overload() -> None:
    bench = Bench(0.02)
    lane = Lane(bench.run, LaneSettings(max_batch=1, first_estimate_s=0.02, max_waiting=10_000, max_wait_s=1000))
    patient = [ask(lane, 1, within=1000, priority=PATIENT) for _ in range(60)]
    clock = asyncio.get_running_loop().time
    await asyncio.sleep(0.5)
    urgent = []
    for _ in range(5):
        start = clock()
        await ask(lane)
        # Behind the one that is being computed, and no other.
        urgent.append(clock() - start)
    assert max(urgent) <= 0.0401
    before = sum(task.done() for task in patient)
    assert before >= 24
    overload = [ask(lane, within=1000) for _ in range(250)]
    await asyncio.sleep(4.4)
    assert sum(task.done() for task in patient) - before == pytest.approx(20, abs=2)
    await asyncio.gather(*patient, *overload)


async def learned(lane: Lane, bench: Bench) -> None:
    """Let the lane see that a batch costs 0.1 s and each item 0.01 s."""
    bench.seconds, bench.per_item = 0.1, 0.01
    await ask(lane)
    await asyncio.gather(*(ask(lane) for _ in range(4)))
    bench.batches.clear()


async def decoded(lane: Lane, seconds: float) -> ItemResult:
    with lane.admit(KEY, asyncio.get_running_loop().time() + 30) as place:
        await asyncio.sleep(seconds)
        return await place.result(picture(1), WorkItem())


@in_virtual_time
async def test_a_batch_waits_for_what_is_being_decoded_no_longer_than_it_is_worth() -> None:
    bench = Bench()
    lane = Lane(bench.run, LaneSettings(max_in_flight=2))
    await learned(lane, bench)
    clock = asyncio.get_running_loop().time
    start = clock()
    await asyncio.gather(*(decoded(lane, seconds) for seconds in (0.0, 0.01, 0.03)))
    assert bench.sizes == [3]
    assert clock() - start == pytest.approx(0.03 + 0.13)
    # One that takes too long to come is not waited for: half of the fixed tenth at most.
    start = clock()
    slow = asyncio.create_task(decoded(lane, 0.5))
    await decoded(lane, 0.0)
    assert clock() - start == pytest.approx(0.05 + 0.11, abs=0.01)
    # One that gives up ends the waiting.
    start = clock()
    await slow
    gone = asyncio.create_task(decoded(lane, 5))
    await asyncio.sleep(0)
    alone = asyncio.create_task(decoded(lane, 0.0))
    await asyncio.sleep(0.01)
    gone.cancel()
    start = clock()
    await alone
    assert clock() - start == pytest.approx(0.11, abs=0.005)
    # And a lone request leaves at once.
    start = clock()
    await decoded(lane, 0.0)
    assert clock() - start == pytest.approx(0.11, abs=0.005)


REQUESTS = st.lists(
    st.tuples(
        st.floats(0, 2),  # comes at
        st.floats(0.05, 3),  # worth something for
        st.floats(0.5, 5),  # work
        st.floats(0, 0.2),  # decoded in
        st.sampled_from("abc"),
        st.sampled_from(Priority),
        st.booleans(),  # leaves early
    ),
    max_size=30,
)


@FEW
@given(REQUESTS, st.integers(1, 4), st.integers(1, 3))
def test_whatever_comes_every_request_ends_in_time_and_nothing_is_left(
    requests: list[tuple[float, float, float, float, str, Priority, bool]], max_batch: int, max_in_flight: int
) -> None:
    async def scenario() -> None:
        bench = Bench(0.02, 0.03)
        lane = Lane(bench.run, LaneSettings(max_batch=max_batch, max_in_flight=max_in_flight, first_estimate_s=0.03))
        clock = asyncio.get_running_loop().time

        async def one(
            at: float, within: float, work: float, decode: float, who: str, how: Priority, leaves: bool
        ) -> None:
            await asyncio.sleep(at)
            deadline = clock() + within
            try:
                async with asyncio.timeout(within / 2 if leaves else None):
                    with lane.admit(KEY, deadline, flow=Flow(who, how), work=work) as place:
                        await asyncio.sleep(min(decode, within))
                        await place.result(picture(3), WorkItem())
            except (LaneFull, DeadlineExceeded, TimeoutError):
                pass
            assert clock() <= deadline + 1e-6

        await asyncio.gather(*(one(*request) for request in requests))
        await until(lambda: not lane.in_flight)
        await asyncio.sleep(0.001)
        assert (lane.waiting, lane.gathered, lane.in_flight) == (0, 0, 0)
        assert bench.most_at_once <= max_in_flight
        assert all(size <= max_batch for size in bench.sizes)
        assert lane.expected_wait(ANYBODY) == 0

    run(scenario())


@FEW
@given(st.lists(st.tuples(st.floats(0, 0.1), st.floats(0.02, 1)), max_size=40))
def test_admitted_work_of_one_caller_is_done_in_time_where_times_are_as_measured(
    requests: list[tuple[float, float]],
) -> None:
    """Nothing is admitted in vain: what is not refused at once is answered before its deadline."""

    async def scenario() -> None:
        bench = Bench(0.05)
        lane = Lane(bench.run, LaneSettings(max_batch=1, first_estimate_s=0.05))
        tasks = []
        await ask(lane)
        for gap, within in requests:
            await asyncio.sleep(gap)
            # An idle lane tries whatever its estimate says; here each is possible by itself.
            tasks.append(ask(lane, within=0.055 + within))
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(result, (ItemResult, LaneFull)) for result in done)
        assert len(bench.batches) == 1 + sum(isinstance(result, ItemResult) for result in done)

    run(scenario())
