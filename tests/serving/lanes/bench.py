"""A lane's work in the test's hand: a backend function, items to ask for, and what came of them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import numpy as np

from saaa.work import ItemError, ItemResult, Work, WorkBatch, WorkItem
from serving.lanes.fairness import Flow, Priority
from serving.lanes.lanes import BatchKey, Lane

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
