"""Who makes a call, and whether that caller may: the one place where credentials are judged."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

from saaa.errors import Unauthenticated
from serving.security.scopes import Scope, require
from serving.security.settings import SecuritySettings
from serving.security.tls import server_credentials
from serving.security.tokens import PREFIX, TokenTable, read_tokens
from serving.security.watched import Watched
from serving.security.web_tokens import WebTokens, refused

AUTHORIZATION = "authorization"
"""The metadata key of tokens: "Bearer TOKEN"."""
EVERYTHING = frozenset(Scope)


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Who calls."""

    name: str
    """Unique over all ways to be known: "token:ID", "jwt:SUBJECT", "certificate:NAME", "address:HOST"."""
    scopes: frozenset[Scope]


class Gate:
    """Judges credentials.

    Where tokens are set up, of either kind, every call needs one, also over mTLS. Otherwise a client certificate, where
    they are asked for, allows everything; and without either so does an address.

    Args:
        settings: which credentials count.

    Raises:
        StartFailed: a file cannot be used.
    """

    def __init__(self, settings: SecuritySettings) -> None:
        self._tokens: Watched[TokenTable] | None = None
        if (path := settings.tokens) is not None:
            self._tokens = Watched("API tokens", [path], lambda: TokenTable(read_tokens(path)), every_s=settings.poll_s)
        self._web_tokens = WebTokens(settings.jwt_keys, settings) if settings.jwt_keys else None

    @property
    def needs_token(self) -> bool:
        """Whether callers must bring a token."""
        return bool(self._tokens or self._web_tokens)

    def by_token(self, header: str | None) -> Caller:
        """Who brings that token.

        Args:
            header: "Bearer TOKEN"; None where the call has none.

        Raises:
            Unauthenticated: there is none, or it does not count.
        """
        kind, _, text = (header or "").partition(" ")
        text = text.strip()
        if kind.lower() != "bearer" or not text:
            raise Unauthenticated("This service needs a token: send the metadata 'authorization: Bearer TOKEN'.")
        if self._tokens and text.startswith(PREFIX):
            token = self._tokens.value().find(text, datetime.now(UTC))
            if token is None:
                raise refused()
            return Caller(name=f"token:{token.id}", scopes=frozenset(token.scopes))
        if self._web_tokens:
            claims = self._web_tokens.check(text)
            return Caller(name=f"jwt:{claims.subject}", scopes=claims.scopes)
        raise refused()

    def check_metrics(self, header: str | None) -> None:
        """Refuse to tell metrics: where tokens are set up, one with their scope is needed.

        Args:
            header: as of `by_token`.

        Raises:
            Unauthenticated: there is no token, or it does not count.
            NotPermitted: it lacks the scope.
        """
        if self.needs_token:
            require([Scope.METRICS], self.by_token(header).scopes)


def check_security(settings: SecuritySettings) -> None:
    """Raises `StartFailed` when a file of certificates, tokens or keys cannot be used: for those who have dear work to
    do first."""
    Gate(settings)
    server_credentials(settings)


def by_connection(peer: str, facts: Mapping[str, Iterable[bytes]]) -> Caller:
    """Who is at the other end of a connection.

    Args:
        peer: gRPC's name of it, such as "ipv4:127.0.0.1:35924".
        facts: gRPC's authentication context; it names only certificates that were verified.
    """
    for key in ("x509_subject_alternative_name", "x509_common_name"):
        name = next(iter(facts.get(key, ())), b"").decode("utf-8", "replace")
        if name:
            # It goes into logs, and an authority may sign anything.
            name = name if name.isprintable() else ascii(name)
            return Caller(name=f"certificate:{name}", scopes=EVERYTHING)
    return Caller(name=f"address:{_host(peer)}", scopes=EVERYTHING)


@lru_cache(maxsize=1024)
def _host(peer: str) -> str:
    """The host of a peer; of IPv6 the network of 64 bits, all of which one caller may own."""
    family, _, rest = peer.partition(":")
    if family not in ("ipv4", "ipv6"):
        return family or "unknown"
    host = rest.replace("%5B", "[").replace("%5D", "]").rpartition(":")[0].strip("[]").partition("%")[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return "unknown"
    if isinstance(address, ipaddress.IPv4Address) or address.is_loopback:
        return str(address)
    return str(address.ipv4_mapped or ipaddress.ip_network((address, 64), strict=False))
