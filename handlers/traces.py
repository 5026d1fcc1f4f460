"""A handler's part of a trace: one span a batch, under the facade's, with one for each part of the work, where
OTEL_EXPORTER_OTLP_ENDPOINT names a collector (OTLP over gRPC) and OpenTelemetry is installed."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from functools import cache
from typing import TYPE_CHECKING

from saaa import wire
from saaa.work import WorkBatch

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

ENDPOINT_VARIABLE = "OTEL_EXPORTER_OTLP_ENDPOINT"
"""OpenTelemetry's own name for the collector's URL; `saaa up --traces` sets it for its workers."""
SERVICE = "saaa-handler"
"""The handlers' `service.name`."""

_log = logging.getLogger(__name__)


Part = Callable[[str], contextlib.AbstractContextManager[object]]
"""Traces, under a name, what is done inside."""


@contextlib.contextmanager
def traced(header: bytes | bytearray, batch: WorkBatch) -> Iterator[Part]:
    """Trace what is done inside, where the batch's header brings a trace; gives what traces a part of it."""
    tracer = _tracer(os.environ.get(ENDPOINT_VARIABLE, ""))
    parent = wire.trace_of(header) if tracer is not None else ""
    if tracer is None or not parent:
        yield contextlib.nullcontext
        return
    from saaa.traces import context_of

    attributes = {"saaa.model": batch.model, "saaa.version": batch.version, "saaa.lane": batch.work.value}
    with tracer.start_as_current_span("handler", context=context_of(parent), attributes=attributes):
        yield tracer.start_as_current_span


@cache
def _tracer(endpoint: str) -> Tracer | None:
    if not endpoint:
        return None
    try:
        from saaa.traces import open_provider
    except ImportError as error:
        _log.warning("no traces: %s", error)
        return None
    return open_provider(endpoint, SERVICE).get_tracer(SERVICE)
