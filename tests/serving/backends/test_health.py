"""Health over real gRPC, while the backend comes and goes."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from saaa.errors import StartFailed
from saaa.v1 import analysis_pb2 as pb
from saaa.work import Execution
from tests.serving.pixel_backend import CAPTIONER, CLASSIFIER, QUICK, Caller, PixelBackend, calling

SERVICE = "saaa.v1.AnalysisService"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
PATIENT = 10.0


async def health(caller: Caller, service: str = SERVICE) -> int:
    stub = health_pb2_grpc.HealthStub(caller.channel)
    return (await stub.Check(health_pb2.HealthCheckRequest(service=service))).status


async def becomes(wanted: int, look: Callable[[], Awaitable[int]]) -> None:
    async with asyncio.timeout(PATIENT):
        while await look() != wanted:
            await asyncio.sleep(0.01)


async def test_serving_as_a_whole_by_service_and_by_model() -> None:
    async with calling(PixelBackend()) as caller:
        for name in ("", SERVICE, "inference.GRPCInferenceService", "model/colours", "model/words"):
            assert await health(caller, name) == SERVING
        with pytest.raises(grpc.aio.AioRpcError) as unknown:
            await health(caller, "model/nobody")
        assert unknown.value.code() is grpc.StatusCode.NOT_FOUND


async def test_outage_is_told_and_survived_without_a_restart() -> None:
    backend = PixelBackend()
    async with calling(backend) as caller:
        assert (await caller.analyze()).predictions
        backend.down = True
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await caller.analyze()
        assert failure.value.code() is grpc.StatusCode.UNAVAILABLE
        for name in ("", SERVICE, "model/words"):
            await becomes(NOT_SERVING, lambda name=name: health(caller, name))
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await caller.analyze()
        assert failure.value.code() is grpc.StatusCode.UNAVAILABLE
        listed = (await caller.stub.ListModels(pb.ListModelsRequest())).models
        assert [model.ready for model in listed] == [False, False]
        backend.down = False
        # What is served may have changed meanwhile.
        backend.models = (replace(CLASSIFIER, version="2", digest="c" * 64),)
        await becomes(SERVING, lambda: health(caller))
        answer = await caller.analyze()
        assert answer.provenance.classifier.archive_sha256 == "c" * 64
        assert await health(caller, "model/words") == NOT_SERVING


async def test_starts_before_its_backend() -> None:
    backend = PixelBackend()
    backend.down = True
    async with calling(backend) as caller:
        assert await health(caller, "") == NOT_SERVING
        for call in (caller.analyze(), caller.stub.ListModels(pb.ListModelsRequest())):
            with pytest.raises(grpc.aio.AioRpcError) as failure:
                await call
            assert failure.value.code() is grpc.StatusCode.UNAVAILABLE
        # A wrong request is told all the same: trying again would not help it.
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await caller.analyze(b"no picture")
        assert failure.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        backend.down = False
        await becomes(SERVING, lambda: health(caller))
        assert (await caller.analyze()).predictions


async def test_watchers_hear_of_an_outage() -> None:
    backend = PixelBackend()
    async with calling(backend) as caller:
        stub = health_pb2_grpc.HealthStub(caller.channel)
        watch = stub.Watch(health_pb2.HealthCheckRequest(service=SERVICE), timeout=PATIENT)
        assert (await watch.read()).status == SERVING
        backend.down = True
        while (await watch.read()).status != NOT_SERVING:
            pass
        watch.cancel()


async def test_a_model_that_is_served_no_more_is_not_serving() -> None:
    backend = PixelBackend()
    async with calling(backend) as caller:
        assert await health(caller, "model/words") == SERVING
        backend.models = (CLASSIFIER,)
        await becomes(NOT_SERVING, lambda: health(caller, "model/words"))
        assert await health(caller, "model/colours") == SERVING
        await becomes(SERVING, lambda: health(caller))


async def test_a_runtime_that_was_refused_is_told_once_in_the_log_and_in_health(
    caplog: pytest.LogCaptureFixture,
) -> None:
    refused = Execution(runtime="torch", precision="fp32", refused="openvino is not usable here")
    fell_back = replace(CLASSIFIER, version="2", digest="d" * 64, execution=refused)
    backend = PixelBackend(fell_back, CAPTIONER)
    async with calling(backend) as caller:
        assert await health(caller, "runtime/colours") == NOT_SERVING
        assert await health(caller, "model/colours") == await health(caller) == SERVING
        assert await health(caller, "runtime/words") == SERVING
        model = (await caller.stub.GetModel(pb.GetModelRequest(name="colours"))).model
        assert model.execution == pb.Execution(**vars(refused))
        # It is read again, and told no second time.
        backend.down = True
        await becomes(NOT_SERVING, lambda: health(caller))
        backend.down = False
        await becomes(SERVING, lambda: health(caller))
        told = [record.getMessage() for record in caplog.records if "is computed by" in record.getMessage()]
        assert told == ["model colours 2 is computed by torch: openvino is not usable here"]
        backend.models = (
            replace(fell_back, version="3", execution=Execution(runtime="openvino", precision="bf16")),
            CAPTIONER,
        )
        await becomes(SERVING, lambda: health(caller, "runtime/colours"))


async def test_probes_have_a_plain_port_of_their_own_where_the_process_is_one_name() -> None:
    backend = PixelBackend()
    settings = replace(QUICK, health_port=0)
    async with calling(backend, settings) as caller:
        assert caller.facade.health_address is not None
        async with grpc.aio.insecure_channel(caller.facade.health_address) as channel:
            stub = health_pb2_grpc.HealthStub(channel)

            async def probe(service: str) -> int:
                return (await stub.Check(health_pb2.HealthCheckRequest(service=service))).status

            assert await probe("alive") == await probe(SERVICE) == SERVING
            backend.down = True
            with pytest.raises(grpc.aio.AioRpcError):
                await caller.analyze()
            await becomes(NOT_SERVING, lambda: probe(SERVICE))
            assert await probe("alive") == SERVING
            # Nothing else is to be had there, whatever guards the main port.
            analyze = channel.unary_unary("/saaa.v1.AnalysisService/Analyze")
            with pytest.raises(grpc.aio.AioRpcError) as failure:
                await analyze(b"")
            assert failure.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_health_port_that_is_taken_is_told(caller_port: int) -> None:
    with pytest.raises(StartFailed, match="--health_port"):
        async with calling(PixelBackend(), replace(QUICK, health_port=caller_port)):
            pass


@pytest.fixture
def caller_port() -> Iterator[int]:
    """A port of loopback that somebody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        yield taken.getsockname()[1]


async def test_what_the_health_service_does_not_have_is_unimplemented() -> None:
    async with calling(PixelBackend()) as caller:
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await health_pb2_grpc.HealthStub(caller.channel).List(health_pb2.HealthListRequest(), timeout=20)
        assert failure.value.code() is grpc.StatusCode.UNIMPLEMENTED
