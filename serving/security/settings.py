"""What the facade is told about security."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from saaa.errors import OptionInvalid


def _require(condition: bool, name: str, rule: str) -> None:
    if not condition:
        raise OptionInvalid(f"The setting {name} must be {rule}.", field=name)


@dataclass(frozen=True, kw_only=True)
class SecuritySettings:
    """Transport, credentials and what one caller may ask for. Files are read again when they change."""

    tls_certificate: Path | None = None
    """PEM file of the server's certificate and those that lead to its authority; None is plain text."""
    tls_key: Path | None = None
    """PEM file of its private key, not encrypted."""
    client_ca: Path | None = None
    """PEM file of the authorities whose certificates callers must bring (mTLS); None asks for none."""
    tokens: Path | None = None
    """File of API tokens, made by `saaa tokens create`; with it, or with `jwt_keys`, every call needs a token."""
    jwt_keys: Path | None = None
    """JWKS file of the keys that sign callers' JSON Web Tokens (RS256, ES256, EdDSA)."""
    jwt_issuer: str | None = None
    """What their `iss` must be."""
    jwt_audience: str | None = None
    """What their `aud` must hold."""
    jwt_scopes: str = "scope"
    """The claim that lists their scopes: words in one text, or a list."""
    calls_per_s: float | None = None
    """Calls, and items of a stream, that one caller may make in a second, on average; None is no limit."""
    burst: int = 16
    """Calls that one caller may make at once after a rest, at least 1."""
    calls_at_once: int | None = None
    """Calls of one caller at work at once, at least 1; None is no limit."""
    max_calls: int = 512
    """Calls of all callers together at once, at least 1; others are refused before their message is read, which bounds
    memory. Health is not counted."""
    allow_plain_text: bool = False
    """Listen without TLS on an address that other machines reach: for those behind a proxy that does TLS."""
    poll_s: float = 1.0
    """The files are looked at no more often than this, in seconds, at least 0."""

    def __post_init__(self) -> None:
        _require((self.tls_certificate is None) == (self.tls_key is None), "tls_key", "given with tls_certificate")
        _require(self.client_ca is None or self.tls_key is not None, "tls_certificate", "given with client_ca")
        for name in ("jwt_issuer", "jwt_audience"):
            _require(bool(getattr(self, name)) == (self.jwt_keys is not None), name, "given with jwt_keys")
        _require(bool(self.jwt_scopes), "jwt_scopes", "the name of a claim")
        _require(self.calls_per_s is None or self.calls_per_s > 0, "calls_per_s", "above 0")
        for name in ("burst", "calls_at_once", "max_calls"):
            value = getattr(self, name)
            _require(value is None or value >= 1, name, "at least 1")
        _require(self.poll_s >= 0, "poll_s", "at least 0 seconds")

    def check_host(self, host: str) -> None:
        """Refuse plain text where other machines could listen in.

        Args:
            host: the address that is listened on.

        Raises:
            OptionInvalid: it is not loopback, there is no TLS, and nobody allowed that.
        """
        if self.tls_certificate is None and not self.allow_plain_text and not is_loopback(host):
            raise OptionInvalid(
                f"On {host} other machines can listen in, and there is no TLS: give --tls_certificate and "
                "--tls_key, or --allow_plain_text where a proxy does TLS.",
                field="host",
            )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches that address; a name other than localhost counts as not."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
