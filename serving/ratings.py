"""The ratings store: people's answers, kept durably in one SQLite file."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import queue
import sqlite3
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from saaa.errors import LaneFull, RatingConflict, RatingsUnavailable, StartFailed

log = logging.getLogger(__name__)

_APPLICATION = 0x53414141
"""Marks our files (PRAGMA application_id)."""
_VERSION = 1
_SCHEMA = """
CREATE TABLE ratings (
    number INTEGER PRIMARY KEY,
    request_id TEXT NOT NULL UNIQUE,
    recorded_at TEXT NOT NULL,
    content TEXT NOT NULL,
    image_sha256 TEXT REFERENCES images (sha256)
) STRICT;
CREATE TABLE images (sha256 TEXT PRIMARY KEY, format TEXT NOT NULL, bytes BLOB NOT NULL) STRICT;
"""
BUSY_S = 10.0
"""How long to wait for another process that writes to the same file."""
_MAX_BATCH = 256
"""Most ratings of one transaction."""
MAX_WAITING_BYTES = 256 * 2**20
"""Ratings that wait to be written are refused beyond this: bounds memory."""
_RETRY_S = 1.0


@dataclass(frozen=True, kw_only=True)
class KeptImage:
    """An image that its owner lets us keep."""

    sha256: str
    """Of `data`, 64 lower-case hexadecimal digits."""
    format: str
    """Lower-case, such as "png"."""
    data: bytes


@dataclass(frozen=True, kw_only=True)
class Rating:
    """A checked rating."""

    request_id: str
    content: str
    """The JSON object that `serving.ratings_export` describes, as `spelled` spells it, without what the store and the
    export add to it: `format`, `request_id`, `recorded_at` and the image's file."""
    image: KeptImage | None = None


@dataclass(eq=False)
class _Waiting:
    """A rating on its way to the disk."""

    rating: Rating
    loop: asyncio.AbstractEventLoop
    done: asyncio.Future[str]
    size: int = field(init=False)

    def __post_init__(self) -> None:
        self.size = len(self.rating.content) + (len(self.rating.image.data) if self.rating.image else 0)

    def answer(self, outcome: str | Exception) -> None:
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
    """Keeps ratings in a file; each is on the disk before `record` returns.

    One thread writes. What has come while it waited for the disk goes into one transaction, so that many writers at
    once share the wait. Several processes may share a file on one machine.

    Args:
        path: the SQLite file; made when absent.

    Raises:
        StartFailed: the file cannot be made, or is not a ratings store that this version writes.
    """

    def __init__(self, path: Path) -> None:
        self._connection = _open(path)
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._waiting_bytes = 0
        self._lock = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._write, name="ratings", daemon=True)
        self._thread.start()

    async def record(self, rating: Rating) -> str:
        """Keep a rating; one that is kept already stays as it is.

        Returns:
            When it was kept, as in the export.

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
        """Write what waits, then close the file."""
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
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()

    def _write_batch(self, batch: list[_Waiting]) -> list[str | Exception]:
        """What to answer to each; nothing is answered before the transaction is on the disk."""
        if not batch:
            return []
        now = _now()
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            outcomes = [self._insert(entry.rating, now) for entry in batch]
            self._connection.execute("COMMIT")
        except Exception as error:  # whatever it is, the thread must live on and the callers must hear of it
            log.error("ratings could not be written", exc_info=error)
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")
            text = f"The rating could not be kept ({error}); send the same request again later."
            return [RatingsUnavailable(text) for _ in batch]
        return outcomes

    def _insert(self, rating: Rating, now: str) -> str | Exception:
        name, image = rating.request_id, rating.image
        sha256 = image.sha256 if image else None
        kept = self._connection.execute(
            "SELECT recorded_at, content, image_sha256 FROM ratings WHERE request_id = ?", (name,)
        ).fetchone()
        if kept is not None:
            if kept[1:] == (rating.content, sha256):
                return str(kept[0])
            return RatingConflict("Another rating is kept under this request id; name each answer by an id of its own.")
        if image is not None:
            self._connection.execute(
                "INSERT OR IGNORE INTO images VALUES (?, ?, ?)", (image.sha256, image.format, image.data)
            )
        self._connection.execute(
            "INSERT INTO ratings (request_id, recorded_at, content, image_sha256) VALUES (?, ?, ?, ?)",
            (name, now, rating.content, sha256),
        )
        return now


def check_store(path: Path) -> None:
    """Raises `StartFailed` when ratings cannot be kept in this file, which is made when absent."""
    _open(path).close()


def _open(path: Path) -> sqlite3.Connection:
    try:
        if not path.exists():
            path.touch(mode=0o600)  # what people said is nobody else's to read
        # Only the writer's thread uses it once it is open.
        connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    except (OSError, sqlite3.Error) as error:
        raise _unusable(path, getattr(error, "strerror", None) or str(error)) from None
    try:
        _prepare(connection)
    except sqlite3.Error as error:
        connection.close()
        raise _unusable(path, str(error)) from None
    return connection


def _prepare(connection: sqlite3.Connection) -> None:
    """Make the tables in a new file; raises `sqlite3.Error` when the file cannot be used, and leaves it alone then."""
    if not _is_empty(connection):
        check_ours(connection)
    # The write-ahead log is on the disk before a COMMIT returns: that is what FULL adds to it.
    if connection.execute("PRAGMA journal_mode = WAL").fetchone() != ("wal",):
        raise sqlite3.OperationalError("its file system has no write-ahead log")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("BEGIN IMMEDIATE")
    if _is_empty(connection):
        # Not executescript, which would end the transaction.
        for statement in _SCHEMA.split(";"):
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {_APPLICATION}")
        connection.execute(f"PRAGMA user_version = {_VERSION}")
    connection.execute("COMMIT")
    check_ours(connection)


def _is_empty(connection: sqlite3.Connection) -> bool:
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    return not tables


def check_ours(connection: sqlite3.Connection) -> None:
    """Raises `sqlite3.DatabaseError` when the file is not a store of this version."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application != _APPLICATION:
        raise sqlite3.DatabaseError("it is another program's file")
    if version != _VERSION:
        raise sqlite3.DatabaseError(f"its version is {version}, this program's {_VERSION}")


def _unusable(path: Path, why: str) -> StartFailed:
    return StartFailed(
        f"Ratings cannot be kept in {path}: {why}. Name with --ratings a file in a folder that exists on a local disk "
        "and can be written."
    )


def spelled(content: Mapping[str, Any]) -> str:
    """The one spelling of a rating: equal content gives equal text."""
    return json.dumps(content, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
