"""Ratings in a PostgreSQL database (extra `postgres`): one place for services on several machines.

Two tables, saaa_ratings and saaa_images, in the first schema of the user's search path, made when absent; an account
that may not make tables does for a database that has them. What the URL leaves out, the password before all, comes
from libpq's usual places: PGPASSWORD, ~/.pgpass, PGSSLMODE and so on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import psycopg
from psycopg import IsolationLevel
from psycopg.conninfo import conninfo_to_dict

from saaa.errors import DataError, OptionInvalid, RatingConflict, StartFailed
from serving.ratings.place import VERSION, WAIT_S, Kept, Rating, Row, settle

Connection = psycopg.Connection[tuple[Any, ...]]

_MARK = f"saaa ratings {VERSION}"
"""The table's comment: says whose it is, and of which version."""
_SCHEMA = f"""
CREATE TABLE saaa_images (sha256 text PRIMARY KEY, format text NOT NULL, bytes bytea NOT NULL);
CREATE TABLE saaa_ratings (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    request_id text NOT NULL UNIQUE,
    recorded_at text NOT NULL,
    content text NOT NULL,
    image_sha256 text REFERENCES saaa_images
);
COMMENT ON TABLE saaa_ratings IS '{_MARK}'
"""
_ALONE = f"""
SET LOCAL synchronous_commit TO on;
SET LOCAL lock_timeout TO {int(WAIT_S * 1000)};
SET LOCAL idle_in_transaction_session_timeout TO 60000;
SELECT pg_advisory_xact_lock({0x53414141})
"""
"""What begins each writing transaction, whatever the server's own settings: a commit that has returned is on the disk,
and one writer at a time, so that numbers are in the order of the commits. A writer that hangs loses its turn."""
_PATIENCE = {"connect_timeout": int(WAIT_S), "tcp_user_timeout": 30_000, "application_name": "saaa"}
"""Options of libpq (seconds, milliseconds) unless the URL has them: a server that is gone is noticed."""


class PostgresPlace:
    """A database.

    Args:
        url: as libpq takes it.

    Raises:
        OptionInvalid: it is none. What it says never shows a part of the URL, which may be one of the password.
    """

    def __init__(self, url: str) -> None:
        try:
            given = conninfo_to_dict(url)
        except psycopg.ProgrammingError:
            given = {"host": "@"}
        host, port, name = (str(given.get(key) or "") for key in ("host", "port", "dbname"))
        if "@" in host + name or (not port.replace(",", "").isdecimal() and port):
            raise OptionInvalid(
                "Ratings are kept at no URL like this; write postgresql://USER:PASSWORD@HOST:PORT/DATABASE, with "
                "%-codes for special characters in a part (%40 is @, %3A is :, %2F is /).",
                field="ratings",
            )
        self._options: dict[str, Any] = {**_PATIENCE, **given, "client_encoding": "UTF8"}
        self._password = str(given.get("password") or "")
        at = f"{given['user']}@" if given.get("user") else ""
        self._name = f"postgresql://{at}{host}{f':{port}' if port else ''}/{name}"

    def __str__(self) -> str:
        return self._name

    def writer(self) -> PostgresWriter:
        """Open the database to write; see `serving.ratings.place.Place`."""
        try:
            return PostgresWriter(self)
        except psycopg.Error as error:
            raise StartFailed(
                f"Ratings cannot be kept in {self}: {self._said(error)}. Name with --ratings a database that runs, and "
                "an account that may make tables there, or read and insert where they are."
            ) from None

    @contextlib.contextmanager
    def reading(self) -> Iterator[PostgresReader]:
        """Open the database to read; see `serving.ratings.place.Place`."""
        try:
            with contextlib.closing(self.connect()) as connection:
                connection.isolation_level = IsolationLevel.REPEATABLE_READ
                connection.read_only = True
                with connection.transaction():
                    if not _is_ours(connection):
                        raise DataError(f"There is no ratings store in {self}; `saaa up --ratings {self}` makes one.")
                    yield PostgresReader(connection)
        except psycopg.Error as error:
            raise DataError(f"The ratings store {self} cannot be read: {self._said(error)}.") from None

    def connect(self) -> Connection:
        """A new connection, without a transaction; raises `psycopg.Error`."""
        return psycopg.connect(**self._options, autocommit=True)

    def _said(self, error: psycopg.Error) -> str:
        text = " ".join(str(error).split()).rstrip(".")
        return text.replace(self._password, "...") if self._password else text


class PostgresWriter:
    """Writes to a database; connects anew when the connection is lost. See `serving.ratings.place.Writer`.

    Raises:
        psycopg.Error: from any of its methods.
    """

    def __init__(self, place: PostgresPlace) -> None:
        self._place = place
        self._connection = self._open()

    def keep(self, batch: Sequence[Rating], now: str) -> list[Kept | RatingConflict]:
        """Keep ratings in one transaction, on the disk on return."""
        if not self._connection.closed:
            try:
                return self._keep(batch, now)
            except psycopg.Error:
                if not self._connection.closed:
                    raise
        # The server has ended the connection, as it does when it is restarted. Trying again is safe even if it had
        # already committed: what is kept stays as it is.
        self._connection = self._open()
        return self._keep(batch, now)

    def _keep(self, batch: Sequence[Rating], now: str) -> list[Kept | RatingConflict]:
        with self._alone(self._connection) as connection, connection.cursor() as cursor:
            kept = cursor.execute(
                "SELECT request_id, recorded_at, content, image_sha256 FROM saaa_ratings WHERE request_id = ANY(%s)",
                ([rating.request_id for rating in batch],),
            )
            rows = [Row(request_id=r[0], recorded_at=r[1], content=r[2], image_sha256=r[3]) for r in kept]
            outcomes, fresh = settle(batch, rows, now)
            cursor.executemany(
                "INSERT INTO saaa_images VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
                [(r.image.sha256, r.image.format, r.image.data) for r in fresh if r.image],
            )
            cursor.executemany(
                "INSERT INTO saaa_ratings (request_id, recorded_at, content, image_sha256) VALUES (%s, %s, %s, %s)",
                [(r.request_id, now, r.content, r.image.sha256 if r.image else None) for r in fresh],
            )
        return outcomes

    def why(self, error: Exception) -> str:
        """What to tell callers of an error."""
        told = error.diag.message_primary if isinstance(error, psycopg.Error) else None
        return told or "the database cannot be reached"

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _open(self) -> Connection:
        connection = self._place.connect()
        try:
            with self._alone(connection):
                ((encoding,),) = connection.execute("SHOW server_encoding")
                if encoding != "UTF8":
                    raise psycopg.DatabaseError(f"its encoding is {encoding}, not UTF8")
                if not _is_ours(connection):
                    connection.execute(_SCHEMA)
        except BaseException:
            connection.close()
            raise
        return connection

    @staticmethod
    @contextlib.contextmanager
    def _alone(connection: Connection) -> Iterator[Connection]:
        with connection.transaction():
            connection.execute(_ALONE)
            yield connection


class PostgresReader:
    """Reads a database in one transaction; see `serving.ratings.place.Reader`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def rows(self) -> Iterator[Row]:
        """Every rating, in order; the server sends them piece by piece."""
        with self._connection.cursor(name="saaa_ratings") as cursor:
            cursor.execute(
                "SELECT request_id, recorded_at, content, image_sha256, format FROM saaa_ratings "
                "LEFT JOIN saaa_images ON sha256 = image_sha256 ORDER BY number"
            )
            for request_id, recorded_at, content, sha256, kind in cursor:
                yield Row(
                    request_id=request_id,
                    recorded_at=recorded_at,
                    content=content,
                    image_sha256=sha256,
                    image_format=kind,
                )

    def image(self, sha256: str) -> bytes:
        """An image's bytes."""
        ((data,),) = self._connection.execute("SELECT bytes FROM saaa_images WHERE sha256 = %s", (sha256,), binary=True)
        return bytes(data)


def _is_ours(connection: Connection) -> bool:
    """Whether the tables are there; raises `psycopg.DatabaseError` when they are another program's or version's."""
    ((there, mark),) = connection.execute(
        "SELECT to_regclass('saaa_ratings') IS NOT NULL, obj_description(to_regclass('saaa_ratings'), 'pg_class')"
    )
    if there and mark != _MARK:
        told = "another program's" if not str(mark).startswith("saaa ratings ") else f"of version {mark.split()[-1]}"
        raise psycopg.DatabaseError(f"its table saaa_ratings is {told}, this program's version is {VERSION}")
    return bool(there)
