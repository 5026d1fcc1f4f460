"""A handler's span, as a collector gets it."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks.otlp_collector import Collector, collecting
from handlers import traces
from handlers.egdd import EgddHandler
from saaa import wire
from saaa.work import Work, WorkBatch, WorkItem
from tests.tiny_models import EGDD_NAME, VERSION, make_pixels

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SPAN}-01"
BATCH = WorkBatch(
    model=EGDD_NAME, version=VERSION, work=Work.PREDICT, pixels=make_pixels(2), items=(WorkItem(), WorkItem())
)


@pytest.fixture(scope="module")
def handler(tiny_models: Path, tmp_path_factory: pytest.TempPathFactory) -> EgddHandler:
    folder = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(tiny_models / "egdd.mar") as packed:
        packed.extractall(folder)
    handler = EgddHandler()
    handler.initialize(SimpleNamespace(system_properties={"model_dir": str(folder)}))
    return handler


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


def ask(handler: EgddHandler, trace: str) -> None:
    header, pixels = wire.pack_batch(BATCH, trace=trace)
    (answer,) = handler.handle([{wire.HEADER_KEY: header, wire.PIXELS_KEY: pixels}], None)
    assert isinstance(answer, bytes)
    assert all(result.error is None for result in wire.unpack_results(answer, 2))


def test_the_handlers_span_lies_in_the_batchs(
    handler: EgddHandler, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(traces.ENDPOINT_VARIABLE, collector.endpoint)
    ask(handler, "")
    ask(handler, PARENT)
    (span,) = collector.wait_for("handler")
    assert (span.service, span.trace, span.parent) == (traces.SERVICE, TRACE, SPAN)
    assert span.attributes == {"saaa.model": EGDD_NAME, "saaa.version": VERSION, "saaa.lane": "predict"}
    assert span.seconds > 0
    parts = [told for told in collector.spans if told != span]
    assert [part.name for part in parts] == ["compute", "pack"]
    assert {(part.trace, part.parent) for part in parts} == {(TRACE, span.span)}
    assert span.start_s <= parts[0].start_s
    assert sum(part.seconds for part in parts) <= span.seconds


def test_nothing_is_traced_where_no_collector_is_named(handler: EgddHandler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(traces.ENDPOINT_VARIABLE, raising=False)
    ask(handler, PARENT)
    assert traces._tracer("") is None


def test_the_header_brings_the_trace_and_odd_headers_bring_none() -> None:
    header, pixels = wire.pack_batch(BATCH, trace=PARENT)
    assert wire.trace_of(header) == PARENT
    assert wire.trace_of(wire.pack_batch(BATCH)[0]) == ""
    assert wire.trace_of(b"\xff\xff no header") == ""
    batch = wire.unpack_batch(header, pixels)
    assert batch is not None
    assert batch.items == BATCH.items
