"""Over real gRPC: full lanes, slow and failing backends, one bad image among others, callers who left."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from saaa.errors import BackendFailed
from saaa.v1 import analysis_pb2 as pb
from saaa.work import ItemResult, Work, WorkBatch
from serving.settings import LaneSettings
from tests.serving.pixel_backend import Caller, PixelBackend, Refusal, calling, photo, plain, refusal


class Held(PixelBackend):
    """Does nothing of one kind of work until it is told."""

    def __init__(self, work: Work) -> None:
        super().__init__()
        self.work = work
        self.open = asyncio.Event()

    async def run(self, batch: WorkBatch, *, timeout: float) -> list[ItemResult]:
        if batch.work is self.work:
            await self.open.wait()
        return await super().run(batch, timeout=timeout)


async def test_one_bad_image_leaves_the_others_of_its_batch_alone(caller: Caller, backend: PixelBackend) -> None:
    backend.seconds = 0.1
    white = plain((255, 255, 255))
    outputs = [pb.OUTPUT_PREDICTIONS]
    calls = [caller.analyze(image, outputs=outputs) for image in [photo(), photo(), photo(), white, photo((0, 0, 250))]]
    results = await asyncio.gather(*calls, return_exceptions=True)
    told = Refusal(results.pop(3))
    assert (told.code, told.reason, set(told.fields)) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "IMAGE_REJECTED",
        {"image"},
    )
    assert [answer.predictions[0].label for answer in results] == ["red", "red", "red", "blue"]


async def test_full_lane_says_when_to_come_back() -> None:
    backend = Held(Work.PREDICT)
    lane = LaneSettings(max_batch=1, first_estimate_s=4.0)
    async with calling(backend, predict=lane) as caller:
        outputs = [pb.OUTPUT_PREDICTIONS]
        running = [asyncio.create_task(caller.analyze(outputs=outputs, timeout=60)) for _ in range(4)]
        predict = caller.facade.analysis.lanes[Work.PREDICT]
        while predict.in_flight + predict.waiting < 4:
            await asyncio.sleep(0.005)
        told = await refusal(caller.analyze(outputs=outputs, timeout=15))
        assert (told.code, told.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "LANE_FULL")
        # 16 seconds of work lie ahead and its own 4 follow: 5 too late.
        assert told.retry_s is not None
        assert 1 < told.retry_s < 10
        backend.open.set()
        await asyncio.gather(*running)


async def test_slow_explanations_do_not_starve_predictions() -> None:
    backend = Held(Work.EXPLAIN)
    async with calling(backend) as caller:
        explains = [asyncio.create_task(caller.analyze(outputs=[pb.OUTPUT_ATTRIBUTIONS])) for _ in range(12)]
        while not caller.facade.analysis.lanes[Work.EXPLAIN].in_flight:
            await asyncio.sleep(0.005)
        await caller.analyze(outputs=[pb.OUTPUT_PREDICTIONS])
        assert not any(task.done() for task in explains)
        backend.open.set()
        await asyncio.gather(*explains)


async def test_deadline_of_the_service_ends_a_call_without_one(backend: PixelBackend) -> None:
    async with calling(backend, default_deadline_s=0.2) as caller:
        backend.seconds = 1.0
        told = await refusal(caller.stub.Analyze(pb.AnalyzeRequest(image=photo())))
        assert (told.code, told.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")


async def test_unforeseen_failure_is_opaque(
    caller: Caller, backend: PixelBackend, caplog: pytest.LogCaptureFixture
) -> None:
    backend.broken = ValueError("the secret path /home/someone")
    told = await refusal(caller.analyze())
    assert (told.code, told.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert "secret" not in told.text
    assert told.incident in told.text
    assert told.incident in caplog.text
    assert "the secret path" in caplog.text


async def test_backend_failure_is_internal(caller: Caller, backend: PixelBackend) -> None:
    backend.broken = BackendFailed("the handler failed")
    told = await refusal(caller.analyze())
    assert (told.code, told.reason) == (grpc.StatusCode.INTERNAL, "BACKEND_FAILED")


async def test_work_of_callers_who_left_is_not_computed() -> None:
    backend = Held(Work.PREDICT)
    outputs = [pb.OUTPUT_PREDICTIONS]
    async with calling(backend, predict=LaneSettings(max_batch=1, first_estimate_s=0.01)) as caller:
        running = asyncio.create_task(caller.analyze(outputs=outputs))
        while not caller.facade.analysis.lanes[Work.PREDICT].in_flight:
            await asyncio.sleep(0.01)
        impatient = await asyncio.gather(
            *(caller.analyze(outputs=outputs, timeout=0.3) for _ in range(24)), return_exceptions=True
        )
        assert all(isinstance(result, grpc.aio.AioRpcError) for result in impatient)
        backend.open.set()
        await running
        await caller.analyze(outputs=outputs)
        assert len(backend.batches) == 2
