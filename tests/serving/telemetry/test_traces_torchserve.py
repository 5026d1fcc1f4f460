"""One trace through caller, facade and a real TorchServe's worker."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.otlp_collector import collecting
from handlers.traces import ENDPOINT_VARIABLE
from saaa.images import encode_png
from saaa.v1 import analysis_pb2 as pb
from serving.backends.process import TorchServeOptions, TorchServeProcess
from serving.backends.torchserve import TorchServeBackend
from serving.telemetry.settings import TelemetrySettings
from tests.serving.pixel_backend import QUICK, calling

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.mark.slow
async def test_the_workers_span_lies_in_the_facades(tiny_models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with collecting() as collector:
        monkeypatch.setenv(ENDPOINT_VARIABLE, collector.endpoint)
        options = TorchServeOptions(classifier_workers=1, captioner_workers=1, heap_mb=512)
        async with TorchServeProcess(tiny_models, options=options) as process:
            backend = TorchServeBackend(process.inference_address, process.management_address)
            settings = replace(QUICK, telemetry=TelemetrySettings(traces=collector.endpoint))
            async with calling(backend, settings) as caller:
                image = encode_png(np.zeros((40, 50, 3), np.uint8))
                request = pb.AnalyzeRequest(image=image, outputs=[pb.OUTPUT_PREDICTIONS])
                metadata = (("traceparent", f"00-{TRACE}-{SPAN}-01"),)
                await caller.stub.Analyze(request, metadata=metadata, timeout=60)
            (batch,) = await asyncio.to_thread(collector.wait_for, "batch")
            (handler,) = await asyncio.to_thread(collector.wait_for, "handler")
    assert handler.service == "saaa-handler"
    assert (handler.trace, handler.parent) == (TRACE, batch.span)
    assert handler.seconds <= batch.seconds
