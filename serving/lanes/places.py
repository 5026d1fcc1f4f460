"""What waits in a lane: the place taken before the pixels exist, and the item itself."""

from __future__ import annotations

import asyncio
import contextvars
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from saaa.errors import DeadlineExceeded
from saaa.work import ItemResult, WorkItem
from serving.lanes.fairness import Flow
from serving.observer import Seat

if TYPE_CHECKING:
    from serving.lanes.lanes import BatchKey, Lane


@dataclass(eq=False)
class Job:
    """One admitted item that waits for its batch, or is in it."""

    place: Place
    pixels: NDArray[np.uint8]
    item: WorkItem
    future: asyncio.Future[ItemResult]
    since: float
    """Event-loop time from which it could have left."""
    context: contextvars.Context = field(default_factory=contextvars.copy_context)

    @property
    def key(self) -> BatchKey:
        """What its batch shares."""
        return self.place.key

    @property
    def flow(self) -> Flow:
        """Whose it is."""
        return self.place.flow

    @property
    def deadline(self) -> float:
        """Event-loop time by which the answer is worth something."""
        return self.place.deadline

    @property
    def work(self) -> float:
        """Its forward passes."""
        return self.place.work

    @property
    def begun(self) -> float:
        """Event-loop time from which its wait counts: its admission, or later where it was the decoding that took
        longer than the wait."""
        return max(self.place.admitted, self.since - self.place.expected)

    def fail(self, error: Exception) -> None:
        """Tell who waits, if anybody does."""
        if not self.future.done():
            self.future.set_exception(error)


class Place:
    """A place in a lane, taken before the work's pixels exist; a context manager that gives it back.

    The place counts as waiting work from admission until its batch leaves or it is given back.
    """

    def __init__(
        self, lane: Lane, key: BatchKey, deadline: float, flow: Flow, work: float, *, expected: float, soon: bool
    ) -> None:
        self._lane = lane
        self.admitted = asyncio.get_running_loop().time()
        """Event-loop time of its admission."""
        self.expected = expected
        """Seconds of waiting that were expected then."""
        self.key = key
        self.deadline = deadline
        self.flow = flow
        self.work = work
        self.seat: Seat | None = None
        """Where in which batch it was computed, once it left."""
        self._held = True
        self._soon = soon
        lane.take_place(self)
        if soon:
            lane.expect(self)

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
        job = Job(self, pixels, item, loop.create_future(), loop.time())
        self._lane.enqueue(job)
        self._arrive()
        try:
            async with asyncio.timeout_at(self.deadline):
                return await job.future
        except TimeoutError:
            raise DeadlineExceeded("The deadline passed before the answer was there; allow more time.") from None
        finally:
            self.release()

    def release(self) -> None:
        """Give the place back; once is enough."""
        self._arrive()
        if self._held:
            self._held = False
            self._lane.leave_place(self)

    def _arrive(self) -> None:
        """What it is for is here, or will never be."""
        if self._soon:
            self._soon = False
            self._lane.expect_no_more(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
