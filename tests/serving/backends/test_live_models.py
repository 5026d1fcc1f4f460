"""Versions come and go under traffic, and nobody notices: real archives, real gRPC; the long ones with TorchServe."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import grpc
import numpy as np
import pytest

from saaa import archive
from saaa.images import encode_png
from saaa.v1 import analysis_pb2 as pb
from serving.backends import guard
from serving.backends.base import Backend, ModelHost
from serving.backends.care import Care, CareSettings
from serving.backends.hosting import StoreHost, TorchServeHost
from serving.backends.local import LocalBackend
from serving.backends.process import TorchServeOptions, TorchServeProcess
from serving.backends.reconcile import Reconciler
from serving.backends.torchserve import ModelState, TorchServeBackend
from serving.commands.manage import load, promote, rollback, unload
from serving.server import Facade
from serving.settings import FacadeSettings, LaneSettings
from tests.serving.backends.test_torchserve import worker_pid
from tests.tiny_models import EGDD_NAME, make_classifier, make_pixels

PATIENT = 240.0


async def test_a_worker_of_somebody_elses_torchserve_is_killed_where_it_can_be_seen(tmp_path: Path) -> None:
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    with subprocess.Popen([*sleep, "model_service_worker.py"]) as worker, subprocess.Popen(sleep) as other:
        try:
            backend = TorchServeBackend("127.0.0.1:1", "127.0.0.1:2")

            async def states() -> tuple[ModelState, ...]:
                return (ModelState(name="m", version="1", workers=2, ready=2, pids=(worker.pid, other.pid)),)

            backend.states = states  # type: ignore[method-assign]
            host = StoreHost(backend, tmp_path)
            await host.restart("m", "2")
            assert worker.poll() is None
            await host.restart("m", "1")
            assert await asyncio.to_thread(worker.wait, 10) == -signal.SIGKILL
            # The number is somebody else's as seen from here.
            assert other.poll() is None
            await backend.close()
        finally:
            worker.kill()
            other.kill()


SETTINGS = FacadeSettings(port=0, probe_interval_s=0.1, leave_s=0, drain_s=5.0)


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two archives of one model that answer differently."""
    folder = tmp_path_factory.mktemp("versions")
    for number in (1, 2):
        made = make_classifier(seed=number).to_archive(EGDD_NAME, str(number), {})
        archive.write(folder / f"{number}.mar", made)
    return {str(number): folder / f"{number}.mar" for number in (1, 2)}


def put(folder: Path, path: Path) -> Path:
    (folder / path.name).write_bytes(path.read_bytes())
    return Path(path.name)


@asynccontextmanager
async def torchserve(folder: Path, workers: int = 1) -> AsyncIterator[tuple[TorchServeBackend, TorchServeHost]]:
    options = TorchServeOptions(classifier_workers=workers, captioner_workers=1, heap_mb=512)
    async with TorchServeProcess(folder, options=options) as process:
        backend = TorchServeBackend(process.inference_address, process.management_address)
        try:
            yield backend, TorchServeHost(process)
        finally:
            await backend.close()


@asynccontextmanager
async def elsewhere(folder: Path) -> AsyncIterator[tuple[TorchServeBackend, StoreHost]]:
    """A TorchServe known by its addresses and its model store only, which is `folder`."""
    made = folder.parent / "made"
    made.mkdir()
    for path in folder.glob("*.mar"):
        path.rename(made / path.name)
    folder.rmdir()
    options = TorchServeOptions(classifier_workers=1, captioner_workers=1, heap_mb=512)
    async with TorchServeProcess(made, options=options) as process:
        folder.symlink_to(process.run_dir / "store")
        backend = TorchServeBackend(process.inference_address, process.management_address)
        try:
            yield backend, StoreHost(backend, folder)
        finally:
            await backend.close()


@asynccontextmanager
async def local(folder: Path) -> AsyncIterator[tuple[LocalBackend, LocalBackend]]:
    async with LocalBackend(folder, at_once=1) as backend:
        yield backend, backend


class Traffic:
    """Callers who never rest; every answer is counted by version, and every failure kept."""

    def __init__(self, facade: Facade, channel: grpc.aio.Channel) -> None:
        self.facade = facade
        self.answered: Counter[str] = Counter()
        self.scores: dict[str, np.ndarray] = {}
        self.failures: list[grpc.aio.AioRpcError] = []
        self._numbers = itertools.count()
        self._analyze = channel.unary_unary(
            "/saaa.v1.AnalysisService/Analyze",
            request_serializer=pb.AnalyzeRequest.SerializeToString,
            response_deserializer=pb.AnalyzeResponse.FromString,
        )
        self._image = encode_png(make_pixels(1)[0])

    async def call(self) -> None:
        request = pb.AnalyzeRequest(
            image=self._image, outputs=[pb.OUTPUT_PREDICTIONS], request_id=f"request {next(self._numbers)}"
        )
        answer = await self._analyze(request, timeout=60)
        version = answer.provenance.classifier.version
        scores = np.array([p.probability for p in answer.predictions])
        np.testing.assert_allclose(scores, self.scores.setdefault(version, scores), atol=1e-4)
        self.answered[version] += 1

    async def caller(self) -> None:
        while True:
            try:
                await self.call()
            except grpc.aio.AioRpcError as error:
                self.failures.append(error)
                await asyncio.sleep(0.02)

    async def until(self, wanted: set[str]) -> None:
        """Until just these versions answer."""
        async with asyncio.timeout(PATIENT):
            while True:
                before = self.answered.copy()
                while (self.answered - before).total() < 20:
                    await asyncio.sleep(0.02)
                if {v for v, count in (self.answered - before).items() if count > 0} == wanted:
                    return


@asynccontextmanager
async def serving(
    backend: Backend, host: ModelHost, settings: FacadeSettings = SETTINGS
) -> AsyncIterator[tuple[Traffic, Care]]:
    care = Care(backend, host, CareSettings(canary_interval_s=1.0, canary_timeout_s=30.0))
    facade = Facade(care, settings)
    async with (
        Reconciler(care, facade.catalog, interval_s=0.05),
        facade,
        grpc.aio.insecure_channel(facade.address) as channel,
    ):
        traffic = Traffic(facade, channel)
        await eventually(lambda: bool(facade.catalog.ready))
        callers = [asyncio.create_task(traffic.caller()) for _ in range(4)]
        try:
            yield traffic, care
        finally:
            for caller in callers:
                caller.cancel()
            failures = await asyncio.gather(*callers, return_exceptions=True)
            assert all(isinstance(failure, asyncio.CancelledError) for failure in failures), failures


async def eventually(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENT):
        while not true():
            await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    "computing", [local, *(pytest.param(kind, marks=pytest.mark.slow) for kind in (torchserve, elsewhere))]
)
async def test_versions_come_and_go_and_no_request_is_dropped(
    computing: Callable[[Path], AbstractAsyncContextManager[tuple[Backend, ModelHost]]],
    versions: dict[str, Path],
    tmp_path: Path,
) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    put(folder, versions["1"])
    async with computing(folder) as (backend, host), serving(backend, host) as (traffic, _):
        await traffic.until({"1"})
        load(folder, put(folder, versions["2"]))
        await eventually(lambda: len(traffic.facade.catalog.models) == 2)
        await traffic.until({"1"})
        promote(folder, EGDD_NAME, "2", 0.5)
        await traffic.until({"1", "2"})
        promote(folder, EGDD_NAME, "2")
        unload(folder, EGDD_NAME, "1")
        await traffic.until({"2"})
        await eventually(lambda: list(host.loaded()) == [(EGDD_NAME, "2")])
        rollback(folder, EGDD_NAME)
        rollback(folder, EGDD_NAME)
        await eventually(lambda: len(host.loaded()) == 2)
        await traffic.until({"1", "2"})
        assert not np.allclose(traffic.scores["1"], traffic.scores["2"], atol=1e-3), "the versions can be told apart"
        assert {info.version for info in await backend.describe()} == {"1", "2"}
    assert traffic.failures == []


@pytest.mark.slow
async def test_a_version_that_does_not_load_in_torchserve_leaves_the_others_alone(
    versions: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put(tmp_path, versions["1"])
    sound = archive.read(versions["2"])
    async with torchserve(tmp_path) as (backend, host), serving(backend, host) as (traffic, _):
        archive.write(tmp_path / "bad.mar", replace(sound, config=dict(sound.config, classes=["one", "two"])))
        load(tmp_path, Path("bad.mar"))
        promote(tmp_path, EGDD_NAME, "2")
        # Tried again and again, whatever the reason; on a slow machine the first may be that nothing starts in time.
        await eventually(lambda: "does not describe a usable" in caplog.text)
        await traffic.until({"1"})
        assert {state.version for state in await backend.states()} == {"1"}
        assert traffic.failures == []
        # Nor does it keep TorchServe from starting again.
        java = host._process.pid
        assert java is not None
        os.kill(java, signal.SIGKILL)
        await eventually(lambda: host._process.pid not in (None, java))
        await traffic.until({"1"})
    assert {failure.code() for failure in traffic.failures} <= {grpc.StatusCode.UNAVAILABLE}


@pytest.mark.slow
async def test_a_worker_that_dies_costs_no_answer_where_there_is_another(
    versions: dict[str, Path], tmp_path: Path
) -> None:
    put(tmp_path, versions["1"])
    async with torchserve(tmp_path, workers=2) as (backend, host), serving(backend, host) as (traffic, _):
        for _ in range(2):
            await traffic.until({"1"})
            os.kill(worker_pid(host._process, EGDD_NAME), signal.SIGKILL)
            await traffic.until({"1"})
            await workers_ready(backend, 2)
    assert traffic.failures == []


@pytest.mark.slow
async def test_a_worker_that_hangs_is_killed_and_started_again(versions: dict[str, Path], tmp_path: Path) -> None:
    put(tmp_path, versions["1"])
    settings = replace(SETTINGS, predict=LaneSettings(max_in_flight=2, batch_timeout_s=5.0))
    async with torchserve(tmp_path) as (backend, host), serving(backend, host, settings) as (traffic, care):
        await traffic.until({"1"})
        pid = worker_pid(host._process, EGDD_NAME)
        os.kill(pid, signal.SIGSTOP)
        try:
            await eventually(lambda: bool(care.open))
            await eventually(lambda: pid not in guard.processes(host._process.run_dir))
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        await eventually(lambda: not care.open)
        await traffic.until({"1"})
    assert {failure.code() for failure in traffic.failures} <= {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    }


async def workers_ready(backend: TorchServeBackend, wanted: int) -> None:
    async def ready() -> bool:
        return sum(state.ready for state in await backend.states()) >= wanted

    await until(ready)


async def until(true: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENT):
        while not await true():
            await asyncio.sleep(0.2)
