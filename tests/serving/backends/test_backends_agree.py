"""The facade in front of the real backends: both say the same, batched or not, and TorchServe may come and go."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from saaa.client import Client
from saaa.images import encode_png
from saaa.v1 import analysis_pb2 as pb
from saaa.work import ItemResult, ModelInfo, Work, WorkBatch
from serving.backends.base import Backend
from serving.backends.local import LocalBackend
from serving.backends.process import TorchServeProcess
from serving.backends.torchserve import TorchServeBackend
from serving.settings import FacadeSettings, LaneSettings
from tests.serving.pixel_backend import Caller, calling, link, thing

GATHER = LaneSettings(max_batch=8, max_batch_s=1000, max_in_flight=1)
SETTINGS = FacadeSettings(port=0, predict=GATHER, explain=GATHER, caption=GATHER, probe_interval_s=0.2)
SERVICE = "saaa.v1.AnalysisService"


class Recording:
    """A backend that remembers the sizes of its batches, and holds them back while its gate is closed."""

    def __init__(self, inner: Backend) -> None:
        self.inner = inner
        self.name = inner.name
        self.gate = asyncio.Event()
        self.gate.set()
        self.sizes: dict[Work, list[int]] = {work: [] for work in Work}

    async def describe(self) -> tuple[ModelInfo, ...]:
        return await self.inner.describe()

    async def ready(self) -> frozenset[tuple[str, str]]:
        return await self.inner.ready()

    async def run(self, batch: WorkBatch, *, timeout: float) -> list[ItemResult]:
        self.sizes[batch.work].append(len(batch.items))
        await self.gate.wait()
        return await self.inner.run(batch, timeout=timeout)

    async def close(self) -> None:
        await self.inner.close()


@asynccontextmanager
async def facade(kind: str, torchserve: TorchServeProcess, models: Path) -> AsyncIterator[tuple[Caller, Recording]]:
    """A facade over a real backend."""
    backend: Any
    if kind == "torchserve":
        backend = TorchServeBackend(torchserve.inference_address, torchserve.management_address)
    else:
        backend = LocalBackend(models)
        await backend.start()
    recording = Recording(backend)
    async with calling(recording, SETTINGS) as caller:
        yield caller, recording


def pictures(count: int) -> list[bytes]:
    """Different pictures of different shapes."""
    random = np.random.default_rng(5)
    made = []
    for _ in range(count):
        height, width = random.integers(5, 12, 2)
        coarse = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
        made.append(encode_png(coarse.repeat(16, axis=0).repeat(16, axis=1)))
    return made


GRAPH = pb.SceneGraph(
    objects=[thing(1, (3, 4, 30, 40), "big", "red"), thing(2, (20, 10, 50, 60))], relationships=[link(1, 1, 2)]
)
QUESTIONS: list[dict[str, Any]] = [
    {"graph": GRAPH, "caption": pb.CaptionOptions(count=3, sampling=pb.Sampling(top_p=0.9, seed=5))},
    {"graph": GRAPH, "caption": pb.CaptionOptions(beam_width=3, count=2)},
    {"attribution": pb.AttributionOptions(classes=["0", "3"], method="integrated_gradients", steps=4)},
    {
        "graph": GRAPH,
        "attribution": pb.AttributionOptions(classes=["0", "3"], effects=True, deletion=True),
    },
    {
        "graph": GRAPH,
        "caption": pb.CaptionOptions(text="a red chair"),
        "attribution": pb.AttributionOptions(
            every_word=True, nodes=[pb.GraphNode(kind=pb.NODE_KIND_OBJECT, id=2)], deletion=True
        ),
    },
    {
        "graph": GRAPH,
        "attribution": pb.AttributionOptions(every_word=True, word_method="gradient_x_input"),
    },
]


def numbers(answer: pb.AnalyzeResponse) -> dict[str, np.ndarray]:
    """Everything of an answer that is computed by a model."""
    order = sorted(answer.predictions, key=lambda prediction: prediction.index)
    return {
        "probabilities": np.array([prediction.probability for prediction in order]),
        **{f"map {k}": np.array(entry.grid.values) for k, entry in enumerate(answer.attributions)},
        **{
            f"concepts {k}": np.array(
                [(concept.mass, concept.density, concept.score, concept.effect) for concept in entry.concepts]
            )
            for k, entry in enumerate(answer.attributions)
        },
        **{
            f"node weights {k}": np.array(entry.node_weights)
            for k, entry in enumerate(answer.attributions)
            if entry.node_weights
        },
        **{
            f"faithfulness {k}": np.array([faith.value for faith in entry.faithfulness])
            for k, entry in enumerate(answer.attributions)
        },
        **{
            f"caption {k}": np.array([*(word.log_probability for word in caption.words), caption.log_probability])
            for k, caption in enumerate(answer.captions)
        },
        **{
            f"weights {k}": np.array([word.node_weights for word in caption.words])
            for k, caption in enumerate(answer.captions)
        },
    }


def assert_close(ours: pb.AnalyzeResponse, theirs: pb.AnalyzeResponse, *, absolute: float, relative: float) -> None:
    """Same words, same graph, and numbers as near as told; `relative` is to the largest value of each array."""
    assert [caption.text for caption in ours.captions] == [caption.text for caption in theirs.captions]
    assert ours.graph == theirs.graph
    assert [entry.method for entry in ours.attributions] == [entry.method for entry in theirs.attributions]
    left, right = numbers(ours), numbers(theirs)
    assert left.keys() == right.keys()
    for name, values in left.items():
        allowed = absolute + relative * float(np.abs(values).max(initial=0))
        np.testing.assert_allclose(values, right[name], rtol=0, atol=allowed, err_msg=name)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


async def test_torchserve_and_local_agree(torchserve: TorchServeProcess, tiny_models: Path) -> None:
    answers: dict[str, list[pb.AnalyzeResponse]] = {}
    for kind in ("torchserve", "local"):
        async with facade(kind, torchserve, tiny_models) as (caller, _):
            answers[kind] = [
                await caller.analyze(image, top_k=1000, **question) for image in pictures(3) for question in QUESTIONS
            ]
    for ours, theirs in zip(answers["torchserve"], answers["local"], strict=True):
        assert ours.predictions
        assert ours.attributions
        assert ours.captions
        assert_close(ours, theirs, absolute=1e-4, relative=0)
        targets = [entry.target.WhichOneof("target") for entry in ours.attributions]
        assert targets == [entry.target.WhichOneof("target") for entry in theirs.attributions]
        assert (ours.provenance.backend, theirs.provenance.backend) == ("torchserve", "local")
        assert ours.provenance.classifier == theirs.provenance.classifier
        assert ours.provenance.captioner == theirs.provenance.captioner


@pytest.mark.parametrize("kind", ["torchserve", "local"])
async def test_a_batch_of_eight_says_what_eight_single_calls_say(
    kind: str, torchserve: TorchServeProcess, tiny_models: Path
) -> None:
    images = pictures(8)
    question = QUESTIONS[0]
    async with facade(kind, torchserve, tiny_models) as (caller, recording):
        single = [await caller.analyze(image, top_k=1000, **question) for image in images]
        assert set(recording.sizes[Work.EXPLAIN]) == {1}
        # One goes ahead alone; the eight gather behind it.
        recording.gate.clear()
        first = asyncio.create_task(caller.analyze(images[0], **question))
        lanes = [caller.facade.analysis.lanes[work] for work in (Work.EXPLAIN, Work.CAPTION)]
        await until(lambda: all(lane.in_flight for lane in lanes))
        eight = [asyncio.create_task(caller.analyze(image, top_k=1000, **question)) for image in images]
        await until(lambda: all(lane.gathered == 8 for lane in lanes))
        recording.gate.set()
        batched = await asyncio.gather(*eight)
        await first
        for work in (Work.EXPLAIN, Work.CAPTION):
            assert recording.sizes[work] == [1] * 9 + [8]
    for alone, together in zip(single, batched, strict=True):
        assert_close(alone, together, absolute=0, relative=1e-5)


def test_serve_command_in_front_of_a_running_torchserve(torchserve: TorchServeProcess) -> None:
    command = [sys.executable, "-m", "serving.commands.cli", "serve", "--port", "0"]
    addresses = ["--backend_address", torchserve.inference_address]
    addresses += ["--management_address", torchserve.management_address]
    process = subprocess.Popen([*command, *addresses], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.endswith("(torchserve, 2 models)\n")
        with Client(line.split()[2]) as client:
            assert client.analyze(pictures(1)[0]).captions
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        # TorchServe is somebody else's and goes on.
        assert torchserve.pid is not None
    finally:
        process.kill()
        process.wait()


async def test_torchserve_may_die_and_come_back(torchserve: TorchServeProcess, tiny_models: Path) -> None:
    async with facade("torchserve", torchserve, tiny_models) as (caller, _):
        before = await caller.analyze(pictures(1)[0])
        health = health_pb2_grpc.HealthStub(caller.channel)

        async def status() -> int:
            return (await health.Check(health_pb2.HealthCheckRequest(service=SERVICE))).status

        assert await status() == health_pb2.HealthCheckResponse.SERVING
        assert torchserve.pid is not None
        os.kill(torchserve.pid, signal.SIGKILL)
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await caller.analyze(pictures(1)[0])
        assert failure.value.code() is grpc.StatusCode.UNAVAILABLE
        async with asyncio.timeout(20):
            while await status() != health_pb2.HealthCheckResponse.NOT_SERVING:
                await asyncio.sleep(0.05)
        async with asyncio.timeout(240):
            while await status() != health_pb2.HealthCheckResponse.SERVING:
                await asyncio.sleep(0.2)
        after = await caller.analyze(pictures(1)[0])
        assert_close(before, after, absolute=1e-6, relative=1e-5)
