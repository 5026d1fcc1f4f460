"""The parts that were asked for, put together."""

from __future__ import annotations

from collections.abc import Sequence

from serving.catalog import Catalog
from serving.interceptors.base import CallInterceptor
from serving.interceptors.logs import LogInterceptor
from serving.interceptors.metrics import MetricsInterceptor
from serving.journal import Journal
from serving.observer import Observer, Observers
from serving.telemetry.endpoint import MetricsEndpoint
from serving.telemetry.metrics import Metrics
from serving.telemetry.settings import TelemetrySettings


class Telemetry:
    """What one facade tells its operators.

    Args:
        settings: which parts.
        catalog: the served models.
        backend: what computes.
    """

    def __init__(self, settings: TelemetrySettings, catalog: Catalog, backend: str) -> None:
        self._settings = settings
        self._metrics = None if settings.metrics_port is None else Metrics(catalog, backend)
        self._endpoint: MetricsEndpoint | None = None
        self._journal: Journal | None = None
        if settings.journal is not None:
            self._journal = Journal(
                settings.journal,
                max_bytes=settings.journal_max_bytes,
                files=settings.journal_files,
                lost=self._metrics.journal_lost if self._metrics else lambda: None,
            )

    @property
    def observer(self) -> Observer:
        """Whom the data plane tells."""
        return Observers([part for part in (self._metrics, self._journal) if part is not None])

    @property
    def interceptors(self) -> Sequence[CallInterceptor]:
        """The outer part of the chain, outermost first."""
        chain: list[CallInterceptor] = []
        if self._metrics is not None:
            chain.append(MetricsInterceptor(self._metrics))
        if self._settings.log_level in ("debug", "info"):
            chain.append(LogInterceptor())
        return chain

    @property
    def metrics_address(self) -> str | None:
        """host:port where metrics are read; None without them."""
        return self._endpoint.address if self._endpoint else None

    async def start(self) -> None:
        """Open what has to be opened.

        Raises:
            StartFailed: it cannot be.
        """
        if self._journal is not None:
            self._journal.open()
        if self._metrics is not None:
            port = self._settings.metrics_port or 0
            self._endpoint = MetricsEndpoint(self._metrics.registry, self._settings.metrics_host, port)

    async def close(self) -> None:
        """Close it again; once is enough."""
        if self._journal is not None:
            journal, self._journal = self._journal, None
            await journal.close()
        if self._endpoint is not None:
            endpoint, self._endpoint = self._endpoint, None
            await endpoint.close()
