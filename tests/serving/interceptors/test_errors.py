"""What a failed call leaves behind."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator

import pytest

from serving.requests import AnalysisRequest
from serving.settings import LaneSettings
from serving.telemetry.settings import TelemetrySettings
from tests.serving.pixel_backend import QUICK, PixelBackend, calling, photo, refusal


@pytest.fixture
def without_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("without_collector")
async def test_refused_requests_are_gone_without_the_collector() -> None:
    backend = PixelBackend()
    backend.seconds = 2.0
    lane = LaneSettings(max_batch=1, max_in_flight=1, first_estimate_s=2.0)
    telemetry = TelemetrySettings(metrics_port=0)
    async with calling(backend, QUICK, predict=lane, telemetry=telemetry) as caller:
        running = asyncio.create_task(caller.analyze(outputs=["OUTPUT_PREDICTIONS"]))
        while not backend.batches:
            await asyncio.sleep(0.01)
        for image, said in ((photo(), "RESOURCE_EXHAUSTED"), (b"no image", "INVALID_ARGUMENT")):
            for _ in range(10):
                failed = await refusal(caller.analyze(image, timeout=1, outputs=["OUTPUT_PREDICTIONS"]))
                assert failed.code.name == said
        await running
        await asyncio.sleep(0.1)
        left = [each for each in gc.get_objects() if isinstance(each, AnalysisRequest)]
    assert not left, [gc.get_referrers(each) for each in left]
