"""The backend on a real TorchServe: what it answers, and what it says when TorchServe fails."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from saaa import archive, images, wire
from saaa.errors import (
    BackendFailed,
    BackendUnavailable,
    DeadlineExceeded,
    InvalidInput,
    ModelNotFound,
)
from saaa.work import CaptionOptions, ExplainOptions, ItemResult, Work, WorkBatch, WorkItem
from serving.backends import guard
from serving.backends.base import Backend
from serving.backends.launch import Ports
from serving.backends.local import LocalBackend
from serving.backends.process import TorchServeProcess
from serving.backends.torchserve import TorchServeBackend
from tests.tiny_models import EGA_NAME, EGDD_NAME, VERSION, make_graph, make_pixels

ALL = {(EGA_NAME, VERSION), (EGDD_NAME, VERSION)}


@pytest.fixture
async def backend(torchserve: TorchServeProcess) -> AsyncIterator[TorchServeBackend]:
    backend = TorchServeBackend(torchserve.inference_address, torchserve.management_address)
    yield backend
    await backend.close()


async def eventually(true: Callable[[], Awaitable[bool]], seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not await true():
        assert time.monotonic() < end, "it did not happen in time"
        await asyncio.sleep(0.1)


def batch_of(work: Work, count: int, **changes: object) -> WorkBatch:
    batch = WorkBatch(
        model=EGA_NAME if work is Work.CAPTION else EGDD_NAME,
        version=VERSION,
        work=work,
        pixels=make_pixels(count),
        items=tuple(
            WorkItem(graph=make_graph(n)) if work is Work.CAPTION else WorkItem(targets=tuple(range(n % 3)))
            for n in range(count)
        ),
    )
    return replace(batch, **changes)  # type: ignore[arg-type]


def assert_agree(a: list[ItemResult], b: list[ItemResult], tolerance: float = 1e-4) -> None:
    for x, y in zip(a, b, strict=True):
        assert x.error == y.error
        assert [c.words for c in x.captions] == [c.words for c in y.captions]
        assert [(m.target, m.method) for m in x.maps] == [(m.target, m.method) for m in y.maps]
        for m, n in zip(x.maps, y.maps, strict=True):
            np.testing.assert_allclose(m.values, n.values, rtol=0, atol=tolerance)
        for c, d in zip(x.captions, y.captions, strict=True):
            np.testing.assert_allclose(c.log_probabilities, d.log_probabilities, atol=tolerance)
            np.testing.assert_allclose(c.node_weights, d.node_weights, atol=tolerance)
            assert c.log_probability == pytest.approx(d.log_probability, abs=tolerance)
        if x.probabilities is not None and y.probabilities is not None:
            np.testing.assert_allclose(x.probabilities, y.probabilities, atol=tolerance)


@pytest.mark.parametrize(
    "batch",
    [
        batch_of(Work.PREDICT, 8),
        batch_of(Work.EXPLAIN, 8),
        batch_of(Work.EXPLAIN, 3, explain=ExplainOptions(method="integrated_gradients", steps=8)),
        batch_of(Work.CAPTION, 8, caption=CaptionOptions(beam_width=4, count=3)),
        batch_of(Work.EXPLAIN, 2, items=(WorkItem(targets=(77,)), WorkItem())),
        batch_of(Work.CAPTION, 2, items=(WorkItem(), WorkItem(graph=make_graph()))),
    ],
    ids=["predict", "explain", "integrated", "caption", "bad target", "no graph"],
)
async def test_it_agrees_with_the_local_backend(
    backend: TorchServeBackend, tiny_models: Path, batch: WorkBatch
) -> None:
    async with LocalBackend(tiny_models) as local:
        backends: list[Backend] = [backend, local]
        remote, here = [await b.run(batch, timeout=60) for b in backends]
    assert_agree(remote, here)
    assert any(result.error is None for result in remote)


async def test_it_describes_what_is_served(backend: TorchServeBackend, tiny_models: Path) -> None:
    infos = await backend.describe()
    assert set(infos) == {archive.info(path) for path in tiny_models.glob("*.mar")}
    assert await backend.ready() == ALL


async def test_unknown_models_and_versions_are_not_found(backend: TorchServeBackend) -> None:
    for changes in ({"model": "other"}, {"version": "9"}, {"model": ""}):
        with pytest.raises((ModelNotFound, BackendFailed)) as failed:
            await backend.run(batch_of(Work.PREDICT, 1, **changes), timeout=30)
        if changes != {"model": ""}:
            assert isinstance(failed.value, ModelNotFound)


async def test_bytes_that_are_no_batch_are_refused_and_the_worker_lives(
    torchserve: TorchServeProcess, backend: TorchServeBackend
) -> None:
    pid = worker_pid(torchserve, EGDD_NAME)
    for header, pixels in ((b"\xff\xff", b"abc"), (wire.pack_batch(batch_of(Work.PREDICT, 1))[0], b"short")):
        answer = await backend._predict(EGDD_NAME, VERSION, header, pixels, 30)
        with pytest.raises(BackendFailed, match="refused the batch"):
            wire.unpack_results(answer, 1)
    assert (await backend.run(batch_of(Work.PREDICT, 1), timeout=30))[0].error is None
    assert worker_pid(torchserve, EGDD_NAME) == pid


async def test_a_batch_too_large_for_a_message_is_refused_before_it_is_sent(backend: TorchServeBackend) -> None:
    pixels = np.zeros((22, 1024, 1024, 3), np.uint8)
    batch = batch_of(Work.PREDICT, 1, pixels=pixels, items=(WorkItem(),) * 22)
    with pytest.raises(InvalidInput, match="at most 67108864 can be sent"):
        await backend.run(batch, timeout=30)


async def test_large_batches_pass(backend: TorchServeBackend) -> None:
    """Well above TorchServe's default limit of 6.5 MB."""
    batch = batch_of(Work.PREDICT, 1, pixels=make_pixels(700), items=(WorkItem(),) * 700)
    assert batch.pixels.nbytes > 8_000_000
    found = await backend.run(batch, timeout=120)
    assert all(result.error is None for result in found)


async def test_no_answer_in_time_is_a_deadline(backend: TorchServeBackend) -> None:
    slow = batch_of(Work.EXPLAIN, 24, explain=ExplainOptions(method="integrated_gradients", steps=64))
    with pytest.raises(DeadlineExceeded, match=r"did not answer within 0\.05 s"):
        await backend.run(slow, timeout=0.05)
    assert (await backend.run(batch_of(Work.PREDICT, 1), timeout=120))[0].error is None


async def test_nobody_there_is_unavailable() -> None:
    ports = Ports.free()
    backend = TorchServeBackend(f"127.0.0.1:{ports.inference}", f"127.0.0.1:{ports.management}")
    with pytest.raises(BackendUnavailable, match="cannot be reached"):
        await backend.run(batch_of(Work.PREDICT, 1), timeout=10)
    with pytest.raises(BackendUnavailable):
        await backend.describe()
    assert await backend.ready() == frozenset()
    await backend.close()


async def test_a_service_that_cannot_be_reached_makes_no_model_ready(torchserve: TorchServeProcess) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        deaf = f"127.0.0.1:{nobody.getsockname()[1]}"
        for addresses in ((deaf, torchserve.management_address), (torchserve.inference_address, deaf)):
            backend = TorchServeBackend(*addresses)
            try:
                assert await backend.ready() == frozenset()
                with pytest.raises(BackendUnavailable):
                    await backend.states()
            finally:
                await backend.close()


def test_a_photo_over_rest_is_answered_with_json(torchserve: TorchServeProcess, tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    photo.write_bytes(images.encode_png(make_pixels(1)[0]))

    def curl(*arguments: str, model: str = EGDD_NAME) -> tuple[str, dict[str, object]]:
        url = f"http://{torchserve.rest_address}/predictions/{model}/{VERSION}"
        done = subprocess.run(
            ["curl", "-sS", "--noproxy", "*", "-w", "\n%{http_code}", *arguments, url],
            capture_output=True,
            text=True,
            check=True,
        )
        body, _, code = done.stdout.rpartition("\n")
        return code, json.loads(body)

    code, answer = curl("-T", str(photo))
    assert (code, len(answer["predictions"])) == ("200", 5)  # type: ignore[arg-type]
    assert curl("-F", f"data=@{photo}")[1] == answer
    code, answer = curl("-T", str(photo), model=EGA_NAME)
    assert (code, answer["graph_source"]) == ("200", "WHOLE_IMAGE")
    code, answer = curl("-d", "no picture", "-H", "Content-Type: application/octet-stream")
    assert code == "400"
    assert answer["error"]["reason"] == "IMAGE_REJECTED"  # type: ignore[index]


def test_all_ports_are_of_this_machine_only(torchserve: TorchServeProcess) -> None:
    """0100007F is 127.0.0.1; TorchServe's Java and workers listen on nothing else."""
    inodes = set()
    for pid in guard.processes(torchserve.run_dir):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            target = str(link.readlink()) if link.is_symlink() else ""
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    listening = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                listening.append(fields[1].rpartition(":")[0])
    assert len(listening) == 5
    assert set(listening) <= {"0100007F", "0000000000000000FFFF00000100007F"}


def worker_pid(process: TorchServeProcess, model: str) -> int:
    """The worker whose working directory holds that model's archive."""
    for pid in guard.processes(process.run_dir):
        config = Path(f"/proc/{pid}/cwd/config.json")
        if config.is_file() and json.loads(config.read_text())["name"] == model:
            return pid
    raise AssertionError(f"no worker of {model}")


async def test_a_killed_worker_is_unavailable_and_comes_back(
    torchserve: TorchServeProcess, backend: TorchServeBackend
) -> None:
    slow = batch_of(Work.EXPLAIN, 24, explain=ExplainOptions(method="integrated_gradients", steps=64))
    call = asyncio.create_task(backend.run(slow, timeout=60))
    await asyncio.sleep(0.3)
    os.kill(worker_pid(torchserve, EGDD_NAME), signal.SIGKILL)
    with pytest.raises(BackendUnavailable, match="worker of tiny-egdd 1 died"):
        await call
    await eventually(lambda: is_ready(backend, {(EGA_NAME, VERSION)}))
    captions = await backend.run(batch_of(Work.CAPTION, 1), timeout=60)
    assert captions[0].error is None, "the other model is not touched"
    known = await backend.describe()
    assert {(i.name, i.version) for i in known} <= ALL
    await eventually(lambda: is_ready(backend, ALL))
    assert (await backend.run(batch_of(Work.PREDICT, 1), timeout=60))[0].error is None


async def is_ready(backend: TorchServeBackend, wanted: set[tuple[str, str]]) -> bool:
    return await backend.ready() >= wanted


async def test_a_killed_java_is_unavailable_and_comes_back_where_it_was(
    torchserve: TorchServeProcess, backend: TorchServeBackend
) -> None:
    before = torchserve.pid
    assert before is not None
    workers = [pid for pid in guard.processes(torchserve.run_dir) if pid != before]
    os.kill(before, signal.SIGKILL)

    async def down() -> bool:
        return await backend.ready() == frozenset()

    await eventually(down, 20)
    with pytest.raises(BackendUnavailable):
        await backend.run(batch_of(Work.PREDICT, 1), timeout=5)
    await eventually(lambda: is_ready(backend, ALL))
    assert torchserve.pid not in (None, before)
    assert not set(workers) & set(guard.processes(torchserve.run_dir)), "the old workers are gone"
    assert (await backend.run(batch_of(Work.PREDICT, 1), timeout=60))[0].error is None
