"""Facades with real certificates and tokens, and ways to call them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import trustme

from serving.security.settings import SecuritySettings
from serving.server import Facade
from tests.serving.pixel_backend import QUICK, Caller, PixelBackend

HOST = "127.0.0.1"


def write_server(folder: Path, authority: trustme.CA, name: str = HOST) -> tuple[Path, Path]:
    """A certificate for the server, and its key, as files; those that are there are replaced."""
    certificate, key = folder / "server.pem", folder / "server.key"
    made = authority.issue_cert(name)
    key.write_bytes(made.private_key_pem.bytes())
    certificate.write_bytes(b"".join(part.bytes() for part in made.cert_chain_pems))
    return certificate, key


def tls(authority: trustme.CA, client: trustme.LeafCert | None = None) -> grpc.ChannelCredentials:
    """A client's credentials."""
    return grpc.ssl_channel_credentials(
        authority.cert_pem.bytes(),
        private_key=client.private_key_pem.bytes() if client else None,
        certificate_chain=client.cert_chain_pems[0].bytes() if client else None,
    )


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),)


@asynccontextmanager
async def secured(backend: Any = None, **security: Any) -> AsyncIterator[Facade]:
    """A facade with these security settings, whose files are looked at in every call."""
    settings = replace(QUICK, security=SecuritySettings(**{"poll_s": 0, **security}))
    async with Facade(backend or PixelBackend(), settings) as facade:
        yield facade


@asynccontextmanager
async def reached(facade: Facade, credentials: grpc.ChannelCredentials | None = None) -> AsyncIterator[Caller]:
    """A new connection to it; in plain text unless there are credentials."""
    # Without this, channels of the same arguments share a connection, and with it an older certificate.
    options = [("grpc.use_local_subchannel_pool", 1)]
    channel = (
        grpc.aio.secure_channel(facade.address, credentials, options=options)
        if credentials
        else grpc.aio.insecure_channel(facade.address, options=options)
    )
    async with channel:
        yield Caller(facade, channel)
