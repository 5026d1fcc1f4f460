"""The parts that were asked for, put together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from saaa.errors import StartFailed
from serving.interceptors.base import CallInterceptor
from serving.interceptors.logs import LogInterceptor
from serving.interceptors.metrics import MetricsInterceptor
from serving.models.catalog import Catalog
from serving.observer import Observer, Observers
from serving.security.gate import Gate
from serving.telemetry.endpoint import MetricsEndpoint
from serving.telemetry.journal import Journal
from serving.telemetry.metrics import Metrics
from serving.telemetry.settings import TelemetrySettings

if TYPE_CHECKING:
    from serving.telemetry.traces import Traces


class Telemetry:
    """What one facade tells its operators.

    Args:
        settings: which parts.
        catalog: the served models.
        backend: what computes.

    Raises:
        StartFailed: OpenTelemetry is asked for and not installed.
    """

    def __init__(self, settings: TelemetrySettings, catalog: Catalog, backend: str) -> None:
        self._settings = settings
        self._metrics = None if settings.metrics_port is None else Metrics(catalog, backend)
        self._endpoint: MetricsEndpoint | None = None
        self._journal: Journal | None = None
        self._traces: Traces | None = None
        if settings.traces is not None:
            self._traces = _make_traces(settings.traces, settings.traces_share)
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
        return Observers([part for part in (self._metrics, self._journal, self._traces) if part is not None])

    @property
    def interceptors(self) -> Sequence[CallInterceptor]:
        """The outer part of the chain, outermost first."""
        chain: list[CallInterceptor] = []
        if self._metrics is not None:
            chain.append(MetricsInterceptor(self._metrics))
        if self._settings.log_level in ("debug", "info"):
            chain.append(LogInterceptor())
        if self._traces is not None:
            chain.append(self._traces.interceptor)
        return chain

    @property
    def metrics_address(self) -> str | None:
        """host:port where metrics are read; None without them."""
        return self._endpoint.address if self._endpoint else None

    async def start(self, gate: Gate) -> None:
        """Open what has to be opened.

        Args:
            gate: judges who reads the metrics.

        Raises:
            StartFailed: it cannot be.
        """
        if self._journal is not None:
            self._journal.open()
        if self._metrics is not None:
            port = self._settings.metrics_port or 0
            self._endpoint = MetricsEndpoint(self._metrics.registry, self._settings.metrics_host, port, gate)

    async def close(self) -> None:
        """Close it again; once is enough."""
        if self._journal is not None:
            journal, self._journal = self._journal, None
            await journal.close()
        if self._traces is not None:
            await self._traces.close()
        if self._endpoint is not None:
            endpoint, self._endpoint = self._endpoint, None
            await endpoint.close()


def _make_traces(endpoint: str, share: float) -> Traces:
    try:
        from serving.telemetry.traces import Traces
    except ImportError as error:
        raise StartFailed(
            f"Traces need OpenTelemetry, which is not usable here ({error}); install saaa[traces]."
        ) from error
    return Traces(endpoint, share)
