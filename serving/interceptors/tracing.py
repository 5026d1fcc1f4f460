"""One span a call. Imported only where traces are asked for: OpenTelemetry is an extra."""

from __future__ import annotations

import grpc
from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer

from saaa.traces import context_of
from serving.interceptors.base import Call, CallInterceptor, Proceed
from serving.interceptors.outcome import outcome

_OURS = {
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DATA_LOSS,
}
"""The codes that OpenTelemetry's conventions count as a server's fault."""


class TracingInterceptor(CallInterceptor):
    """Continues the caller's trace (W3C `traceparent` in the metadata), or begins one.

    Args:
        tracer: makes the spans.
    """

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    async def around(self, call: Call, proceed: Proceed) -> None:
        """The call's span is the current one inside; all that runs in its context belongs to it."""
        service, _, method = call.method.lstrip("/").partition("/")
        span = self._tracer.start_span(
            f"{service}/{method}",
            context=context_of(call.header("traceparent") or "", call.header("tracestate") or ""),
            kind=SpanKind.SERVER,
            attributes={
                "rpc.system": "grpc",
                "rpc.service": service,
                "rpc.method": method,
                "saaa.request_id": call.request_id,
            },
        )
        try:
            with trace.use_span(span, record_exception=False, set_status_on_exception=False):
                await proceed()
        except BaseException as error:
            _end(span, call, outcome(call, error))
            raise
        _end(span, call, outcome(call, None))


def _end(span: Span, call: Call, code: grpc.StatusCode) -> None:
    span.set_attribute("rpc.grpc.status_code", int(code.value[0]))
    if call.caller:
        span.set_attribute("saaa.caller", call.caller)
    if code in _OURS:
        span.set_status(Status(StatusCode.ERROR, code.name))
    span.end()
