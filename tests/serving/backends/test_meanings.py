"""What a real TorchServe says when its handler misbehaves, and what the backend makes of it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import tempfile
import zipfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import numpy as np
import pytest

from saaa.errors import (
    BackendFailed,
    BackendUnavailable,
    DeadlineExceeded,
    LaneFull,
    ModelNotFound,
    SaaaError,
    WorkerDied,
)
from saaa.work import Work, WorkBatch, WorkItem
from serving.backends import guard
from serving.backends.java import find_java
from serving.backends.launch import Launch, Ports
from serving.backends.torchserve import TorchServeBackend

pytestmark = pytest.mark.slow

LIMIT = 200_000
PATIENT = 240
HANDLER = """
import os, signal, time
from ts.utils.util import PredictionException

def misbehave(what):
    if what == 1: raise ValueError("a secret")
    if 2 <= what <= 5: raise PredictionException("a secret", (400, 404, 429, 503)[what - 2])
    if what == 6: raise MemoryError("a secret")
    if what == 7: raise RuntimeError("CUDA error: a secret")
    if what == 8: return [b"", b""]
    if what == 9: return "no list"
    if what == 10: return [object()]
    if what == 11: return [None]
    if what == 12: os._exit(3)
    if what == 13: os.kill(os.getpid(), signal.SIGKILL)
    if what == 14: time.sleep(60)
    if what == 15: return [b"x" * 300_000]
    if what == 16: time.sleep(1.5)
    return [b"\\n\\x00"]

def handle(data, context):
    return misbehave(data[0]["pixels"][0]) if data else []
"""
SETTINGS = """
minWorkers: 1
maxWorkers: 1
batchSize: 1
maxBatchDelay: 1
responseTimeout: 8
startupTimeout: 300
maxRetryTimeoutInSec: 300
clientTimeoutInMills: 0
jobQueueSize: 1
"""


class Small(Launch):
    """Small limits, so that small messages break them."""

    def settings(self) -> dict[str, object]:
        return super().settings() | {"max_request_size": LIMIT, "max_response_size": LIMIT}


@pytest.fixture(scope="module")
def launch() -> Iterator[Launch]:
    with tempfile.TemporaryDirectory(prefix="saaa-test-", dir="/tmp") as root:
        folder, lock = guard.make_run_dir(Path(root))
        mar = Path(root) / "bad.mar"
        model = {"modelName": "bad", "modelVersion": "1", "handler": "handler.py", "configFile": "settings.yaml"}
        with zipfile.ZipFile(mar, "w") as packed:
            packed.writestr("handler.py", HANDLER)
            packed.writestr("settings.yaml", SETTINGS)
            manifest = {"runtime": "python", "model": model, "archiverVersion": "0.12.0"}
            packed.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))
        launch = Small(folder=folder, java=find_java(), ports=Ports.free(), threads=1, heap_mb=512)
        launch.prepare([mar])
        with launch.logs()[0].open("wb") as log:
            java = subprocess.Popen(
                launch.command(), cwd=folder, env=launch.environment(), stdout=log, stderr=log, start_new_session=True
            )
        try:
            yield launch
        finally:
            guard.remove(folder)
            java.wait()
            os.close(lock)


@pytest.fixture
async def backend(launch: Launch) -> AsyncIterator[TorchServeBackend]:
    backend = TorchServeBackend(f"127.0.0.1:{launch.ports.inference}", f"127.0.0.1:{launch.ports.management}")
    async with asyncio.timeout(PATIENT):
        while not await backend.ready():
            await asyncio.sleep(0.2)
    yield backend
    await backend.close()


def batch(what: int, *, size: int = 8, model: str = "bad", version: str = "1") -> WorkBatch:
    pixels = np.full((1, size, size, 3), what, np.uint8)
    return WorkBatch(model=model, version=version, work=Work.PREDICT, pixels=pixels, items=(WorkItem(),))


@pytest.mark.parametrize(
    ("what", "meaning", "says"),
    [
        pytest.param(1, BackendFailed, "handler of bad 1 failed", id="exception"),
        pytest.param(2, BackendFailed, "handler of bad 1 failed", id="400"),
        pytest.param(3, BackendFailed, "handler of bad 1 failed", id="404"),
        pytest.param(4, BackendFailed, "handler of bad 1 failed", id="429"),
        pytest.param(5, BackendFailed, "handler of bad 1 failed", id="503"),
        pytest.param(6, BackendFailed, "ran out of memory", id="memory"),
        pytest.param(7, BackendFailed, "ran out of memory", id="CUDA"),
        pytest.param(8, BackendFailed, "handler of bad 1 failed", id="wrong length"),
        pytest.param(9, BackendFailed, "handler of bad 1 failed", id="no list"),
        pytest.param(10, BackendFailed, "handler of bad 1 failed", id="no bytes"),
        pytest.param(11, BackendFailed, "not a packed answer", id="null"),
        pytest.param(12, WorkerDied, "died while it computed", id="exit"),
        pytest.param(13, WorkerDied, "died while it computed", id="killed"),
        pytest.param(14, WorkerDied, "died while it computed", id="response timeout"),
        pytest.param(15, WorkerDied, "died while it computed", id="large answer"),
    ],
)
async def test_what_the_handler_does(
    backend: TorchServeBackend, what: int, meaning: type[SaaaError], says: str
) -> None:
    with pytest.raises(SaaaError, match=says) as failed:
        await backend.run(batch(what), timeout=PATIENT)
    assert type(failed.value) is meaning
    assert (await backend.run(batch(0), timeout=PATIENT))[0].error is None, "it answers again"


async def test_what_the_request_does(backend: TorchServeBackend) -> None:
    for wrong, meaning, says in (
        (batch(0, model="other"), ModelNotFound, "serves no other 1"),
        (batch(0, version="2"), ModelNotFound, "serves no bad 2"),
        (batch(0, model=""), ModelNotFound, "must be named"),
        (batch(0, size=300), BackendFailed, "too large"),
    ):
        with pytest.raises(SaaaError, match=says) as failed:
            await backend.run(wrong, timeout=30)
        assert type(failed.value) is meaning


async def test_too_slow_is_a_deadline_and_too_many_is_a_full_lane(backend: TorchServeBackend) -> None:
    with pytest.raises(DeadlineExceeded):
        await backend.run(batch(16), timeout=0.3)
    answers = await asyncio.gather(*(backend.run(batch(16), timeout=60) for _ in range(5)), return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, BaseException)]
    assert refused
    assert len(refused) < 5
    for error in refused:
        assert isinstance(error, LaneFull)
        assert error.retry_after_s > 0


async def test_no_worker_left_is_unavailable(launch: Launch, backend: TorchServeBackend) -> None:
    """The queue takes one; the others are told at once, because nobody computes."""
    await backend.run(batch(0), timeout=PATIENT)
    (state,) = await backend.states()
    assert len(state.pids) == 1
    assert state.pids[0] in guard.processes(launch.folder)
    os.kill(state.pids[0], signal.SIGKILL)
    async with asyncio.timeout(PATIENT):
        while await backend.ready():
            await asyncio.sleep(0.01)
    answers = await asyncio.gather(*(backend.run(batch(0), timeout=PATIENT) for _ in range(4)), return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, BaseException)]
    assert refused
    assert all(isinstance(error, BackendUnavailable) and "No worker" in str(error) for error in refused)


async def test_nobody_there_is_unavailable_and_not_the_handlers_fault() -> None:
    ports = Ports.free()
    nobody = TorchServeBackend(f"127.0.0.1:{ports.inference}", f"127.0.0.1:{ports.management}")
    with pytest.raises(BackendUnavailable, match="cannot be reached"):
        await nobody.run(batch(0), timeout=10)
    await nobody.close()
