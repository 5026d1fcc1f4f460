"""Lanes: where work waits, is refused, is gathered into batches and is given up.

One lane for each kind of work. A lane is bounded by estimated time, not by count: a request is admitted only when the
lane's own measurements say that it can be answered before its deadline, and refused at once otherwise. Batches form by
themselves: a free lane takes what there is (a lone request does not wait), a busy one gathers what arrives meanwhile.
Work that nobody waits for any more is dropped before it is computed.

Everything here runs on one event loop; no locks are needed.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import math
import uuid
from collections import defaultdict, deque
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from saaa.errors import BackendFailed, BackendUnavailable, DeadlineExceeded, LaneFull, SaaaError
from saaa.work import CaptionOptions, ExplainOptions, ItemResult, Work, WorkBatch, WorkItem
from serving.estimate import ServiceTime
from serving.observer import Flight, Observer, Seat
from serving.settings import LaneSettings

log = logging.getLogger(__name__)


class RunBatch(Protocol):
    """Runs a batch: `Backend.run`."""

    async def __call__(self, batch: WorkBatch, *, timeout: float) -> list[ItemResult]:
        """See `Backend.run`."""


@dataclass(frozen=True, kw_only=True)
class BatchKey:
    """What items must share to travel in one batch."""

    model: str
    version: str
    work: Work
    explain: ExplainOptions = field(default_factory=ExplainOptions)
    caption: CaptionOptions = field(default_factory=CaptionOptions)


@dataclass(eq=False)
class _Job:
    """One admitted item that waits for its batch."""

    place: Place
    pixels: NDArray[np.uint8]
    item: WorkItem
    future: asyncio.Future[ItemResult]
    since: float
    """Event-loop time from which it could have left."""
    context: contextvars.Context = field(default_factory=contextvars.copy_context)

    @property
    def key(self) -> BatchKey:
        return self.place.key

    @property
    def deadline(self) -> float:
        return self.place.deadline

    @property
    def work(self) -> float:
        return self.place.work

    def fail(self, error: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(error)


@dataclass(eq=False)
class _Slot:
    """What one batch at the backend takes of the lane."""

    started: float
    estimate: float

    def remaining(self, now: float) -> float:
        """Seconds until it returns. One that is overdue by x is expected to take x more."""
        return abs(self.estimate - (now - self.started))


class Lane:
    """One kind of work.

    Args:
        run: runs one batch at the backend.
        settings: bounds of this lane.
        observer: told what happens here.
    """

    def __init__(self, run: RunBatch, settings: LaneSettings, observer: Observer | None = None) -> None:
        self._run = run
        self._settings = settings
        self._observer = observer or Observer()
        self._places: dict[BatchKey, list[float]] = defaultdict(list)
        self._queues: dict[BatchKey, deque[_Job]] = {}
        self._flights: set[_Slot] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._times: dict[BatchKey, ServiceTime] = {}
        self._wake: asyncio.Handle | None = None

    @property
    def waiting(self) -> int:
        """Items admitted and not yet at the backend."""
        return sum(map(len, self._places.values()))

    @property
    def gathered(self) -> int:
        """Items that could leave now: admitted, decoded and not yet at the backend."""
        return sum(map(len, self._queues.values()))

    @property
    def in_flight(self) -> int:
        """Batches at the backend."""
        return len(self._flights)

    def estimate(self, key: BatchKey, work: float = 1.0) -> float:
        """Seconds that a batch of so many forward passes is expected to take at the backend."""
        times = self._times.get(key)
        return times.estimate(work) if times else self._settings.first_estimate_s * work

    def expected_wait(self) -> float:
        """Seconds until work admitted now would start."""
        now = asyncio.get_running_loop().time()
        queued = 0.0
        for key, places in self._places.items():
            batches = math.ceil(len(places) / self._settings.max_batch)
            queued += batches * self.estimate(key, sum(places) / batches)
        free = len(self._flights) < self._settings.max_in_flight
        running = 0.0 if free else min(flight.remaining(now) for flight in self._flights)
        return running + queued / self._settings.max_in_flight

    def admit(self, key: BatchKey, deadline: float, *, work: float = 1.0, after: float = 0.0) -> Place:
        """Take a place in the lane, or refuse at once.

        A lane with nothing to do admits whatever its estimate says: a first slow answer must not close it for ever.

        Args:
            key: model, version, kind of work and options.
            deadline: event-loop time by which the answer is worth something.
            work: what the item costs, in forward passes, above 0.
            after: seconds before the work can start, because other work comes first.

        Raises:
            DeadlineExceeded: the deadline has passed.
            LaneFull: the work could not be answered in time.
        """
        now = asyncio.get_running_loop().time()
        if deadline <= now:
            self._observer.lost(key, "expired")
            raise DeadlineExceeded("The deadline passed before the work could start; allow more time.")
        wait = self.expected_wait()
        finish = now + max(wait, after) + self.estimate(key, work)
        idle = not self._places and not self._flights
        late = finish - deadline
        if not idle and (late > 0 or wait > self._settings.max_wait_s):
            self._observer.refused(key)
            seconds = max(late, wait - self._settings.max_wait_s)
            raise LaneFull(
                f"The {key.work.value} lane is full: an answer would take about {finish - now:.2f} s, the deadline "
                f"is in {deadline - now:.2f} s. Try again in {seconds:.2f} s or allow more time.",
                retry_after_s=seconds,
            )
        if self.waiting >= self._settings.max_waiting:
            self._observer.refused(key)
            raise LaneFull(
                f"The {key.work.value} lane holds {self.waiting} waiting items, its most. Try again in {wait:.2f} s.",
                retry_after_s=wait,
            )
        return Place(self, key, deadline, work)

    async def close(self) -> None:
        """Fail what waits and let the batches at the backend go."""
        for queue in self._queues.values():
            for job in queue:
                job.fail(BackendUnavailable("The service is stopping; ask another one."))
        self._queues.clear()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _enqueue(self, job: _Job) -> None:
        self._queues.setdefault(job.key, deque()).append(job)
        self._schedule()

    def _schedule(self) -> None:
        # One turn of the loop later, so that what arrives in the same turn travels together.
        if self._wake is None:
            self._wake = asyncio.get_running_loop().call_soon(self._dispatch)

    def _dispatch(self) -> None:
        self._wake = None
        while len(self._flights) < self._settings.max_in_flight:
            jobs = self._next_batch()
            if not jobs:
                return
            work = sum(job.work for job in jobs)
            slot = _Slot(asyncio.get_running_loop().time(), self.estimate(jobs[0].key, work))
            self._flights.add(slot)
            # In a context of its own: what it does is not done for the one call that happened to wake the lane.
            task = asyncio.create_task(self._fly(slot, jobs), context=contextvars.Context())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _next_batch(self) -> list[_Job]:
        """The jobs of the key whose turn it is, as many as may travel together; the keys take turns."""
        while self._queues:
            key, queue = next(iter(self._queues.items()))
            del self._queues[key]
            jobs = self._take(queue)
            if queue:
                self._queues[key] = queue
            if jobs:
                return jobs
        return []

    def _take(self, queue: deque[_Job]) -> list[_Job]:
        now = asyncio.get_running_loop().time()
        jobs: list[_Job] = []
        tightest, work = float("inf"), 0.0
        while queue and len(jobs) < self._settings.max_batch:
            job = queue[0]
            if job.future.done():
                queue.popleft()
                self._observer.lost(job.key, "expired" if job.deadline <= now else "abandoned")
                continue
            if job.deadline <= now:
                queue.popleft()
                self._observer.lost(job.key, "expired")
                job.fail(DeadlineExceeded("The deadline passed while the work waited; allow more time."))
                continue
            if jobs:
                grown = self.estimate(job.key, work + job.work)
                if grown > self._settings.max_batch_s or now + grown > min(tightest, job.deadline):
                    break
            tightest, work = min(tightest, job.deadline), work + job.work
            job.place.release()
            jobs.append(queue.popleft())
        return jobs

    async def _fly(self, slot: _Slot, jobs: list[_Job]) -> None:
        key = jobs[0].key
        batch = WorkBatch(
            model=key.model,
            version=key.version,
            work=key.work,
            pixels=np.stack([job.pixels for job in jobs]),
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
            results = await self._computed(flight)
            work = sum(job.work for job in jobs)
            self._times.setdefault(key, ServiceTime()).add(work, clock() - slot.started)
            for job, result in zip(jobs, results, strict=True):
                if job.future.done():
                    self._observer.lost(key, "late")
                else:
                    job.future.set_result(result)
        except (TimeoutError, DeadlineExceeded):
            error = BackendUnavailable(f"The backend did not answer within {self._settings.batch_timeout_s:g} s.")
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
            self._flights.discard(slot)
            self._schedule()

    async def _computed(self, flight: Flight) -> list[ItemResult]:
        """The backend's results, one an item; the observer learns when it left and came back."""
        clock = asyncio.get_running_loop().time
        start, count, timeout = clock(), len(flight.batch.items), self._settings.batch_timeout_s
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

    def _take_place(self, place: Place) -> None:
        self._places[place.key].append(place.work)
        self._observer.waiting(place.key, 1)

    def _leave_place(self, place: Place) -> None:
        self._places[place.key].remove(place.work)
        self._observer.waiting(place.key, -1)
        if not self._places[place.key]:
            del self._places[place.key]


class Place:
    """A place in a lane, taken before the work's pixels exist; a context manager that gives it back.

    The place counts as waiting work from admission until its batch leaves or it is given back.
    """

    def __init__(self, lane: Lane, key: BatchKey, deadline: float, work: float) -> None:
        self._lane = lane
        self.key = key
        self.deadline = deadline
        self.work = work
        self.seat: Seat | None = None
        """Where in which batch it was computed, once it left."""
        self._held = True
        lane._take_place(self)

    async def result(self, pixels: NDArray[np.uint8], item: WorkItem) -> ItemResult:
        """Wait for the answer to this item.

        Args:
            pixels: uint8 (size, size, 3), the model's input.
            item: what is wanted of it.

        Raises:
            DeadlineExceeded: the deadline passed before or while it was computed.
            BackendUnavailable, BackendFailed: the whole batch failed; a fault of this item alone is in its result.
        """
        loop = asyncio.get_running_loop()
        job = _Job(self, pixels, item, loop.create_future(), loop.time())
        self._lane._enqueue(job)
        try:
            async with asyncio.timeout_at(self.deadline):
                return await job.future
        except TimeoutError:
            raise DeadlineExceeded("The deadline passed before the answer was there; allow more time.") from None
        finally:
            self.release()

    def release(self) -> None:
        """Give the place back; once is enough."""
        if self._held:
            self._held = False
            self._lane._leave_place(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
