"""Callers who never rest, and the answers that they must get."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import grpc
import numpy as np

from saaa.client import AsyncClient, RpcFailed
from saaa.images import encode_png
from saaa.v1.feedback_pb2_grpc import FeedbackServiceStub
from saaa.work import Work, WorkBatch, WorkItem
from serving.backends.local import LocalBackend
from tests.faults.service import PATIENT_S
from tests.serving.contract.test_feedback import request as rating
from tests.tiny_models import CLASSES, EGDD_NAME, VERSION, make_pixels

PICTURES = make_pixels(6)
IMAGES = [encode_png(pixels) for pixels in PICTURES]
LATE_S = 15.0
"""A call that has not ended so long after its deadline hangs; this machine may be busy with other things."""
DOCUMENTED = frozenset({"UNAVAILABLE", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"})
"""What a service that is hurt may say instead of an answer; README and contract name them."""


async def right_answers(models: Path) -> np.ndarray:
    """What the classifier of that folder says of `IMAGES`: (images, classes), computed here."""
    batch = WorkBatch(
        model=EGDD_NAME,
        version=VERSION,
        work=Work.PREDICT,
        pixels=PICTURES,
        items=(WorkItem(),) * len(PICTURES),
    )
    async with LocalBackend(models) as backend:
        results = await backend.run(batch, timeout=PATIENT_S)
    return np.stack([result.probabilities for result in results if result.probabilities is not None])


class Load:
    """Analyse images and keep ratings, as fast as answers come; whatever comes is checked and counted.

    Args:
        address: of the service.
        right: `right_answers`.
        deadline_s: of each call.
        rate: also keep ratings.
    """

    def __init__(self, address: str, right: np.ndarray, *, deadline_s: float = 20.0, rate: bool = False) -> None:
        self.answered = 0
        self.said: Counter[str] = Counter()
        self.acknowledged: list[str] = []
        self._client = AsyncClient(address, timeout=deadline_s)
        self._channel = grpc.aio.insecure_channel(address)
        self._deadline_s = deadline_s
        self._right = right
        self._rate = rate
        self._numbers = itertools.count()
        self._wrong: list[object] = []

    async def answers(self, count: int = 20) -> None:
        """Wait for so many more right answers."""
        await self.until(lambda before=self.answered: self.answered >= before + count)

    async def until(self, true: Callable[[], bool]) -> None:
        """Wait, while the load goes on."""
        async with asyncio.timeout(PATIENT_S):
            while not true():
                assert not self._wrong, self._wrong
                await asyncio.sleep(0.05)

    async def analyze(self, number: int) -> None:
        """One call; raises `RpcFailed`."""
        which = number % len(IMAGES)
        analysis = await self._client.analyze(IMAGES[which], outputs=["predictions"], top_k=len(CLASSES))
        scores = np.zeros(len(CLASSES))
        for prediction in analysis.predictions:
            scores[CLASSES.index(prediction.label)] = prediction.probability
        np.testing.assert_allclose(scores, self._right[which], atol=1e-4)
        self.answered += 1

    async def _keep(self, number: int) -> None:
        name = f"rating {id(self)} {number}"
        await FeedbackServiceStub(self._channel).RecordRating(rating(name), timeout=self._deadline_s)
        self.acknowledged.append(name)

    async def _caller(self, work: Callable[[int], Awaitable[None]]) -> None:
        while True:
            started = time.monotonic()
            try:
                # Not wait_for, which can lose a cancellation that comes together with the answer (Python 3.11).
                async with asyncio.timeout(self._deadline_s + LATE_S):
                    await work(next(self._numbers))
            except RpcFailed as failure:
                self.said[failure.code.name] += 1
            except grpc.aio.AioRpcError as failure:
                self.said[failure.code().name] += 1
            except TimeoutError:
                self._wrong.append(f"no end after {time.monotonic() - started:.1f} s")
            except AssertionError as error:
                self._wrong.append(error)
            else:
                continue
            await asyncio.sleep(0.05)

    @contextlib.asynccontextmanager
    async def going_on(self, callers: int = 4) -> AsyncIterator[Load]:
        """Run it meanwhile; afterwards, that there was no wrong answer, no hang and no status but `DOCUMENTED`."""
        tasks = [asyncio.create_task(self._caller(self.analyze)) for _ in range(callers)]
        if self._rate:
            tasks.append(asyncio.create_task(self._caller(self._keep)))
        try:
            yield self
        finally:
            for task in tasks:
                task.cancel()
            failures = await asyncio.gather(*tasks, return_exceptions=True)
            await self._client.close()
            await self._channel.close()
        assert all(isinstance(failure, asyncio.CancelledError) for failure in failures), failures
        assert not self._wrong, self._wrong
        assert self.said.keys() <= DOCUMENTED, self.said
