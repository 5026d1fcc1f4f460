"""How a client shows who it is: TLS, and a token with every call."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import grpc

Metadata = tuple[tuple[str, str], ...]


def tls(
    ca: Path | str | None = None, *, certificate: Path | str | None = None, key: Path | str | None = None
) -> grpc.ChannelCredentials:
    """Credentials for `Client` and `AsyncClient` out of PEM files.

    Args:
        ca: the authorities that the service's certificate may come from; None is the public ones.
        certificate: the client's own certificate, for a service that asks for one (mTLS).
        key: its private key; both or neither.

    Raises:
        OSError: a file cannot be read.
        ValueError: one of certificate and key is missing.
    """
    if (certificate is None) != (key is None):
        raise ValueError("give both certificate and key, or neither")
    read = [None if path is None else Path(path).read_bytes() for path in (ca, key, certificate)]
    return grpc.ssl_channel_credentials(*read)


class Bearer:
    """A token that goes with every call.

    Args:
        token: its text, or the path of a file that holds nothing else, which is read for every call, so that the token
            may be replaced; None sends none.
        address: where it is sent.
        plain_text: whether the connection has no TLS.
        allow_plain_text: send it in plain text to other machines too.

    Raises:
        ValueError: the token would go to another machine in plain text, or cannot be sent at all.
    """

    def __init__(self, token: str | Path | None, address: str, *, plain_text: bool, allow_plain_text: bool) -> None:
        if token is not None and plain_text and not allow_plain_text and not _is_here(address):
            raise ValueError(
                f"a token would go to {address} in plain text, for all on the way to read: give credentials, such as "
                "saaa.client.tls(), or allow_plain_text where something else encrypts"
            )
        self._token = token
        if isinstance(token, str):
            _checked(token)

    def metadata(self) -> Metadata:
        """What goes with a call.

        Raises:
            OSError: the token's file cannot be read.
            ValueError: it holds no token.
        """
        if self._token is None:
            return ()
        text = self._token.read_text("ascii", "replace").strip() if isinstance(self._token, Path) else self._token
        return (("authorization", f"Bearer {_checked(text)}"),)


def _checked(text: str) -> str:
    # The token itself is not shown.
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError("a token is one word of printable ASCII characters")
    return text


def _is_here(address: str) -> bool:
    """Whether a gRPC target is on this machine."""
    scheme, _, rest = address.partition(":")
    if scheme in ("unix", "unix-abstract"):
        return True
    if scheme in ("dns", "ipv4", "ipv6"):
        address = rest.rpartition("/")[2]
    host = address.rpartition(":")[0] if address.count(":") == 1 or "]" in address else address
    host = host.strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
