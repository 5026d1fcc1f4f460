"""What facade and handlers share of OpenTelemetry, an extra: import this only where traces are asked for."""

from __future__ import annotations

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

import saaa

_PROPAGATOR = TraceContextTextMapPropagator()
_EXPORT_S = 5.0
"""Longest time that the collector gets to take what is sent."""
_EVERY_MS = 1000
"""Spans are sent together, this often."""


def open_provider(endpoint: str, service: str, *, share: float = 1.0) -> TracerProvider:
    """Make what sends spans to a collector, from a thread of its own; a collector that is down costs spans only.

    Args:
        endpoint: URL of the collector (OTLP over gRPC); http:// is plain text.
        service: what the spans are of.
        share: of the traces that begin here, 0 to 1; those that a caller began are kept as the caller says.
    """
    resource = Resource.create({SERVICE_NAME: service, SERVICE_VERSION: saaa.__version__})
    provider = TracerProvider(resource=resource, sampler=ParentBased(TraceIdRatioBased(share)), shutdown_on_exit=False)
    exporter = OTLPSpanExporter(endpoint=endpoint, insecure=endpoint.startswith("http://"), timeout=_EXPORT_S)
    provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=_EVERY_MS))
    return provider


def context_of(traceparent: str, tracestate: str = "") -> Context:
    """The context of a caller's span, as W3C writes it; an empty one where it is malformed."""
    return _PROPAGATOR.extract({"traceparent": traceparent, "tracestate": tracestate}, Context())


def traceparent_of(span: trace.Span) -> str:
    """A span as W3C writes it, for those who work for it; empty where it has no identity."""
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier, trace.set_span_in_context(span, Context()))
    return carrier.get("traceparent", "")
