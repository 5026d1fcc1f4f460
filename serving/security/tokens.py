"""API tokens: made, listed and revoked by `saaa tokens`; a file keeps their digests, never the tokens.

A token is 32 random bytes, so there is nothing to guess: SHA-256 keeps it as safe as a slow hash would, which is made
for passwords that people choose, and would here only let callers make the server work.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import hmac
import json
import os
import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from saaa.errors import DataError, OptionInvalid
from serving.security.scopes import Scope

PREFIX = "saaa_"
"""What every token starts with, so that scanners of leaked secrets find it."""
_VERSION = 1
_SECRET_BYTES = 32
_ID_BYTES = 6
MAX_NAME = 64
"""Longest name of a token in characters."""


@dataclass(frozen=True, kw_only=True)
class Token:
    """What is kept of a token."""

    id: str
    """12 hexadecimal digits; part of the token, and no secret."""
    name: str
    """Whose it is, in people's words."""
    sha256: str
    """Of the whole token's text, 64 hexadecimal digits."""
    scopes: tuple[Scope, ...]
    created: datetime
    expires: datetime | None
    """None lasts until it is revoked."""

    def expired(self, now: datetime) -> bool:
        """Whether it has passed its time."""
        return self.expires is not None and now >= self.expires


class TokenTable:
    """The tokens of one file as it was read."""

    def __init__(self, tokens: Sequence[Token]) -> None:
        self._by_id = {token.id: token for token in tokens}

    def find(self, text: str, now: datetime) -> Token | None:
        """The token of that text; None where there is none, or no longer."""
        kept = self._by_id.get(text.removeprefix(PREFIX).partition("_")[0])
        digest = _digest(text)
        # Compared in any case, and in constant time: how long it takes tells nothing.
        same = hmac.compare_digest(digest, kept.sha256 if kept else digest[::-1])
        return kept if kept and same and not kept.expired(now) else None


def read_tokens(path: Path) -> tuple[Token, ...]:
    """Read a token file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no token file.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["version"] != _VERSION:
            raise ValueError(f"its version is {document['version']!r}; this program reads version {_VERSION}")
        return tuple(_token(entry) for entry in document["tokens"])
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError, UnicodeDecodeError):
        raise ValueError("it is not a file that `saaa tokens` made") from None


def create(
    path: Path, name: str, scopes: Sequence[Scope], *, days: float | None, now: datetime | None = None
) -> tuple[str, Token]:
    """Make a token and keep its digest.

    Args:
        path: the token file; made when absent, for its owner only (0600).
        name: whose it is, 1 to `MAX_NAME` printable characters.
        scopes: what it may do, at least one.
        days: how long it lasts, above 0; None lasts until it is revoked.
        now: the time; the present one unless given.

    Returns:
        The token's text, which is kept nowhere, and what is kept.

    Raises:
        OptionInvalid: a value outside its range.
        DataError: the file cannot be used.
    """
    if not 0 < len(name) <= MAX_NAME or not name.isprintable():
        raise OptionInvalid(f"A token's name has 1 to {MAX_NAME} printable characters.", field="name")
    if not scopes:
        raise OptionInvalid("Give a token at least one scope.", field="scopes")
    now = now or datetime.now(UTC)
    if days is not None and not 0 < days <= 36_500:
        raise OptionInvalid("A token lasts above 0 and at most 36500 days.", field="days")
    number = secrets.token_hex(_ID_BYTES)
    text = f"{PREFIX}{number}_{secrets.token_urlsafe(_SECRET_BYTES)}"
    token = Token(
        id=number,
        name=name,
        sha256=_digest(text),
        scopes=tuple(sorted(set(scopes))),
        created=now.replace(microsecond=0),
        expires=None if days is None else (now + timedelta(days=days)).replace(microsecond=0),
    )
    _change(path, lambda tokens: (*tokens, token), make=True)
    return text, token


def revoke(path: Path, number: str) -> Token:
    """Take a token out of the file; facades that read it refuse the token within their `poll_s`.

    Args:
        path: the token file.
        number: the token's id.

    Returns:
        What was kept of it.

    Raises:
        OptionInvalid: there is no such token.
        DataError: the file cannot be used.
    """
    gone: list[Token] = []

    def without(tokens: Sequence[Token]) -> Sequence[Token]:
        gone.extend(token for token in tokens if token.id == number)
        if not gone:
            raise OptionInvalid(f"There is no token {number} in {path}; `saaa tokens list` shows them.", field="id")
        return [token for token in tokens if token.id != number]

    _change(path, without, make=False)
    return gone[0]


def listed(path: Path) -> tuple[Token, ...]:
    """The tokens of a file.

    Raises:
        DataError: it cannot be used.
    """
    with _told(path):
        return read_tokens(path)


def _change(path: Path, change: Callable[[Sequence[Token]], Sequence[Token]], *, make: bool) -> None:
    """Replace the file by a changed one, so that readers see the old or the new one whole; one writer at a time."""
    with _told(path):
        # The lock is a file of its own: the token file itself is replaced.
        lock = os.open(path.with_name(f".{path.name}.lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            tokens = change(() if make and not path.exists() else read_tokens(path))
            document = {"version": _VERSION, "tokens": [_plain(token) for token in tokens]}
            fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
            try:
                with os.fdopen(os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
                    json.dump(document, file, indent=1)
                    file.flush()
                    os.fsync(file.fileno())
                fresh.replace(path)
            finally:
                fresh.unlink(missing_ok=True)
        finally:
            os.close(lock)


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(f"The token file {path} cannot be used: {error.strerror or error}.") from None
    except ValueError as error:
        raise DataError(f"The token file {path} cannot be used: {error}.") from None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def _plain(token: Token) -> Mapping[str, Any]:
    return {
        **asdict(token),
        "created": token.created.isoformat(),
        "expires": token.expires and token.expires.isoformat(),
    }


def _token(entry: Mapping[str, Any]) -> Token:
    expires = entry["expires"]
    token = Token(
        id=str(entry["id"]),
        name=str(entry["name"]),
        sha256=str(entry["sha256"]),
        scopes=tuple(Scope(scope) for scope in entry["scopes"]),
        created=datetime.fromisoformat(entry["created"]),
        expires=None if expires is None else datetime.fromisoformat(expires),
    )
    if not re.fullmatch("[0-9a-f]{64}", token.sha256):
        raise ValueError(f"the token {token.id} has no digest")
    if token.expires is not None and token.expires.tzinfo is None:
        raise ValueError(f"the token {token.id} expires at a time without a zone")
    return token
