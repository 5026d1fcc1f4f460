"""OpenTelemetry traces: a span a call, below it one a stage and one a batch, below that the handler's.

A batch serves several calls: its span is a child of the first one's, and links to the others'. Imported only where
traces are asked for.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode

from saaa.errors import SaaaError
from saaa.traces import open_provider, traceparent_of
from saaa.work import ItemResult
from serving.interceptors.tracing import TracingInterceptor
from serving.observer import BATCH_TRACE, Flight, Observer

SERVICE = "saaa"
"""The facade's `service.name`."""


class Traces(Observer):
    """Makes the spans of stages and batches.

    Args:
        endpoint: URL of the collector.
        share: of the calls that are traced, 0 to 1.
    """

    def __init__(self, endpoint: str, share: float) -> None:
        self._provider = open_provider(endpoint, SERVICE, share=share)
        self._tracer = self._provider.get_tracer(SERVICE)
        self._flying: dict[str, Span] = {}
        self.interceptor = TracingInterceptor(self._tracer)
        """Makes the spans of calls."""

    def staged(self, stage: str, seconds: float) -> None:
        """See `Observer`."""
        if stage != "total" and trace.get_current_span().is_recording():
            end = time.time_ns()
            self._tracer.start_span(stage, start_time=end - round(seconds * 1e9)).end(end)

    def departed(self, flight: Flight) -> None:
        """See `Observer`."""
        asking = [context.run(trace.get_current_span) for context in flight.contexts]
        batch = flight.batch
        span = self._tracer.start_span(
            "batch",
            context=trace.set_span_in_context(asking[0], Context()),
            kind=SpanKind.CLIENT,
            links=[Link(other.get_span_context()) for other in asking[1:]],
            attributes={
                "saaa.lane": batch.work.value,
                "saaa.model": batch.model,
                "saaa.version": batch.version,
                "saaa.batch_items": len(batch.items),
                "saaa.longest_wait_s": max(flight.waits),
            },
        )
        self._flying[flight.id] = span
        if span.is_recording():
            BATCH_TRACE.set(traceparent_of(span))

    def landed(self, flight: Flight, outcome: Sequence[ItemResult] | BaseException, seconds: float) -> None:
        """See `Observer`."""
        span = self._flying.pop(flight.id)
        if isinstance(outcome, BaseException):
            reason = outcome.reason if isinstance(outcome, SaaaError) else type(outcome).__name__
            span.set_status(Status(StatusCode.ERROR, reason))
        span.end()

    async def close(self) -> None:
        """Send what is left, for as long as the exporter's own bound allows."""
        await asyncio.to_thread(self._provider.shutdown)
