"""`saaa tokens`: the token file, by people."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from serving.security import tokens
from serving.security.scopes import Scope
from serving.security.tokens import Token


def create(path: Path, name: str, scopes: Sequence[str], days: float | None) -> None:
    """Make a token; its text alone goes to standard output. Raises as `tokens.create`."""
    text, token = tokens.create(path, name, [Scope(scope) for scope in scopes], days=days)
    print(text, flush=True)
    print(f"saaa: token {_line(token)}", file=sys.stderr)


def show(path: Path) -> None:
    """List the tokens. Raises as `tokens.listed`."""
    for token in tokens.listed(path):
        print(_line(token))


def revoke(path: Path, number: str) -> None:
    """Take a token out of the file. Raises as `tokens.revoke`."""
    print(f"revoked {_line(tokens.revoke(path, number))}")


def _line(token: Token) -> str:
    if token.expires is None:
        until = "until revoked"
    else:
        passed = token.expired(datetime.now(UTC))
        until = f"{'expired' if passed else 'expires'} {token.expires:%Y-%m-%d %H:%M} UTC"
    return f"{token.id}  {token.name}  {'/'.join(token.scopes)}  {until}"
