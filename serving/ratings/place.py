"""Where ratings are kept: what a place for them can do, and the two places there are."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from saaa.errors import OptionInvalid, RatingConflict

WAIT_S = 10.0
"""How long to wait for another process that writes to the same place."""
VERSION = 1
"""Of the tables."""


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
    """The JSON object that `serving.ratings.export` describes, as `spelled` spells it, without what the store and the
    export add to it: `format`, `request_id`, `recorded_at` and the image's file."""
    image: KeptImage | None = None


@dataclass(frozen=True, kw_only=True)
class Kept:
    """That a rating is kept."""

    recorded_at: str
    """Since when, as in the export."""
    new: bool
    """Whether it was not kept before; sent again, it is as good as the first time and counts once."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A rating as it is kept."""

    request_id: str
    recorded_at: str
    content: str
    image_sha256: str | None
    image_format: str | None = None


class Writer(Protocol):
    """Writes to a place; used by one thread at a time."""

    def keep(self, batch: Sequence[Rating], now: str) -> list[Kept | RatingConflict]:
        """Keep ratings in one transaction, which is durable on return and, after any error, as if it had never been.

        Returns:
            What `settle` says of each.
        """

    def why(self, error: Exception) -> str:
        """What to tell callers of an error in `keep`: nothing of where the place is or how to get in."""

    def close(self) -> None:
        """Let go of the place."""


class Reader(Protocol):
    """One unchanging view of a place."""

    def rows(self) -> Iterator[Row]:
        """Every rating, in the order in which they were kept."""

    def image(self, sha256: str) -> bytes:
        """An image of theirs."""


class Place(Protocol):
    """A place for ratings; `str` names it, without any password."""

    def writer(self) -> Writer:
        """Open it to write; made when absent.

        Raises:
            StartFailed: it cannot be made, or is not a ratings store that this version writes.
        """

    def reading(self) -> AbstractContextManager[Reader]:
        """Open it to read; it may be in use.

        Raises:
            DataError: there is no such store, or it cannot be read.
        """


def place(where: Path | str) -> Place:
    """The place of that name.

    Args:
        where: an SQLite file, or a URL of PostgreSQL ("postgresql://USER@HOST/DATABASE").

    Raises:
        OptionInvalid: it is a URL that cannot be read, or of something else, or PostgreSQL's client is not installed.
    """
    from serving.ratings.sqlite import SqlitePlace

    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", where) if isinstance(where, str) else None
    if scheme is None:
        return SqlitePlace(Path(where))
    if scheme[1] not in ("postgresql", "postgres"):
        # The URL itself is not shown: it may hold a password.
        raise OptionInvalid(
            f"Ratings are kept in a file or at postgresql://..., not at {scheme[1]}://.", field="ratings"
        )
    try:
        from serving.ratings.postgres import PostgresPlace
    except ImportError as error:
        raise OptionInvalid(
            f"Ratings in PostgreSQL need its client ({error}): pip install 'saaa[postgres]'.", field="ratings"
        ) from None
    return PostgresPlace(str(where))


def settle(batch: Sequence[Rating], kept: Iterable[Row], now: str) -> tuple[list[Kept | RatingConflict], list[Rating]]:
    """Decide what becomes of ratings.

    Args:
        batch: what came, in order.
        kept: what is kept under their request ids.
        now: the time under which new ones are kept.

    Returns:
        What to answer to each: since when it is kept, or that another has its request id; and those to be kept now.
    """
    known = {row.request_id: row for row in kept}
    outcomes: list[Kept | RatingConflict] = []
    fresh: list[Rating] = []
    for rating in batch:
        sha256 = rating.image.sha256 if rating.image else None
        row = known.get(rating.request_id)
        new = row is None
        if row is None:
            row = Row(request_id=rating.request_id, recorded_at=now, content=rating.content, image_sha256=sha256)
            known[rating.request_id] = row
            fresh.append(rating)
        if (row.content, row.image_sha256) == (rating.content, sha256):
            outcomes.append(Kept(recorded_at=row.recorded_at, new=new))
        else:
            outcomes.append(
                RatingConflict("Another rating is kept under this request id; name each answer by an id of its own.")
            )
    return outcomes, fresh


def spelled(content: Mapping[str, Any]) -> str:
    """The one spelling of a rating: equal content gives equal text."""
    return json.dumps(content, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)
