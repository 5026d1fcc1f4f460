"""Lanes: where work waits, is refused, is gathered into batches and is given up.

One lane for each kind of work. A lane is bounded by estimated time, not by count: a request is admitted only when the
lane's own measurements say that it will be answered before its deadline, with the `Margin` by which they were wrong
before, and refused at once otherwise: where admitted work comes just too late, the backend is busy and nobody is
served. `FairQueue` says whose turn it is.

Batches form by themselves. A lone request leaves at once; a busy lane gathers what arrives meanwhile. A free one that
knows of work that is still being decoded waits for it, as long as that costs less than a batch of its own would.
Work that nobody waits for any more is dropped before it is computed.

Everything here runs on one event loop; no locks are needed.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

from saaa.errors import BackendUnavailable, DeadlineExceeded, LaneFull
from saaa.work import CaptionOptions, ExplainOptions, Work
from serving.lanes.fairness import Backlog, FairQueue, Flow, Priority
from serving.lanes.flights import Flights, RunBatch
from serving.lanes.places import Job, Place
from serving.observer import Observer
from serving.settings import LaneSettings

ANYBODY = Flow()
"""Interactive work of a caller without a name."""

_PATIENCE = 0.5
"""A batch waits for items that are being decoded for at most this part of what a batch costs besides its work."""


@dataclass(frozen=True, kw_only=True)
class BatchKey:
    """What items must share to travel in one batch."""

    model: str
    version: str
    work: Work
    explain: ExplainOptions = field(default_factory=ExplainOptions)
    caption: CaptionOptions = field(default_factory=CaptionOptions)

    def __hash__(self) -> int:
        """Computed once: a lane looks a key up many times for each item that it is asked to take."""
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash((self.model, self.version, self.work, self.explain, self.caption))


class Lane:
    """One kind of work.

    Args:
        run: runs one batch at the backend.
        settings: bounds of this lane.
        observer: told what happens here.
    """

    def __init__(self, run: RunBatch, settings: LaneSettings, observer: Observer | None = None) -> None:
        self._settings = settings
        self._observer = observer or Observer()
        self._flights = Flights(run, settings, self._observer, self._schedule)
        self._backlog: Backlog[BatchKey] = Backlog()
        self._queue: FairQueue[Job] = FairQueue(settings.ageing, lambda job: self.estimate(job.key, job.work))
        self._coming: Counter[tuple[BatchKey, Priority]] = Counter()
        """Items that are being decoded and will be here soon."""
        self._wake: asyncio.Handle | None = None
        self._patience: asyncio.Handle | None = None
        """What ends a batch's waiting for more items; there until the batch leaves."""
        self._impatient = False

    @property
    def waiting(self) -> int:
        """Items admitted and not yet at the backend."""
        return len(self._backlog)

    @property
    def gathered(self) -> int:
        """Items that could leave now: admitted, decoded and not yet at the backend."""
        return len(self._queue)

    @property
    def in_flight(self) -> int:
        """Batches at the backend."""
        return len(self._flights)

    def estimate(self, key: BatchKey, work: float = 1.0) -> float:
        """Seconds that a batch of so many forward passes is expected to take at the backend."""
        return self._flights.estimate(key, work)

    def expected_wait(self, flow: Flow = ANYBODY, cost: float = 0.0) -> float:
        """Seconds until an item admitted now would start.

        Args:
            flow: whose it is; the callers' shares say what goes before it.
            cost: seconds that it takes itself.
        """
        return self._flights.remaining(self._queue.ahead(flow, cost, self._backlog.seconds(self._together)))

    def admit(
        self, key: BatchKey, deadline: float, *, flow: Flow = ANYBODY, work: float = 1.0, after: float = 0.0
    ) -> Place:
        """Take a place in the lane, or refuse at once.

        A lane with nothing to do admits whatever its estimate says: a first slow answer must not close it for ever.
        Of the items that may wait, each caller has an equal part.

        Args:
            key: model, version, kind of work and options.
            deadline: event-loop time by which the answer is worth something.
            flow: whose work it is, and how urgent.
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
        cost = self.estimate(key, work)
        wait = self.expected_wait(flow, cost)
        finish = now + (max(wait, after) + cost) * self._flights.margins[flow.priority].factor
        idle = not self._backlog and not self._flights
        late = finish - deadline
        if not idle and (late > 0 or wait > self._settings.max_wait_s):
            self._observer.refused(key)
            seconds = max(late, wait - self._settings.max_wait_s)
            raise LaneFull(
                f"The {key.work.value} lane is full: an answer would take about {finish - now:.2f} s, the deadline "
                f"is in {deadline - now:.2f} s. Try again in {seconds:.2f} s or allow more time.",
                retry_after_s=seconds,
            )
        mine, most = self._backlog.count(flow), self._settings.max_waiting // len(self._backlog.flows | {flow})
        if mine >= max(1, most):
            self._observer.refused(key)
            raise LaneFull(
                f"The {key.work.value} lane holds {mine} waiting items of yours, its most now. "
                f"Try again in {wait:.2f} s.",
                retry_after_s=wait,
            )
        return Place(self, key, deadline, flow, work, expected=max(wait, after), soon=not after)

    async def close(self) -> None:
        """Fail what waits and let the batches at the backend go."""
        while (job := self._queue.first()) is not None:
            self._queue.drop(job)
            job.fail(BackendUnavailable("The service is stopping; ask another one."))
        self._go_on()
        await self._flights.close()

    def take_place(self, place: Place) -> None:
        """An item waits; for `Place`, as are the next four."""
        self._backlog.add(place.flow, place.key, place.work)
        self._observer.waiting(place.key, 1)

    def leave_place(self, place: Place) -> None:
        """It waits no more."""
        self._backlog.remove(place.flow, place.key, place.work)
        self._observer.waiting(place.key, -1)

    def expect(self, place: Place) -> None:
        """It is being decoded and will be here soon."""
        self._coming[place.key, place.flow.priority] += 1

    def expect_no_more(self, place: Place) -> None:
        """It is here, or will never be."""
        expected = place.key, place.flow.priority
        self._coming[expected] -= 1
        if not self._coming[expected]:
            del self._coming[expected]
        self._schedule()

    def enqueue(self, job: Job) -> None:
        """It could leave."""
        self._queue.push(job)
        self._schedule()

    def _together(self, key: BatchKey, count: int, work: float) -> float:
        """Seconds that so many items take in full batches."""
        batches = math.ceil(count / self._settings.max_batch)
        return batches * self.estimate(key, work / batches)

    def _schedule(self) -> None:
        # One turn of the loop later, so that what arrives in the same turn travels together.
        if self._wake is None:
            self._wake = asyncio.get_running_loop().call_soon(self._dispatch)

    def _dispatch(self) -> None:
        self._wake = None
        while not self._flights.full:
            leader = self._hopeful(self._queue.first, alone=not self._flights)
            if leader is None or self._holds(leader):
                return
            self._go_on()
            jobs = self._take(leader)
            self._queue.depart(jobs, self._flights.launch(jobs))

    def _holds(self, leader: Job) -> bool:
        """Whether its batch should wait for items that are known to come."""
        if not self._coming[leader.key, leader.flow.priority]:
            return False
        if self._queue.count_like(leader) >= self._settings.max_batch:
            return False
        if self._patience is None:
            seconds = _PATIENCE * self._flights.fixed(leader.key)
            if not seconds:
                return False
            self._patience = asyncio.get_running_loop().call_later(seconds, self._lose_patience)
        return not self._impatient

    def _lose_patience(self) -> None:
        self._impatient = True
        self._schedule()

    def _go_on(self) -> None:
        self._impatient = False
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _take(self, leader: Job) -> list[Job]:
        """The leader and those that travel with it."""
        now = asyncio.get_running_loop().time()
        jobs: list[Job] = []
        tightest, work = math.inf, 0.0
        margin = self._flights.margins[leader.flow.priority].factor
        job: Job | None = leader
        while job is not None and len(jobs) < self._settings.max_batch:
            tightest, work = min(tightest, job.deadline), work + job.work
            if jobs:
                grown = self.estimate(job.key, work)
                if grown > self._settings.max_batch_s or now + grown * margin > tightest:
                    break
            self._queue.take(job)
            job.place.release()
            jobs.append(job)
            job = self._hopeful(lambda: self._queue.next_like(leader), alone=False)
        return jobs

    def _hopeful(self, candidate: Callable[[], Job | None], *, alone: bool) -> Job | None:
        """The first candidate that somebody still waits for and that can be done in time; the others are dropped.

        Where the lane does nothing else, the last one is tried whatever its estimate says, as at admission.
        """
        now = asyncio.get_running_loop().time()
        while (job := candidate()) is not None:
            left = job.deadline - now
            tried = alone and len(self._queue) == 1
            if not job.future.done() and left > 0 and (tried or left >= self.estimate(job.key, job.work)):
                return job
            self._queue.drop(job)
            gone = job.future.done() and left > 0
            if not gone:
                cost = self.estimate(job.key, job.work)
                self._flights.margins[job.flow.priority].add(job.place.expected + cost, now - job.begun + cost)
            self._observer.lost(job.key, "abandoned" if gone else "expired")
            job.fail(DeadlineExceeded("The deadline would pass before the work is done; allow more time."))
        return None
