"""The ratings store: people's answers, kept durably in an SQLite file or a PostgreSQL database."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from saaa.errors import LaneFull, RatingsUnavailable
from serving.ratings.place import Kept, Rating, place

log = logging.getLogger(__name__)

_MAX_BATCH = 256
"""Most ratings of one transaction."""
MAX_WAITING_BYTES = 256 * 2**20
"""Ratings that wait to be written are refused beyond this: bounds memory."""
_RETRY_S = 1.0


@dataclass(eq=False)
class _Waiting:
    """A rating on its way to the disk."""

    rating: Rating
    loop: asyncio.AbstractEventLoop
    done: asyncio.Future[Kept]
    size: int = field(init=False)

    def __post_init__(self) -> None:
        self.size = len(self.rating.content) + (len(self.rating.image.data) if self.rating.image else 0)

    def answer(self, outcome: Kept | Exception) -> None:
        """Tell the caller, from any thread, unless it has gone."""

        def tell() -> None:
            if self.done.done():
                return
            if isinstance(outcome, Exception):
                self.done.set_exception(outcome)
            else:
                self.done.set_result(outcome)

        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens
            self.loop.call_soon_threadsafe(tell)


class RatingStore:
    """Keeps ratings; each is on the disk before `record` returns.

    One thread writes. What has come while it waited for the disk goes into one transaction, so that many writers at
    once share the wait. Several processes may share a place.

    Args:
        where: an SQLite file, or a URL of PostgreSQL; what is missing there is made.

    Raises:
        StartFailed: it cannot be made, or is not a ratings store that this version writes.
        OptionInvalid: it is a URL that cannot be used.
    """

    def __init__(self, where: Path | str) -> None:
        self._writer = place(where).writer()
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._waiting_bytes = 0
        self._lock = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._write, name="ratings", daemon=True)
        self._thread.start()

    async def record(self, rating: Rating) -> Kept:
        """Keep a rating; one that is kept already stays as it is.

        Raises:
            RatingConflict: another rating has this request id.
            LaneFull: too much waits to be written.
            RatingsUnavailable: it could not be written.
        """
        loop = asyncio.get_running_loop()
        waiting = _Waiting(rating, loop, loop.create_future())
        with self._lock:
            if self._closed:
                raise RatingsUnavailable("The ratings store is being closed; send the same request again later.")
            if self._waiting_bytes and self._waiting_bytes + waiting.size > MAX_WAITING_BYTES:
                raise LaneFull(
                    "More ratings come than the store can write; send the same request again later.",
                    retry_after_s=_RETRY_S,
                )
            self._waiting_bytes += waiting.size
            self._queue.put(waiting)
        return await waiting.done

    async def close(self) -> None:
        """Write what waits, then let go of the place."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    def _write(self) -> None:
        """The writer's thread: one transaction after the other."""
        last = False
        while not last:
            batch = [self._queue.get()]
            while batch[-1] is not None and len(batch) < _MAX_BATCH:
                try:
                    batch.append(self._queue.get_nowait())
                except queue.Empty:
                    break
            last = batch[-1] is None
            waiting = [entry for entry in batch if entry is not None]
            outcomes = self._write_batch(waiting)
            with self._lock:
                self._waiting_bytes -= sum(entry.size for entry in waiting)
            for entry, outcome in zip(waiting, outcomes, strict=True):
                entry.answer(outcome)
        self._writer.close()

    def _write_batch(self, batch: list[_Waiting]) -> Sequence[Kept | Exception]:
        """What to answer to each; nothing is answered before the transaction is on the disk."""
        if not batch:
            return []
        try:
            return self._writer.keep([entry.rating for entry in batch], _now())
        except Exception as error:  # whatever it is, the thread must live on and the callers must hear of it
            log.error("ratings could not be written", exc_info=error)
            text = f"The rating could not be kept ({self._writer.why(error)}); send the same request again later."
            return [RatingsUnavailable(text) for _ in batch]


def check_store(where: Path | str) -> None:
    """Raises `StartFailed` or `OptionInvalid` when ratings cannot be kept there; made when absent."""
    place(where).writer().close()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
