"""Five times as much as can be done, in front of a backend whose times scatter: promises are kept, and it is busy."""

from __future__ import annotations

import asyncio
import math
import random
from dataclasses import dataclass

import pytest

from saaa.errors import DeadlineExceeded, LaneFull
from saaa.work import ItemResult, WorkBatch
from serving.lanes.fairness import Priority
from serving.lanes.lanes import Lane
from serving.settings import LaneSettings
from tests.serving.lanes.bench import answer, ask
from tests.serving.virtual_time import in_virtual_time

CALLERS, WARM_S, OVERLOAD_S = 16, 16.0, 60.0


@dataclass(frozen=True)
class Case:
    """A backend and what is asked of it."""

    fixed: float
    """Seconds of a batch besides its items."""
    per_item: float
    """Seconds."""
    spread: float
    """Of the logarithm of the times of batches, which are normally distributed."""
    together: float = 0.0
    """Correlation of one batch's time with that of the next: a machine is slow for a while."""
    within: float = 2.0
    """Seconds of each deadline."""
    max_batch: int = 8
    max_in_flight: int = 2


CASES = (
    Case(0.01, 0.07, 0.0),
    Case(0.01, 0.07, 0.3),
    Case(0.01, 0.07, 0.2, together=0.8),
    Case(0.1, 0.02, 0.2),
    Case(0.01, 0.07, 0.2, within=0.6),
    Case(0.0, 0.02, 0.2, within=0.2, max_batch=1, max_in_flight=1),
)


class Scattering:
    """A backend whose times are those of a case."""

    def __init__(self, case: Case) -> None:
        self._case = case
        self._random = random.Random(1)
        self._state = 0.0

    async def run(self, batch: WorkBatch, *, timeout: float) -> list[ItemResult]:
        case = self._case
        new = self._random.gauss(0, (1 - case.together**2) ** 0.5)
        self._state = case.together * self._state + new
        factor = math.exp(case.spread * self._state)
        await asyncio.sleep(factor * (case.fixed + case.per_item * len(batch.items)))
        return [answer(pixels) for pixels in batch.pixels]


def make(case: Case) -> Lane:
    settings = LaneSettings(max_batch=case.max_batch, max_in_flight=case.max_in_flight, first_estimate_s=0.1)
    return Lane(Scattering(case).run, settings)


async def capacity(lane: Lane) -> float:
    """Answers a second to callers who wait for each before they ask again."""
    loop = asyncio.get_running_loop()
    start, answered = loop.time(), 0

    async def caller() -> None:
        nonlocal answered
        while loop.time() < start + WARM_S:
            await ask(lane, within=60)
            answered += 1

    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return answered / (loop.time() - start)


async def flood(lane: Lane, rate: float, within: float) -> tuple[int, int, int]:
    """So many a second: how many were answered, late, refused."""
    loop, arrivals = asyncio.get_running_loop(), random.Random(0)
    end, asked = loop.time() + OVERLOAD_S, []
    while loop.time() < end:
        asked.append(ask(lane, within=within))
        await asyncio.sleep(arrivals.expovariate(rate))
    ends = await asyncio.gather(*asked, return_exceptions=True)
    found = tuple(sum(isinstance(each, kind) for each in ends) for kind in (ItemResult, DeadlineExceeded, LaneFull))
    assert sum(found) == len(ends)
    return found[0], found[1], found[2]


@in_virtual_time
@pytest.mark.parametrize("case", CASES, ids=str)
async def test_one_of_a_hundred_that_were_taken_in_is_late_at_most(case: Case) -> None:
    lane = make(case)
    able = await capacity(lane)
    answered, late, refused = await flood(lane, 5 * able, case.within)
    assert late <= 0.01 * (answered + late)
    assert answered >= 0.95 * able * OVERLOAD_S
    assert refused > answered


@in_virtual_time
async def test_what_is_overtaken_costs_others_no_margin() -> None:
    """Patient work waits longer than was expected of it; that is no reason to refuse anybody else."""
    case = Case(0.0, 0.1, 0.0, max_batch=1, max_in_flight=1)
    lane = make(case)
    for _ in range(3):
        await ask(lane)
    patient = [ask(lane, within=600, priority=Priority.BATCH, caller="patient") for _ in range(5)]
    for _ in range(100):
        asked = [ask(lane, within=1.0) for _ in range(4)]
        await asyncio.gather(*asked)
    await asyncio.gather(*patient)
    asked = [ask(lane, within=1.0) for _ in range(9)]
    answered = [each for each in await asyncio.gather(*asked, return_exceptions=True) if isinstance(each, ItemResult)]
    assert len(answered) >= 8
