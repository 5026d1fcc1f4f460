"""Answers kept for the next time, bounded in bytes; what is asked for again while it is at work is computed once.

Each caller has its own answers: those of another would tell, by coming sooner, what that one had asked for.
"""

from __future__ import annotations

import asyncio
import sys
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, fields, is_dataclass, replace

import numpy as np

from saaa.errors import DeadlineExceeded, RetryLater, SaaaError
from saaa.work import ModelInfo
from serving.analysis.plan import Plan
from serving.lanes.fairness import Flow
from serving.observer import Observer
from serving.requests import AnalysisResult


@dataclass(frozen=True, kw_only=True)
class Question:
    """All that an answer depends on, and whose it is; not the request's id, nor how urgent it is."""

    caller: str
    image_sha256: str
    """Of the encoded bytes."""
    plan: Plan
    """Options as they are used, and models with the digests of their archives."""


class AnswerCache:
    """The answers used last.

    Args:
        max_bytes: most memory for answers and their questions, at least 1.
        observer: told what each request found.
    """

    def __init__(self, max_bytes: int, observer: Observer) -> None:
        self._max_bytes = max_bytes
        self._observer = observer
        self._kept: OrderedDict[Question, tuple[AnalysisResult, int]] = OrderedDict()
        self._bytes = 0
        self._flights: dict[tuple[Question, Flow], asyncio.Future[AnalysisResult]] = {}

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def bytes(self) -> int:
        """What the kept answers and their questions take."""
        return self._bytes

    async def answer(
        self, question: Question, flow: Flow, compute: Callable[[], Awaitable[AnalysisResult]]
    ) -> AnalysisResult:
        """The answer that is kept, or that of the same question at work, or a new one.

        Args:
            question: what is asked.
            flow: for whom and how urgently. Nobody waits for the same question of another urgency.
            compute: makes a new answer.

        Raises:
            SaaaError: of `compute`; told to all who wait for it, but never kept.
        """
        while True:
            kept = self._kept.get(question)
            if kept is not None:
                self._kept.move_to_end(question)
                self._observer.cached("hit")
                return replace(kept[0], cached=True)
            flight = self._flights.get((question, flow))
            if flight is None:
                self._observer.cached("miss")
                return await self._compute(question, flow, compute)
            await asyncio.wait([flight])
            if not flight.cancelled():
                self._observer.cached("shared")
                return replace(flight.result(), cached=True)

    async def _compute(
        self, question: Question, flow: Flow, compute: Callable[[], Awaitable[AnalysisResult]]
    ) -> AnalysisResult:
        """A new answer. Where none comes for a reason of this one caller's (it leaves, its time is over, its lane is
        full), the flight is cancelled, and one of those who wait tries itself."""
        flight = self._flights[question, flow] = asyncio.get_running_loop().create_future()
        try:
            result = await compute()
            self._keep(question, result)
            flight.set_result(result)
            return result
        except (DeadlineExceeded, RetryLater):
            raise
        except SaaaError as error:
            flight.set_exception(error)
            flight.exception()  # told: nobody need wait for it
            raise
        finally:
            del self._flights[question, flow]
            flight.cancel()

    def _keep(self, question: Question, result: AnalysisResult) -> None:
        size = _size(question) + _size(result)
        if size > self._max_bytes:
            return
        if question in self._kept:  # of another urgency, meanwhile
            self._drop(question)
        self._kept[question] = result, size
        self._bytes += size
        while self._bytes > self._max_bytes:
            self._drop(next(iter(self._kept)))

    def _drop(self, question: Question) -> None:
        self._bytes -= self._kept.pop(question)[1]


def _size(value: object) -> int:
    """Bytes of memory, about; models' descriptions are not counted, since the answers share them with the catalog."""
    if value is None or isinstance(value, ModelInfo):
        return 0
    size = sys.getsizeof(value)
    parts: Iterable[object] = ()
    if isinstance(value, np.ndarray):
        # A part of a larger array holds all of that.
        return size + (0 if value.base is None else getattr(value.base, "nbytes", value.nbytes))
    if isinstance(value, dict):
        parts = (*value, *value.values())
    elif isinstance(value, (tuple, frozenset)):
        parts = value
    elif is_dataclass(value):
        parts = [getattr(value, field.name) for field in fields(value)]
        size += sys.getsizeof(parts)
    return size + sum(map(_size, parts))
