"""What the data plane tells of itself: one narrow protocol, for whoever counts, traces or writes things down.

Lanes and analysis know this file and none of the libraries behind it.
"""

from __future__ import annotations

import contextvars
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from saaa.work import ItemResult, WorkBatch

if TYPE_CHECKING:
    from serving.lanes.lanes import BatchKey
    from serving.requests import AnalysisRequest, AnalysisResult

Loss = Literal["expired", "abandoned", "late"]
"""Why admitted work was for nothing: its deadline passed before it was computed; its caller left before that; it was
computed, and nobody waited for it any more."""

CacheUse = Literal["hit", "shared", "miss"]
"""What the cache had for a request: its answer; the same request at work; nothing."""


@dataclass(frozen=True, kw_only=True)
class Seat:
    """The place of one item in a batch that was computed."""

    flight: str
    """The batch's id."""
    index: int
    """Which item of it, 0-based."""


@dataclass(frozen=True, kw_only=True)
class Flight:
    """One batch on its way to the backend and back."""

    id: str
    """32 hexadecimal digits, drawn for this batch."""
    batch: WorkBatch
    waits: tuple[float, ...]
    """Seconds that each item waited in its lane, from decoded to departure."""
    contexts: tuple[contextvars.Context, ...]
    """The context that each item was asked in: of its call."""


BATCH_TRACE: contextvars.ContextVar[str] = contextvars.ContextVar("batch_trace", default="")
"""W3C traceparent of the batch that is at the backend in this context; an observer that traces sets it on departure, a
backend that can hands it on."""


class Observer:
    """Is told what happens, on the event loop; this one does not care.

    Subclasses override what they need. They must be quick and must not raise.
    """

    def waiting(self, key: BatchKey, change: int) -> None:
        """So many more items (fewer where negative) wait in a lane."""

    def refused(self, key: BatchKey) -> None:
        """An item was not admitted, because it could not be answered in time."""

    def lost(self, key: BatchKey, why: Loss) -> None:
        """An admitted item will not be answered."""

    def departed(self, flight: Flight) -> None:
        """A batch is about to leave for the backend."""

    def landed(self, flight: Flight, outcome: Sequence[ItemResult] | BaseException, seconds: float) -> None:
        """A batch is back, with one result an item or a failure of them all, so many seconds after it left."""

    def staged(self, stage: str, seconds: float) -> None:
        """A stage of the current request has just ended, well or not."""

    def cached(self, use: CacheUse) -> None:
        """The cache was asked."""

    def answered(self, request: AnalysisRequest, result: AnalysisResult) -> None:
        """A request has its answer."""

    def rated(self, relevance: float | None) -> None:
        """A person's new answer was kept: a relevance of 1 to 5, or None for another kind of answer."""


class Observers(Observer):
    """Tells all of them, in order.

    Args:
        observers: who wants to know.
    """

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._all = tuple(observers)

    def waiting(self, key: BatchKey, change: int) -> None:
        """See `Observer`."""
        for observer in self._all:
            observer.waiting(key, change)

    def refused(self, key: BatchKey) -> None:
        """See `Observer`."""
        for observer in self._all:
            observer.refused(key)

    def lost(self, key: BatchKey, why: Loss) -> None:
        """See `Observer`."""
        for observer in self._all:
            observer.lost(key, why)

    def departed(self, flight: Flight) -> None:
        """See `Observer`."""
        for observer in self._all:
            observer.departed(flight)

    def landed(self, flight: Flight, outcome: Sequence[ItemResult] | BaseException, seconds: float) -> None:
        """See `Observer`."""
        for observer in self._all:
            observer.landed(flight, outcome, seconds)

    def staged(self, stage: str, seconds: float) -> None:
        """See `Observer`."""
        for observer in self._all:
            observer.staged(stage, seconds)

    def cached(self, use: CacheUse) -> None:
        """See `Observer`."""
        for observer in self._all:
            observer.cached(use)

    def answered(self, request: AnalysisRequest, result: AnalysisResult) -> None:
        """See `Observer`."""
        for observer in self._all:
            observer.answered(request, result)

    def rated(self, relevance: float | None) -> None:
        """See `Observer`."""
        for observer in self._all:
            observer.rated(relevance)
