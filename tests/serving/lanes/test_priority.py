"""Priorities and callers over real gRPC: what the contract says of them reaches the lanes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc

from saaa.v1 import analysis_pb2 as pb
from saaa.v1.analysis_pb2_grpc import AnalysisServiceStub
from saaa.work import ItemResult, Work, WorkBatch
from serving.security.scopes import Scope
from serving.security.settings import SecuritySettings
from serving.security.tokens import create
from serving.settings import LaneSettings
from tests.serving.pixel_backend import Caller, PixelBackend, calling, photo, refusal
from tests.serving.security.secured import bearer

ONE = LaneSettings(max_batch=1, max_in_flight=1, first_estimate_s=0.001)
COLOURS = ((200, 20, 20), (20, 200, 20), (20, 20, 200))


class Gate(PixelBackend):
    """Computes nothing until it is told; notes the strongest channel of each item in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open = asyncio.Event()
        self.order: list[int] = []

    async def run(self, batch: WorkBatch, *, timeout: float) -> list[ItemResult]:
        self.order += [int(pixels.mean(axis=(0, 1)).argmax()) for pixels in batch.pixels]
        await self.open.wait()
        return await super().run(batch, timeout=timeout)


async def gathered(caller: Caller, count: int) -> None:
    lane = caller.facade.analysis.lanes[Work.PREDICT]
    async with asyncio.timeout(20):
        while lane.gathered < count:
            await asyncio.sleep(0.002)


async def test_interactive_requests_go_before_those_of_batch_priority() -> None:
    backend = Gate()
    async with calling(backend, predict=ONE) as caller:

        def ask(colour: int, priority: pb.Priority) -> asyncio.Task[pb.AnalyzeResponse]:
            outputs = [pb.OUTPUT_PREDICTIONS]
            return asyncio.create_task(caller.analyze(photo(COLOURS[colour]), outputs=outputs, priority=priority))

        first = ask(0, pb.PRIORITY_BATCH)
        while not backend.order:
            await asyncio.sleep(0.002)
        patient = [ask(1, pb.PRIORITY_BATCH) for _ in range(2)]
        await gathered(caller, 2)
        urgent = [ask(2, priority) for priority in (pb.PRIORITY_INTERACTIVE, pb.PRIORITY_UNSPECIFIED)]
        await gathered(caller, 4)
        backend.open.set()
        await asyncio.gather(first, *patient, *urgent)
    assert backend.order == [0, 2, 2, 1, 1]


async def test_unknown_priority_is_told_by_field() -> None:
    async with calling(PixelBackend()) as caller:
        told = await refusal(caller.analyze(priority=7))
    assert told.code is grpc.StatusCode.INVALID_ARGUMENT
    assert told.fields == {"priority": "7 is no priority; use those of the enum Priority."}


async def test_one_callers_flood_does_not_hold_up_another(tmp_path: Path) -> None:
    """By their tokens: the second caller's items alternate with those of the first, who was there before."""
    tokens = tmp_path / "tokens.json"
    names = {name: create(tokens, name, [Scope.ANALYZE], days=None)[0] for name in ("flood", "other")}
    backend = Gate()
    security = SecuritySettings(tokens=tokens)
    async with calling(backend, predict=ONE, security=security) as caller:
        stub = AnalysisServiceStub(caller.channel)

        async def ask(colour: int, name: str) -> None:
            request = pb.AnalyzeRequest(image=photo(COLOURS[colour]), outputs=[pb.OUTPUT_PREDICTIONS])
            await stub.Analyze(request, timeout=60, metadata=bearer(names[name]))

        async with asyncio.TaskGroup() as calls:
            calls.create_task(ask(0, "flood"))
            while not backend.order:
                await asyncio.sleep(0.002)
            for _ in range(6):
                calls.create_task(ask(1, "flood"))
            await gathered(caller, 6)
            for _ in range(2):
                calls.create_task(ask(2, "other"))
            await gathered(caller, 8)
            backend.open.set()
    assert backend.order[0] == 0
    assert set(backend.order[1:5]) == {1, 2}
    assert sum(colour == 2 for colour in backend.order[1:5]) == 2
