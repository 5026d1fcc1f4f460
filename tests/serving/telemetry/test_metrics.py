"""Metrics as Prometheus reads them: over HTTP, through its own parser, from a facade that works."""

from __future__ import annotations

import asyncio
import re
import urllib.request
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from saaa.errors import BackendFailed, OptionInvalid, StartFailed
from saaa.v1 import analysis_pb2 as pb
from saaa.v1.feedback_pb2_grpc import FeedbackServiceStub
from saaa.work import Execution, ItemResult, Work, WorkBatch
from serving.lanes.lanes import BatchKey
from serving.models.catalog import Catalog
from serving.server import Facade, check_free
from serving.settings import LaneSettings
from serving.telemetry.metrics import MAX_CLASSES, MAX_MODELS, Metrics
from serving.telemetry.settings import TelemetrySettings
from tests.serving.contract.test_feedback import request as rating
from tests.serving.pixel_backend import (
    CAPTIONER,
    CLASSES,
    CLASSIFIER,
    QUICK,
    Caller,
    PixelBackend,
    calling,
    photo,
    plain,
)

SETTINGS = replace(QUICK, telemetry=TelemetrySettings(metrics_port=0))
ANALYZE = {"grpc_type": "unary", "grpc_service": "saaa.v1.AnalysisService", "grpc_method": "Analyze"}
PREDICT = {"lane": "predict", "model": "colours", "version": "1"}
PREDICTIONS = [pb.OUTPUT_PREDICTIONS]


class Samples:
    """One reading."""

    def __init__(self, text: str) -> None:
        self.families = {family.name: family for family in text_string_to_metric_families(text)}
        self.all = [sample for family in self.families.values() for sample in family.samples]

    def value(self, name: str, **labels: str) -> float:
        """The sample of that name and exactly these labels; 0 where there is none."""
        found = [sample.value for sample in self.all if sample.name == name and sample.labels == labels]
        assert len(found) <= 1
        return found[0] if found else 0.0


def scrape(address: str | None) -> Samples:
    assert address is not None
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain")
        return Samples(answer.read().decode())


async def read(caller: Caller) -> Samples:
    return await asyncio.to_thread(scrape, caller.facade.metrics_address)


async def read_until(caller: Caller, name: str, value: float, **labels: str) -> Samples:
    """Read until a sample has its value: a caller has its answer a moment before the call has ended."""
    end = asyncio.get_running_loop().time() + 30
    while (samples := await read(caller)).value(name, **labels) != value:
        assert asyncio.get_running_loop().time() < end, f"{name} {labels} is {samples.value(name, **labels)}"
        await asyncio.sleep(0.02)
    return samples


class Gated(PixelBackend):
    """Holds every batch back until its gate is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.came = asyncio.Event()

    async def run(self, batch: WorkBatch, *, timeout: float) -> list[ItemResult]:
        self.came.set()
        await self.gate.wait()
        return await super().run(batch, timeout=timeout)


async def test_calls_are_counted_by_method_and_status_with_their_messages_and_times() -> None:
    async with calling(PixelBackend(), SETTINGS) as caller:
        await caller.analyze(outputs=PREDICTIONS)
        await caller.analyze(outputs=PREDICTIONS)
        with pytest.raises(grpc.aio.AioRpcError):
            await caller.analyze(image=b"no picture")
        stream = caller.stub.AnalyzeStream(timeout=20)
        for name in "abc":
            await stream.write(pb.AnalyzeStreamRequest(item_id=name, request=pb.AnalyzeRequest(image=photo())))
        await stream.done_writing()
        assert len([answer async for answer in stream]) == 3
        samples = await read_until(caller, "grpc_server_handled_total", 1, **ANALYZE, grpc_code="INVALID_ARGUMENT")
        assert samples.value("grpc_server_started_total", **ANALYZE) == 3
        assert samples.value("grpc_server_handled_total", **ANALYZE, grpc_code="OK") == 2
        assert samples.value("grpc_server_handling_seconds_count", **ANALYZE) == 3
        assert 0 < samples.value("grpc_server_handling_seconds_sum", **ANALYZE) < 60
        assert samples.value("grpc_server_msg_received_total", **ANALYZE) == 3
        assert samples.value("grpc_server_msg_sent_total", **ANALYZE) == 2
        streamed = ANALYZE | {"grpc_type": "bidi_stream", "grpc_method": "AnalyzeStream"}
        samples = await read_until(caller, "grpc_server_handled_total", 1, **streamed, grpc_code="OK")
        assert samples.value("grpc_server_msg_received_total", **streamed) == 3
        assert samples.value("grpc_server_msg_sent_total", **streamed) == 3


async def test_callers_who_leave_and_deadlines_that_pass_are_told_apart() -> None:
    backend = PixelBackend()
    async with calling(backend, SETTINGS) as caller:
        backend.seconds = 0.4
        await caller.analyze(outputs=PREDICTIONS)
        call = caller.stub.Analyze(pb.AnalyzeRequest(image=photo(), outputs=PREDICTIONS), timeout=20)
        while len(backend.batches) < 2:
            await asyncio.sleep(0.01)
        call.cancel()
        await read_until(caller, "grpc_server_handled_total", 1, **ANALYZE, grpc_code="CANCELLED")
        await asyncio.sleep(0.5)
        with pytest.raises(grpc.aio.AioRpcError):
            await caller.analyze(outputs=PREDICTIONS, timeout=0.2)
        samples = await read_until(caller, "grpc_server_handled_total", 1, **ANALYZE, grpc_code="DEADLINE_EXCEEDED")
        assert samples.value("saaa_lane_lost_total", **PREDICT, reason="late") >= 1


async def test_lanes_batches_and_stages() -> None:
    backend = Gated()
    lanes = LaneSettings(max_batch=2, max_in_flight=1, max_batch_s=100)
    async with calling(backend, SETTINGS, predict=lanes) as caller:
        calls = [asyncio.create_task(caller.analyze(outputs=PREDICTIONS)) for _ in range(4)]
        await read_until(caller, "saaa_stage_seconds_count", 4, stage="decode")
        samples = await read_until(caller, "saaa_lane_batches_in_flight", 1, **PREDICT)
        gone = samples.value("saaa_batch_items_sum", **PREDICT)
        assert gone in (1, 2)
        assert samples.value("saaa_lane_waiting", **PREDICT) == 4 - gone
        await asyncio.sleep(0.1)
        backend.gate.set()
        await asyncio.gather(*calls)
        samples = await read_until(caller, "saaa_lane_batches_in_flight", 0, **PREDICT)
    assert samples.value("saaa_lane_waiting", **PREDICT) == 0
    assert samples.value("saaa_batch_items_sum", **PREDICT) == 4
    assert samples.value("saaa_batch_items_count", **PREDICT) == len(backend.batches)
    assert samples.value("saaa_batch_seconds_count", **PREDICT) == len(backend.batches)
    assert samples.value("saaa_batch_seconds_sum", **PREDICT) >= 0.1
    assert samples.value("saaa_lane_wait_seconds_count", **PREDICT) == 4
    assert samples.value("saaa_lane_wait_seconds_sum", **PREDICT) >= 0.1
    for stage in ("decode", "classify", "total"):
        assert samples.value("saaa_stage_seconds_count", stage=stage) == 4


async def test_what_is_shed_expires_or_is_abandoned() -> None:
    backend = Gated()
    lanes = LaneSettings(max_batch=1, max_in_flight=1, max_waiting=2, first_estimate_s=1e-6)
    async with calling(backend, SETTINGS, predict=lanes) as caller:

        def ask(timeout: float = 60) -> asyncio.Task[pb.AnalyzeResponse]:
            return asyncio.create_task(caller.analyze(outputs=PREDICTIONS, timeout=timeout))

        running = ask()
        await backend.came.wait()
        late, left = ask(timeout=4), ask()
        await read_until(caller, "saaa_lane_waiting", 2, **PREDICT)
        with pytest.raises(grpc.aio.AioRpcError) as shed:
            await ask()
        assert shed.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        left.cancel()
        await asyncio.gather(left, late, return_exceptions=True)
        await asyncio.sleep(0.1)  # gRPC rounds deadlines up on the way: the service's is a little later
        await read_until(caller, "saaa_lane_waiting", 0, **PREDICT)
        backend.gate.set()
        await running
        await caller.analyze(outputs=PREDICTIONS)
        samples = await read(caller)
    assert samples.value("saaa_lane_shed_total", **PREDICT) == 1
    assert samples.value("saaa_lane_lost_total", **PREDICT, reason="expired") == 1
    assert samples.value("saaa_lane_lost_total", **PREDICT, reason="abandoned") == 1
    assert samples.value("saaa_lane_lost_total", **PREDICT, reason="late") == 0
    assert len(backend.batches) == 2


async def test_failures_have_their_reason_and_the_backend_its_state() -> None:
    backend = PixelBackend()
    async with calling(backend, SETTINGS) as caller:
        with pytest.raises(grpc.aio.AioRpcError):
            await caller.analyze(plain((255, 255, 255)), outputs=PREDICTIONS)
        backend.broken = BackendFailed("no")
        with pytest.raises(grpc.aio.AioRpcError):
            await caller.analyze(outputs=PREDICTIONS)
        samples = await read(caller)
        assert samples.value("saaa_item_failures_total", **PREDICT, reason="IMAGE_REJECTED") == 1
        assert samples.value("saaa_batch_failures_total", **PREDICT, reason="BACKEND_FAILED") == 1
        assert samples.value("saaa_backend_ready", backend="pixels") == 1
        assert samples.value("saaa_model_ready", model="colours", version="1") == 1
        backend.down = True
        samples = await read_until(caller, "saaa_backend_ready", 0, backend="pixels")
        assert samples.value("saaa_model_ready", model="words", version="2") == 0


async def test_runtimes_fallbacks_and_what_was_computed_again() -> None:
    class Again(PixelBackend):
        async def run(self, batch: WorkBatch, *, timeout: float) -> list[ItemResult]:
            return [replace(result, recomputed=True) for result in await super().run(batch, timeout=timeout)]

    fast = replace(CLASSIFIER, execution=Execution(runtime="openvino", precision="bf16"))
    slow = replace(CLASSIFIER, version="2", execution=Execution(runtime="torch", precision="fp32", refused="fp32: no"))
    async with calling(Again(fast, slow, CAPTIONER), SETTINGS) as caller:
        await caller.analyze(outputs=PREDICTIONS)
        samples = await read_until(caller, "saaa_items_recomputed_total", 1, **PREDICT | {"version": "2"})
    both = {("1", "openvino", "bf16"), ("2", "torch", "fp32")}
    for version, runtime, precision in both:
        labels = {"model": "colours", "version": version, "runtime": runtime, "precision": precision}
        assert samples.value("saaa_model_runtime", **labels) == 1
        assert samples.value("saaa_model_fallback", model="colours", version=version) == (runtime == "torch")
    # A backend that does not tell has no samples.
    assert len(samples.families["saaa_model_runtime"].samples) == len(both)


async def test_names_are_prometheus_own_and_explained_and_no_label_is_the_callers() -> None:
    async with calling(PixelBackend(), SETTINGS) as caller:
        secret = "callers-own-words"
        await caller.analyze(outputs=PREDICTIONS, request_id=secret)
        for method in ("/saaa.v1.AnalysisService/Callers-own-words", "/callers-own-words/Analyze"):
            with pytest.raises(grpc.aio.AioRpcError) as failure:
                await caller.channel.unary_unary(method)(b"", metadata=(("callers-own-words", secret),))
            assert failure.value.code() is grpc.StatusCode.UNIMPLEMENTED
        with pytest.raises(grpc.aio.AioRpcError):
            await caller.analyze(classifier=pb.ModelSelector(name=secret))
        samples = await read(caller)
    ours = [family for name, family in samples.families.items() if name.startswith(("saaa_", "grpc_"))]
    assert len(ours) > 12
    for family in ours:
        assert re.fullmatch(r"[a-z][a-z0-9_]*", family.name)
        assert family.documentation.endswith(".")
        assert family.type in ("counter", "gauge", "histogram")
    assert not any(secret in value for sample in samples.all for value in sample.labels.values())
    assert not any(sample.name.endswith("_created") for sample in samples.all)
    assert "process_resident_memory_bytes" in samples.families


def test_models_beyond_the_bound_are_counted_together() -> None:
    metrics = Metrics(Catalog(), "none")
    for number in range(MAX_MODELS + 50):
        metrics.refused(BatchKey(model="m", version=str(number), work=Work.PREDICT))
    metrics.refused(BatchKey(model="m", version="0", work=Work.PREDICT))
    (family,) = [family for family in metrics.registry.collect() if family.name == "saaa_lane_shed"]
    totals = {sample.labels["version"]: sample.value for sample in family.samples if sample.name.endswith("_total")}
    assert len(totals) == MAX_MODELS + 1
    assert totals["other"] == 50
    assert totals["0"] == 2


async def test_no_port_unless_asked_for_and_one_that_is_taken_is_one_clear_error() -> None:
    async with calling(PixelBackend()) as caller:
        assert caller.facade.metrics_address is None
    async with calling(PixelBackend(), SETTINGS) as caller:
        address = caller.facade.metrics_address or ""
        port = int(address.rpartition(":")[2])
        backend = PixelBackend(CLASSIFIER)
        with pytest.raises(StartFailed, match=f"{port}.*--metrics_port"):
            async with Facade(backend, replace(QUICK, telemetry=TelemetrySettings(metrics_port=port))):
                pass
        assert backend.closed
        with pytest.raises(StartFailed, match=f"{port}.*--metrics_port"):
            check_free(replace(QUICK, telemetry=TelemetrySettings(metrics_port=port)))
    # Leaving the facade frees the port.
    with pytest.raises(OSError, match="refused"):
        await asyncio.to_thread(scrape, address)


def test_settings_are_checked() -> None:
    with pytest.raises(OptionInvalid, match="metrics_port must be 0 to 65535"):
        TelemetrySettings(metrics_port=70000)
    with pytest.raises(OptionInvalid, match="metrics_host"):
        TelemetrySettings(metrics_host="")


async def test_classes_and_maps_of_answers_are_counted_with_what_they_cost() -> None:
    async with calling(PixelBackend(), SETTINGS) as caller:
        for colour in ((200, 30, 30), (200, 30, 30), (30, 30, 200)):
            await caller.analyze(photo(colour), outputs=PREDICTIONS)
        await caller.analyze(
            photo((30, 200, 30)),
            outputs=[pb.OUTPUT_PREDICTIONS, pb.OUTPUT_ATTRIBUTIONS],
            attribution=pb.AttributionOptions(method="integrated_gradients", classes=["red", "blue"]),
        )
        samples = await read(caller)
    model = {"model": "colours", "version": "1"}
    counts = {name: samples.value("saaa_predicted_classes_total", **model, **{"class": name}) for name in CLASSES}
    assert counts == {"red": 2, "green": 1, "blue": 1}
    assert samples.value("saaa_attributions_total", **model, method="integrated_gradients") == 2
    assert samples.value("saaa_attribution_forwards_total", **model, method="integrated_gradients") == 64


def test_classes_beyond_the_bound_are_counted_together() -> None:
    metrics = Metrics(Catalog(), "none")
    counted = [metrics._class(CLASSIFIER, str(number))[2] for number in range(MAX_CLASSES + 5)]
    assert counted.count("other") == 5
    assert metrics._class(CLASSIFIER, "0")[2] == "0"


async def test_a_rating_that_is_sent_again_is_counted_once(tmp_path: Path) -> None:
    async with calling(PixelBackend(), SETTINGS, ratings=tmp_path / "ratings.db") as caller:
        for name in ("one", "one", "two", "one"):
            await FeedbackServiceStub(caller.channel).RecordRating(rating(name), timeout=20)
        samples = await read(caller)
    assert samples.value("saaa_ratings_total", task="relevance") == 2
    assert samples.value("saaa_rating_relevance_count") == 2


def test_ratings_are_counted_by_task_and_relevance() -> None:
    metrics = Metrics(Catalog(), "none")
    for relevance in (1, 4.5, 5, None):
        metrics.rated(relevance)
    samples = Samples(generate_latest(metrics.registry).decode())
    assert samples.value("saaa_ratings_total", task="relevance") == 3
    assert samples.value("saaa_ratings_total", task="human_graph") == 1
    assert samples.value("saaa_rating_relevance_bucket", le="4.0") == 1
    assert samples.value("saaa_rating_relevance_sum") == 10.5
