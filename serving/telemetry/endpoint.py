"""The port on which Prometheus reads."""

from __future__ import annotations

import asyncio

from prometheus_client import CollectorRegistry, disable_created_metrics, start_http_server

from saaa.errors import StartFailed


class MetricsEndpoint:
    """Answers GET /metrics from a thread of its own, so that a busy event loop does not hide how busy it is.

    Args:
        registry: what is told.
        host: address to listen on.
        port: port to listen on; 0 picks a free one.

    Raises:
        StartFailed: the address cannot be listened on.
    """

    def __init__(self, registry: CollectorRegistry, host: str, port: int) -> None:
        # The time at which each series began doubles what is sent, and nobody reads it.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        try:
            self._server, self._thread = start_http_server(port, addr=host, registry=registry)
        except OSError as error:
            raise StartFailed(
                f"Cannot serve metrics on {host}:{port} ({error.strerror or error}). Choose another port with "
                "--metrics_port (0 picks a free one)."
            ) from error
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
