"""What is computed for nobody: counted at a backend with a real model, over real gRPC."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc

from saaa.v1 import analysis_pb2 as pb
from saaa.work import ItemResult, Work, WorkBatch
from serving.backends.local import LocalBackend
from serving.settings import LaneSettings
from tests.serving.pixel_backend import calling, photo

PREDICT = [pb.OUTPUT_PREDICTIONS]


class Counting(LocalBackend):
    """Counts the items it computes; the first batch takes until it is told to end."""

    def __init__(self, models: Path) -> None:
        super().__init__(models)
        self.open = asyncio.Event()
        self.items = 0

    async def run(self, batch: WorkBatch, *, timeout: float) -> list[ItemResult]:
        self.items += len(batch.items)
        results = await super().run(batch, timeout=timeout)
        await self.open.wait()
        return results


async def test_of_24_calls_that_expire_or_leave_on_a_busy_server_none_is_computed(tiny_models: Path) -> None:
    # It believes to be quick, and so admits them all.
    lane = LaneSettings(max_batch=1, max_in_flight=1, first_estimate_s=1e-6)
    async with Counting(tiny_models) as backend, calling(backend, predict=lane) as caller:
        first = asyncio.create_task(caller.analyze(outputs=PREDICT, timeout=120))
        predict = caller.facade.analysis.lanes[Work.PREDICT]
        while not predict.in_flight:
            await asyncio.sleep(0.005)
        expiring = [asyncio.create_task(caller.analyze(outputs=PREDICT, timeout=0.3)) for _ in range(16)]
        leaving = [caller.stub.Analyze(pb.AnalyzeRequest(image=photo(), outputs=PREDICT)) for _ in range(8)]
        for error in await asyncio.gather(*expiring, return_exceptions=True):
            assert isinstance(error, grpc.aio.AioRpcError)
            # Refused at once where the call arrived so late that it could not be answered in time.
            assert error.code() in {grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED}
        for call in leaving:
            call.cancel()
        async with asyncio.timeout(60):
            while predict.waiting:
                await asyncio.sleep(0.01)
        backend.open.set()
        await first
        await caller.analyze(outputs=PREDICT, timeout=120)
        assert backend.items == 2
