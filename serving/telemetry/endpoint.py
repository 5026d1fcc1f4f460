"""The port on which Prometheus reads."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from prometheus_client import CollectorRegistry, disable_created_metrics, start_http_server

from saaa.errors import NotPermitted, SaaaError, StartFailed
from serving.security.gate import Gate


class MetricsEndpoint:
    """Answers GET /metrics from a thread of its own, so that a busy event loop does not hide how busy it is.

    Args:
        registry: what is told.
        host: address to listen on.
        port: port to listen on; 0 picks a free one.
        gate: judges who asks.

    Raises:
        StartFailed: the address cannot be listened on.
    """

    def __init__(self, registry: CollectorRegistry, host: str, port: int, gate: Gate) -> None:
        # The time at which each series began doubles what is sent, and nobody reads it.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        try:
            self._server, self._thread = start_http_server(port, addr=host, registry=registry)
        except OSError as error:
            raise cannot_serve_metrics(host, port) from error
        self._server.set_app(_guarded(self._server.get_app(), gate))
        self._host = host

    @property
    def address(self) -> str:
        """host:port that it listens on."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{host}:{self._server.server_port}"

    async def close(self) -> None:
        """Stop listening."""
        await asyncio.to_thread(self._server.shutdown)
        self._server.server_close()
        self._thread.join()


def cannot_serve_metrics(host: str, port: int) -> StartFailed:
    """The error of an address that cannot be listened on."""
    return StartFailed(
        f"Cannot serve metrics on {host}:{port}: the port is in use or the address is not this machine's. Choose "
        "another with --metrics_port (0 picks a free one) or --metrics_host."
    )


def _guarded(answer: Any, gate: Gate) -> Any:
    """The WSGI application behind the gate."""

    def guarded(environment: dict[str, Any], start: Any) -> Iterable[bytes]:
        try:
            gate.check_metrics(environment.get("HTTP_AUTHORIZATION"))
        except SaaaError as error:
            status = "403 Forbidden" if isinstance(error, NotPermitted) else "401 Unauthorized"
            start(status, [("Content-Type", "text/plain; charset=utf-8"), ("WWW-Authenticate", "Bearer")])
            return [error.message.encode()]
        answered: Iterable[bytes] = answer(environment, start)
        return answered

    return guarded
