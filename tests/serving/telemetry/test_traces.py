"""Traces as a collector gets them over OTLP."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import grpc
import pytest

from benchmarks.otlp_collector import Collector, collecting
from saaa.errors import BackendFailed, OptionInvalid
from saaa.v1 import analysis_pb2 as pb
from serving.observer import BATCH_TRACE
from serving.settings import LaneSettings
from serving.telemetry.settings import TelemetrySettings
from tests.serving.pixel_backend import QUICK, PixelBackend, calling, photo, thing

ANALYZE = "saaa.v1.AnalysisService/Analyze"
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
GRAPH = pb.SceneGraph(objects=[thing(1)])


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


def traced(collector: Collector, **changes: Any) -> Any:
    return replace(QUICK, telemetry=TelemetrySettings(traces=collector.endpoint, **changes))


class Listening(PixelBackend):
    """Remembers under which trace each batch came."""

    def __init__(self) -> None:
        super().__init__()
        self.traces: list[str] = []

    async def run(self, batch: Any, *, timeout: float) -> Any:
        self.traces.append(BATCH_TRACE.get())
        return await super().run(batch, timeout=timeout)


async def test_a_call_continues_its_callers_trace_and_its_stages_and_batches_lie_in_it(collector: Collector) -> None:
    backend = Listening()
    backend.seconds = 0.05
    async with calling(backend, traced(collector)) as caller:
        metadata = (("traceparent", f"00-{TRACE}-{SPAN}-01"), ("x-request-id", "call-1"))
        await caller.stub.Analyze(pb.AnalyzeRequest(image=photo(), graph=GRAPH), metadata=metadata, timeout=20)
    # Leaving the facade sent everything.
    (call,) = collector.named(ANALYZE)
    assert (call.service, call.trace, call.parent) == ("saaa", TRACE, SPAN)
    assert call.attributes["saaa.request_id"] == "call-1"
    assert call.attributes["rpc.grpc.status_code"] == 0
    assert not call.failed
    below = [span for span in collector.spans if span is not call and span != call]
    assert {span.name for span in below} == {"decode", "classify", "caption", "batch"}
    assert {(span.trace, span.parent) for span in below} == {(TRACE, call.span)}
    for span in below:
        assert call.start_s - 0.01 <= span.start_s
        assert span.start_s + span.seconds <= call.start_s + call.seconds + 0.01
    batches = collector.named("batch")
    assert {span.attributes["saaa.lane"] for span in batches} == {"explain", "caption"}
    assert all(span.seconds >= 0.04 and span.attributes["saaa.batch_items"] == 1 for span in batches)
    # What computes is told the batch's span.
    assert sorted(backend.traces) == sorted(f"00-{TRACE}-{span.span}-01" for span in batches)


async def test_a_batch_of_several_calls_lies_in_the_first_and_links_to_the_others(collector: Collector) -> None:
    backend = PixelBackend()
    backend.seconds = 0.3
    lanes = LaneSettings(max_batch=4, max_in_flight=1, max_batch_s=100)
    async with calling(backend, traced(collector), predict=lanes) as caller:
        await asyncio.gather(*(caller.analyze(outputs=[pb.OUTPUT_PREDICTIONS]) for _ in range(5)))
    calls = {span.span: span for span in collector.named(ANALYZE)}
    assert len({span.trace for span in calls.values()}) == 5
    batches = collector.named("batch")
    shared = [span for span in batches if span.attributes["saaa.batch_items"] > 1]
    assert shared
    for span in shared:
        assert len(span.links) == span.attributes["saaa.batch_items"] - 1
        assert span.trace == calls[span.parent].trace
    served = [name for span in batches for name in (span.parent, *span.links)]
    assert sorted(served) == sorted(calls)


async def test_failures_show_whose_they_are(collector: Collector) -> None:
    backend = PixelBackend()
    async with calling(backend, traced(collector)) as caller:
        with pytest.raises(grpc.aio.AioRpcError):
            await caller.analyze(b"no picture")
        backend.broken = BackendFailed("no")
        with pytest.raises(grpc.aio.AioRpcError):
            await caller.analyze()
    theirs, ours = collector.named(ANALYZE)
    assert (theirs.failed, theirs.attributes["rpc.grpc.status_code"]) == (False, 3)
    assert (ours.failed, ours.attributes["rpc.grpc.status_code"]) == (True, 13)
    (batch,) = collector.named("batch")
    assert batch.failed


async def test_only_a_share_is_traced_but_callers_decide_for_themselves(collector: Collector) -> None:
    backend = Listening()
    async with calling(backend, traced(collector, traces_share=0.0)) as caller:
        await caller.analyze(outputs=[pb.OUTPUT_PREDICTIONS])
        request = pb.AnalyzeRequest(image=photo(), outputs=[pb.OUTPUT_PREDICTIONS])
        for parent in (f"00-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-00", "no trace at all"):
            await caller.stub.Analyze(request, metadata=(("traceparent", parent),), timeout=20)
    assert [span.parent for span in collector.named(ANALYZE)] == [SPAN]
    assert {span.trace for span in collector.spans} == {TRACE}
    assert [bool(trace) for trace in backend.traces] == [False, True, False, False]


async def test_a_collector_that_is_down_costs_no_call_and_little_at_the_end() -> None:
    with collecting() as gone:
        endpoint = gone.endpoint
    settings = replace(QUICK, telemetry=TelemetrySettings(traces=endpoint))
    async with calling(PixelBackend(), settings) as caller:
        assert (await caller.analyze()).predictions
        start = time.monotonic()
    assert time.monotonic() - start < 20


def test_without_opentelemetry_asking_for_traces_is_one_clear_error() -> None:
    code = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "opentelemetry":
            raise ImportError("not here")
sys.meta_path.insert(0, Refuse())
from saaa.errors import StartFailed
from serving.models.catalog import Catalog
from serving.telemetry.settings import TelemetrySettings
from serving.telemetry.telemetry import Telemetry
Telemetry(TelemetrySettings(metrics_port=0, journal="x"), Catalog(), "none")
try:
    Telemetry(TelemetrySettings(traces="http://127.0.0.1:1"), Catalog(), "none")
except StartFailed as error:
    print(error.message)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "install saaa[traces]" in done.stdout


def test_settings_are_checked() -> None:
    with pytest.raises(OptionInvalid, match="traces must be a URL such as"):
        TelemetrySettings(traces="127.0.0.1:4317")
    with pytest.raises(OptionInvalid, match="traces_share must be 0 to 1"):
        TelemetrySettings(traces_share=2)
