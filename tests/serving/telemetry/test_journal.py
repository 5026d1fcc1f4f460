"""The journal's lines, its files, and what happens where it cannot be written."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import resource
import stat
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from saaa import wire
from saaa.errors import DataError, StartFailed
from saaa.v1 import analysis_pb2 as pb
from serving.server import Facade
from serving.telemetry import journal as journals
from serving.telemetry.journal import Journal, pixels_digest, read_journal
from serving.telemetry.settings import TelemetrySettings
from tests.serving.pixel_backend import QUICK, PixelBackend, calling, photo, thing


def settings(path: Path, **changes: Any) -> Any:
    return replace(QUICK, telemetry=TelemetrySettings(journal=path, **changes))


def lines(path: Path, record: str) -> list[dict[str, Any]]:
    return [entry for entry in read_journal(path) if entry["record"] == record]


async def test_an_answer_is_there_with_its_batches_and_without_its_pixels(tmp_path: Path) -> None:
    path, backend = tmp_path / "journal", PixelBackend()
    async with calling(backend, settings(path)) as caller:
        answer = await caller.analyze(request_id="one", graph=pb.SceneGraph(objects=[thing(1)]))
        await caller.analyze(outputs=[pb.OUTPUT_PREDICTIONS])
    request, other = lines(path, "request")
    assert request["request_id"] == "one"
    assert request["image_sha256"] == answer.provenance.image_sha256
    assert request["predictions"][0] == {
        "label": "red",
        "probability": pytest.approx(answer.predictions[0].probability),
    }
    assert request["captions"] == ["nodes 1"]
    assert [entry["method"] for entry in request["attributions"]] == ["brightness"]
    assert [model["name"] for model in request["models"]] == ["colours", "words"]
    assert [model["archive_sha256"] for model in request["models"]] == ["a" * 64, "b" * 64]
    batches = {entry["id"]: entry for entry in lines(path, "batch")}
    assert len(batches) == 3
    for model in (*request["models"], *other["models"]):
        entry = batches[model["batch"]]
        made = next(
            batch
            for batch in backend.batches
            if batch.model == model["name"]
            and batch.work.value
            in (
                ("caption",)
                if model["name"] == "words"
                else ("explain",)
                if model in request["models"]
                else ("predict",)
            )
        )
        assert entry["pixels_sha256"] == [pixels_digest(pixels) for pixels in made.pixels]
        assert base64.b64decode(entry["header"]) == wire.pack_batch(made)[0]
        (result,) = wire.unpack_results(base64.b64decode(entry["results"]), 1)
        if result.probabilities is not None:
            best = max(answer.predictions, key=lambda prediction: prediction.probability)
            assert result.probabilities.max() == pytest.approx(best.probability)
    assert photo()[-40:] not in path.read_bytes()
    assert all(pixels.tobytes() not in path.read_bytes() for batch in backend.batches for pixels in batch.pixels)


async def test_companions_of_a_batch_are_told_apart_by_their_place(tmp_path: Path) -> None:
    path, backend = tmp_path / "journal", PixelBackend()
    backend.seconds = 0.3
    async with calling(backend, settings(path)) as caller:
        images = [photo((250, 10 * k, 0)) for k in range(6)]
        asked = [caller.analyze(image, request_id=str(k)) for k, image in enumerate(images)]
        await asyncio.gather(*asked)
    explained = [model for entry in lines(path, "request") for model in entry["models"] if model["name"] == "colours"]
    places = {(model["batch"], model["index"]) for model in explained}
    assert len(places) == 6
    sizes = {entry["id"]: len(entry["pixels_sha256"]) for entry in lines(path, "batch")}
    assert max(sizes[name] for name, _ in places) > 1
    assert all(index < sizes[name] for name, index in places)


async def test_what_failed_is_not_an_answer(tmp_path: Path) -> None:
    path, backend = tmp_path / "journal", PixelBackend()
    backend.broken = ZeroDivisionError()
    async with calling(backend, settings(path)) as caller:
        with pytest.raises(Exception, match="INTERNAL"):
            await caller.analyze()
    assert path.read_bytes() == b""


async def test_files_are_put_aside_and_the_oldest_goes_and_no_line_is_torn(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    async with calling(PixelBackend(), settings(path, journal_max_bytes=4000, journal_files=3)) as caller:
        for number in range(30):
            await caller.analyze(request_id=str(number), outputs=[pb.OUTPUT_PREDICTIONS])
    files = sorted(file.name for file in tmp_path.iterdir())
    assert files == ["journal", "journal.1", "journal.2", "journal.3"]
    assert all(file.stat().st_size <= 4000 for file in tmp_path.iterdir())
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in tmp_path.iterdir())
    kept = [int(entry["request_id"]) for entry in lines(path, "request")]
    assert kept == list(range(kept[0], 30))
    assert len(kept) > 5


def test_a_line_that_a_crash_cut_short_costs_no_other(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.write_bytes(b'{"record":"request","request_id":"a"}\n{"record":"requ')
    journal = Journal(path, max_bytes=10**6, files=1)
    journal.open()
    journal._write(lambda: {"record": "request", "request_id": "b"})
    asyncio.run(journal.close())
    assert [entry["request_id"] for entry in read_journal(path)] == ["a", "b"]
    with pytest.raises(DataError, match="cannot be read"):
        list(read_journal(tmp_path / "none"))


FULL_DISK = """
import asyncio, resource, signal, sys
from pathlib import Path
from serving.telemetry.journal import Journal

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
lost = []
journal = Journal(Path(sys.argv[1]), max_bytes=10**6, files=1, lost=lambda: lost.append(1))
journal.open()
def write(count):
    for number in range(count):
        journal._write(lambda number=number: {"record": "request", "number": number, "text": "x" * 100})
        journal._thread.submit(int).result()
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
write(20)
print(len(lost))
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
write(3)
asyncio.run(journal.close())
print(len(lost))
"""


def test_a_full_disk_costs_lines_and_is_told_and_afterwards_it_goes_on(tmp_path: Path) -> None:
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    path = tmp_path / "journal"
    done = subprocess.run([sys.executable, "-c", FULL_DISK, path], capture_output=True, text=True, check=True)
    first, last = map(int, done.stdout.split())
    assert first == last
    numbers = [entry["number"] for entry in read_journal(path)]
    assert len(numbers) == 23 - first
    assert numbers[-3:] == [0, 1, 2]
    # Said once, not once a line.
    assert done.stderr.count("losing lines") == 1


async def test_a_disk_that_is_too_slow_costs_lines_not_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals, "MAX_PENDING", 4)
    lost: list[int] = []
    journal = Journal(tmp_path / "journal", max_bytes=10**6, files=1, lost=lambda: lost.append(1))
    journal.open()
    gate = threading.Event()

    def slow() -> dict[str, Any]:
        gate.wait(10)
        return {"record": "request"}

    for _ in range(10):
        journal._write(slow)
    assert len(lost) == 6
    gate.set()
    await journal.close()
    assert len(lines(tmp_path / "journal", "request")) == 4


async def test_a_file_that_cannot_be_written_is_one_clear_error_at_the_start(tmp_path: Path) -> None:
    backend = PixelBackend()
    with pytest.raises(StartFailed, match=r"journal .*none.*--journal"):
        async with Facade(backend, settings(tmp_path / "none" / "journal")):
            pass
    assert backend.closed


def test_lines_are_plain_ascii_json(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal", max_bytes=10**6, files=1)
    journal.open()
    journal._write(lambda: {"record": "request", "text": "ä\n\u2028"})
    asyncio.run(journal.close())
    data = (tmp_path / "journal").read_bytes()
    assert data.isascii()
    assert data.count(b"\n") == 1
    assert json.loads(data)["text"] == "ä\n\u2028"
    assert os.access(tmp_path / "journal", os.W_OK)
