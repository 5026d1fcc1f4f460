"""Processes are killed or hang under load: every request ends well or as documented, and the service comes back."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest

import handlers
from saaa.images import encode_png
from saaa.v1 import analysis_pb2 as pb
from saaa.v1.analysis_pb2_grpc import AnalysisServiceStub
from serving.ratings.export import read_ratings
from tests.faults.load import DOCUMENTED, Load, right_answers
from tests.faults.service import Service
from tests.serving.backends.test_live_models import workers_ready
from tests.tiny_models import EGDD_NAME, SIZE

ONE_CAPTIONER = ("--captioner_workers", 1, "--heap_mb", 512, "--care.canary_timeout_s", 60)
POISON = 23
"""An image of this one grey."""
POISONED = f"""
import importlib.util, time
from pathlib import Path

_spec = importlib.util.spec_from_file_location("sound_egdd", {str(Path(handlers.__file__).parent / "egdd.py")!r})
_sound = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_sound)

class EgddHandler(_sound.EgddHandler):
    def _packed(self, form):
        if bytes((POISON,)) * 3000 in bytes(form.get("pixels", b"")):
            time.sleep(3600)
        return super()._packed(form)
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """With a path short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="saaa-test-", dir="/tmp") as name:
        yield Path(name)


@pytest.fixture(scope="module")
def right(tiny_models: Path) -> np.ndarray:
    return asyncio.run(right_answers(tiny_models))


def kept(folder: Path) -> tuple[object, ...]:
    return "--ratings", folder / "ratings.db", "--journal", folder / "journal"


def check_kept(folder: Path, acknowledged: list[str]) -> None:
    """No acknowledged rating is lost, and the journal has no half line."""
    names = [entry["request_id"] for entry in read_ratings(folder / "ratings.db")]
    assert len(names) == len(set(names))
    assert set(acknowledged) <= set(names)
    lines = (folder / "journal").read_bytes().split(b"\n")
    assert lines.pop() == b""
    assert {json.loads(line)["record"] for line in lines} == {"batch", "request"}


async def test_a_killed_service_keeps_what_it_acknowledged_and_comes_back(
    tiny_models: Path, folder: Path, right: np.ndarray
) -> None:
    with Service(folder, tiny_models, "--backend", "local", *kept(folder)) as service:
        load = Load(service.address, right, rate=True)
        async with load.going_on(callers=2):
            await load.answers()
            await load.until(lambda: len(load.acknowledged) >= 20)
            await asyncio.to_thread(service.kill)
            before = load.said["UNAVAILABLE"]
            await load.until(lambda: load.said["UNAVAILABLE"] > before)
            await asyncio.to_thread(service.start)
            ratings = len(load.acknowledged)
            await load.answers()
            await load.until(lambda: len(load.acknowledged) > ratings)
        assert service.stop() == 0
        check_kept(folder, load.acknowledged)
        assert b"incident" not in service.said()


@pytest.mark.faults
async def test_worker_java_and_all_are_killed_in_turn(tiny_models: Path, folder: Path, right: np.ndarray) -> None:
    """One service and one load for all of it: what one fault leaves behind, the next would find."""
    with Service(folder, tiny_models, *ONE_CAPTIONER, *kept(folder)) as service:
        load = Load(service.address, right, deadline_s=30, rate=True)
        async with load.going_on():
            await load.answers()
            async with service.torchserve() as torchserve:
                for _ in range(2):
                    os.kill(service.workers(EGDD_NAME)[0], signal.SIGKILL)
                    await load.answers()
                    await workers_ready(torchserve, 3)
                    await load.answers()
            assert load.said.total() == 0, "there was another worker"

            # All of them at once: nobody can compute until they are back.
            for victim in service.workers(EGDD_NAME):
                os.kill(victim, signal.SIGKILL)
            await load.answers()

            java = service.java()
            os.kill(java, signal.SIGKILL)
            await load.until(lambda: java not in service.theirs())
            await load.answers(100)
            assert service.java() != java

            ratings = len(load.acknowledged)
            await asyncio.to_thread(service.kill)
            left = service.theirs()
            await asyncio.to_thread(service.start)
            await load.answers()
            assert not set(left) & set(service.theirs())
            await load.until(lambda: len(load.acknowledged) > ratings)
        assert service.stop() == 0
        check_kept(folder, load.acknowledged)


@pytest.mark.faults
async def test_a_java_that_stands_still_is_ended_and_started_again(
    tiny_models: Path, folder: Path, right: np.ndarray
) -> None:
    """It lives, and its ports take connections and answer nothing."""
    patience = ("--silent_timeout_s", 6, "--predict.batch_timeout_s", 8)
    with Service(folder, tiny_models, *ONE_CAPTIONER, *patience) as service:
        load = Load(service.address, right, deadline_s=30)
        async with load.going_on():
            for _ in range(2):
                await load.answers()
                java = service.java()
                os.kill(java, signal.SIGSTOP)
                await load.until(lambda old=java: old not in service.theirs())
                await load.answers(100)
                assert service.java() != java
        assert service.stop() == 0
        assert b"has answered nothing for 6 s" in service.said()
        assert b"incident" not in service.said()


@pytest.mark.faults
async def test_a_handler_that_hangs_is_ended_and_all_others_are_answered(
    tiny_models: Path, folder: Path, right: np.ndarray
) -> None:
    shadow = folder / "shadow" / "handlers"
    shadow.mkdir(parents=True)
    (shadow / "__init__.py").write_text(f"__path__.append({str(Path(handlers.__file__).parent)!r})\n")
    (shadow / "egdd.py").write_text(POISONED.replace("POISON", str(POISON)))
    path = os.pathsep.join([str(shadow.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    patience = ("--predict.batch_timeout_s", 8)
    image = encode_png(np.full((SIZE, SIZE, 3), POISON, np.uint8))
    poison = pb.AnalyzeRequest(image=image, outputs=[pb.OUTPUT_PREDICTIONS])
    with Service(
        folder, tiny_models, *ONE_CAPTIONER, *patience, *kept(folder), environment={"PYTHONPATH": path}
    ) as service:
        load = Load(service.address, right, deadline_s=30)
        async with load.going_on():
            await load.answers()
            async with grpc.aio.insecure_channel(service.address) as channel:
                for _ in range(2):
                    before = set(service.workers(EGDD_NAME))
                    with pytest.raises(grpc.aio.AioRpcError) as failure:
                        await AnalysisServiceStub(channel).Analyze(poison, timeout=60)
                    assert failure.value.code().name in DOCUMENTED
                    await load.until(lambda old=before: len(set(service.workers(EGDD_NAME)) - old) > 0)
                    await load.answers(40)
        assert service.stop() == 0
