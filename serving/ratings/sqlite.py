"""Ratings in one SQLite file: the place that needs nothing else. Several processes of one machine may share it."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from saaa.errors import DataError, RatingConflict, StartFailed
from serving.ratings.place import VERSION, WAIT_S, Kept, Rating, Row, settle

_APPLICATION = 0x53414141
"""Marks our files (PRAGMA application_id)."""
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


@dataclass(frozen=True)
class SqlitePlace:
    """A file."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    def writer(self) -> SqliteWriter:
        """Open the file to write; see `serving.ratings.place.Place`."""
        return SqliteWriter(_open(self.path))

    @contextlib.contextmanager
    def reading(self) -> Iterator[SqliteReader]:
        """Open the file to read; see `serving.ratings.place.Place`."""
        if not self.path.is_file():
            raise DataError(f"There is no ratings store {self}; `saaa up --ratings {self}` makes one.")
        try:
            with contextlib.closing(sqlite3.connect(self.path, timeout=WAIT_S, isolation_level=None)) as connection:
                _check_ours(connection)
                # One transaction: what is recorded meanwhile is not half seen.
                connection.execute("BEGIN")
                yield SqliteReader(connection)
        except sqlite3.Error as error:
            raise DataError(f"The ratings store {self} cannot be read: {error}.") from None


class SqliteWriter:
    """Writes to an open file; see `serving.ratings.place.Writer`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection

    def keep(self, batch: Sequence[Rating], now: str) -> list[Kept | RatingConflict]:
        """Keep ratings in one transaction, on the disk on return."""
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            outcomes, fresh = settle(batch, self._kept(batch), now)
            images = [rating.image for rating in fresh if rating.image]
            self.connection.executemany(
                "INSERT OR IGNORE INTO images VALUES (?, ?, ?)", ((i.sha256, i.format, i.data) for i in images)
            )
            self.connection.executemany(
                "INSERT INTO ratings (request_id, recorded_at, content, image_sha256) VALUES (?, ?, ?, ?)",
                ((r.request_id, now, r.content, r.image.sha256 if r.image else None) for r in fresh),
            )
            self.connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                self.connection.execute("ROLLBACK")
            raise
        return outcomes

    def _kept(self, batch: Sequence[Rating]) -> Iterator[Row]:
        names = ",".join("?" * len(batch))
        for request_id, recorded_at, content, sha256 in self.connection.execute(
            f"SELECT request_id, recorded_at, content, image_sha256 FROM ratings WHERE request_id IN ({names})",
            [rating.request_id for rating in batch],
        ):
            yield Row(request_id=request_id, recorded_at=recorded_at, content=content, image_sha256=sha256)

    def why(self, error: Exception) -> str:
        """What to tell callers of an error."""
        return str(error)

    def close(self) -> None:
        """Close the file."""
        with contextlib.suppress(sqlite3.Error):
            self.connection.close()


@dataclass(frozen=True)
class SqliteReader:
    """Reads an open file; see `serving.ratings.place.Reader`."""

    connection: sqlite3.Connection

    def rows(self) -> Iterator[Row]:
        """Every rating, in order."""
        for request_id, recorded_at, content, sha256, kind in self.connection.execute(
            "SELECT request_id, recorded_at, content, image_sha256, images.format FROM ratings "
            "LEFT JOIN images ON images.sha256 = image_sha256 ORDER BY number"
        ):
            yield Row(
                request_id=request_id,
                recorded_at=recorded_at,
                content=content,
                image_sha256=sha256,
                image_format=kind,
            )

    def image(self, sha256: str) -> bytes:
        """An image's bytes."""
        ((data,),) = self.connection.execute("SELECT bytes FROM images WHERE sha256 = ?", (sha256,))
        return bytes(data)


def _open(path: Path) -> sqlite3.Connection:
    try:
        if not path.exists():
            path.touch(mode=0o600)  # what people said is nobody else's to read
        # Only the writer's thread uses it once it is open.
        connection = sqlite3.connect(path, timeout=WAIT_S, isolation_level=None, check_same_thread=False)
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
        _check_ours(connection)
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
        connection.execute(f"PRAGMA user_version = {VERSION}")
    connection.execute("COMMIT")
    _check_ours(connection)


def _is_empty(connection: sqlite3.Connection) -> bool:
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    return not tables


def _check_ours(connection: sqlite3.Connection) -> None:
    """Raises `sqlite3.DatabaseError` when the file is not a store of this version."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application != _APPLICATION:
        raise sqlite3.DatabaseError("it is another program's file")
    if version != VERSION:
        raise sqlite3.DatabaseError(f"its version is {version}, this program's {VERSION}")


def _unusable(path: Path, why: str) -> StartFailed:
    return StartFailed(
        f"Ratings cannot be kept in {path}: {why}. Name with --ratings a file in a folder that exists on a local disk "
        "and can be written."
    )
