"""Batches at the backend: how many at once, how long they take, and what becomes of their items."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import math
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from saaa.errors import BackendFailed, BackendUnavailable, DeadlineExceeded, SaaaError
from saaa.work import ItemResult, WorkBatch, join_pixels
from serving.lanes.estimate import ServiceTime
from serving.lanes.fairness import Priority
from serving.lanes.margin import Margin
from serving.lanes.places import Job
from serving.observer import Flight, Observer, Seat
from serving.settings import LaneSettings

if TYPE_CHECKING:
    from serving.lanes.lanes import BatchKey

log = logging.getLogger(__name__)


class RunBatch(Protocol):
    """Runs a batch: `Backend.run`."""

    async def __call__(self, batch: WorkBatch, *, timeout: float) -> list[ItemResult]:
        """See `Backend.run`."""


@dataclass(eq=False)
class _Slot:
    """What one batch at the backend takes of the lane."""

    started: float
    estimate: float
    timeout: float

    def remaining(self, now: float) -> float:
        """Seconds until it returns. One that is overdue by x is expected to take x more."""
        return abs(self.estimate - (now - self.started))


class Flights:
    """The batches of one lane at the backend.

    Args:
        run: runs one batch at the backend.
        settings: bounds of the lane.
        observer: told what happens here.
        landed: called when a batch is back.
    """

    def __init__(self, run: RunBatch, settings: LaneSettings, observer: Observer, landed: Callable[[], None]) -> None:
        self._run = run
        self._settings = settings
        self._observer = observer
        self._landed = landed
        self._slots: set[_Slot] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._times: dict[BatchKey, ServiceTime] = {}
        self.margins = {priority: Margin() for priority in Priority}
        """On what is expected of an item: its wait, and its batch at the backend. Work of each priority has its own, as
        one overtakes the other."""

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def full(self) -> bool:
        """Whether no other batch may leave now."""
        return len(self._slots) >= self._settings.max_in_flight

    def estimate(self, key: BatchKey, work: float) -> float:
        """Seconds that a batch of so many forward passes is expected to take at the backend."""
        times = self._times.get(key)
        return times.estimate(work) if times else self._settings.first_estimate_s * work

    def fixed(self, key: BatchKey) -> float:
        """The part of a batch's seconds that does not depend on its work; 0 as long as that is not known."""
        times = self._times.get(key)
        return times.fixed if times else 0.0

    def remaining(self, ahead: float = 0.0) -> float:
        """Seconds until a batch may leave behind so many seconds of others' work, which is dealt out to the places at
        the backend as they become free."""
        now = asyncio.get_running_loop().time()
        unused = self._settings.max_in_flight - len(self._slots)
        frees = [0.0] * unused + sorted(slot.remaining(now) for slot in self._slots)
        at = frees[0]
        for places, next_free in enumerate([*frees[1:], math.inf], start=1):
            room = places * (next_free - at)
            if room >= ahead:
                break
            ahead -= room
            at = next_free
        return at + ahead / places

    def launch(self, jobs: Sequence[Job]) -> float:
        """Send a batch; gives the seconds that it is expected to take."""
        seconds = self.estimate(jobs[0].key, sum(job.work for job in jobs))
        slot = _Slot(asyncio.get_running_loop().time(), seconds, self._patience(jobs[0].key, seconds))
        self._slots.add(slot)
        # In a context of its own: what it does is not done for the one call that happened to wake the lane.
        task = asyncio.create_task(self._fly(slot, jobs), context=contextvars.Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return seconds

    def _patience(self, key: BatchKey, estimate: float) -> float:
        """Seconds after which a batch expected to take `estimate` seconds is given up."""
        settings = self._settings
        if key not in self._times:
            return settings.batch_timeout_s
        return min(settings.batch_timeout_s, max(settings.overdue_s, settings.overdue_factor * estimate))

    async def close(self) -> None:
        """Let the batches at the backend go."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _fly(self, slot: _Slot, jobs: Sequence[Job]) -> None:
        key = jobs[0].key
        batch = WorkBatch(
            model=key.model,
            version=key.version,
            work=key.work,
            pixels=join_pixels([job.pixels for job in jobs]),
            items=tuple(job.item for job in jobs),
            explain=key.explain,
            caption=key.caption,
        )
        flight = Flight(
            id=uuid.uuid4().hex,
            batch=batch,
            waits=tuple(slot.started - job.since for job in jobs),
            contexts=tuple(job.context for job in jobs),
        )
        for index, job in enumerate(jobs):
            job.place.seat = Seat(flight=flight.id, index=index)
        clock = asyncio.get_running_loop().time
        try:
            results = await self._computed(flight, slot.timeout)
            self._learn(slot, jobs, clock())
            for job, result in zip(jobs, results, strict=True):
                if job.future.done():
                    self._observer.lost(key, "late")
                else:
                    job.future.set_result(result)
        except (TimeoutError, DeadlineExceeded):
            error = BackendUnavailable(f"The backend did not answer within {slot.timeout:g} s.")
            for job in jobs:
                job.fail(error)
        except asyncio.CancelledError:
            for job in jobs:
                job.fail(BackendUnavailable("The service is stopping; ask another one."))
            raise
        except Exception as error:
            if not isinstance(error, SaaaError):
                log.exception("a batch of %d for %s/%s failed", len(jobs), key.model, key.work.value)
            for job in jobs:
                job.fail(error)
        finally:
            self._slots.discard(slot)
            self._landed()

    def _learn(self, slot: _Slot, jobs: Sequence[Job], now: float) -> None:
        """What this batch says of the next ones."""
        key = jobs[0].key
        if key in self._times and slot.estimate > 0:
            # Its items share their fate; the one that was hit worst is the one to allow for.
            worst = max(jobs, key=lambda job: (now - job.begun) / (job.place.expected + slot.estimate))
            self.margins[worst.flow.priority].add(worst.place.expected + slot.estimate, now - worst.begun)
        self._times.setdefault(key, ServiceTime()).add(sum(job.work for job in jobs), now - slot.started)

    async def _computed(self, flight: Flight, timeout: float) -> list[ItemResult]:
        """The backend's results, one an item; the observer learns when it left and came back."""
        clock = asyncio.get_running_loop().time
        start, count = clock(), len(flight.batch.items)
        outcome: list[ItemResult] | BaseException = []
        self._observer.departed(flight)
        try:
            # Not cut short when the callers leave: the backend computes to the end all the same, and a place counted
            # as free while it does would only pile up work behind it.
            async with asyncio.timeout(timeout):
                outcome = results = await self._run(flight.batch, timeout=timeout)
            if len(results) != count:
                raise BackendFailed(f"The backend gave {len(results)} answers to {count} questions.")
            return results
        except BaseException as error:
            outcome = error
            raise
        finally:
            self._observer.landed(flight, outcome, clock() - start)
