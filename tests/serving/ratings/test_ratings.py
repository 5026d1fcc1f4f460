"""The store: durable, shared, honest about what it cannot do."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import datetime
from pathlib import Path

import grpc
import pytest

import serving.ratings.store
from saaa.errors import DataError, LaneFull, RatingConflict, RatingsUnavailable, StartFailed
from saaa.v1.feedback_pb2_grpc import FeedbackServiceStub
from serving.commands.cli import main
from serving.ratings.export import read_ratings
from serving.ratings.place import KeptImage, Rating, spelled
from serving.ratings.sqlite import SqliteWriter
from serving.ratings.store import RatingStore
from tests.serving.contract.test_feedback import request


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ratings.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[RatingStore]:
    store = RatingStore(path)
    yield store
    await store.close()


def rating(name: str, text: str = "", image: bytes | None = None) -> Rating:
    kept = None if image is None else KeptImage(sha256="ab" * 32, format="png", data=image)
    return Rating(request_id=name, content=spelled({"text": text, "image": {}}), image=kept)


def sqlite(store: RatingStore) -> sqlite3.Connection:
    assert isinstance(store._writer, SqliteWriter)
    return store._writer.connection


def names(path: Path) -> list[str]:
    return [entry["request_id"] for entry in read_ratings(path)]


async def test_answered_means_committed(store: RatingStore, path: Path) -> None:
    for number in range(5):
        await store.record(rating(f"r{number}"))
        # Another connection sees only what is committed.
        assert len(names(path)) == number + 1
    connection = sqlite(store)
    (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
    (synchronous,) = connection.execute("PRAGMA synchronous").fetchone()
    assert (mode, synchronous) == ("wal", 2)
    assert path.stat().st_mode & 0o077 == 0


class Writers:
    """Threads that send ratings until the service is gone, and note what was acknowledged."""

    def __init__(self, address: str, run: int, count: int = 8) -> None:
        self.acknowledged: dict[str, int] = {}
        self.sent: set[str] = set()
        self.enough = threading.Event()
        self._threads = [threading.Thread(target=self._send, args=(address, f"{run}.{i}")) for i in range(count)]
        for thread in self._threads:
            thread.start()

    def _send(self, address: str, prefix: str) -> None:
        with grpc.insecure_channel(address) as channel:
            stub = FeedbackServiceStub(channel)
            for number in range(100_000):
                name = f"{prefix}.{number}"
                self.sent.add(name)
                try:
                    answer = stub.RecordRating(request(name), timeout=30)
                except grpc.RpcError:
                    return
                self.acknowledged[name] = answer.recorded_at.ToMilliseconds()
                if len(self.acknowledged) >= 50:
                    self.enough.set()

    def join(self) -> None:
        for thread in self._threads:
            thread.join(60)


def start(path: Path | str) -> tuple[subprocess.Popen[str], str]:
    """A real facade that keeps ratings; it needs no backend for that."""
    command = "serve --backend_address 127.0.0.1:1 --port 0"
    process = subprocess.Popen(
        [sys.executable, "-m", "serving.commands.cli", *command.split(), "--ratings", str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.stdout is not None
    return process, process.stdout.readline().split()[2]


def milliseconds(recorded_at: str) -> int:
    return round(datetime.fromisoformat(recorded_at).timestamp() * 1000)


def test_killed_while_writing_it_loses_no_acknowledged_rating(path: Path) -> None:
    acknowledged: dict[str, int] = {}
    sent: set[str] = set()
    for run in range(2):
        process, address = start(path)
        try:
            writers = Writers(address, run)
            assert writers.enough.wait(60)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        writers.join()
        acknowledged |= writers.acknowledged
        sent |= writers.sent
        kept = {entry["request_id"]: milliseconds(entry["recorded_at"]) for entry in read_ratings(path)}
        assert kept.keys() <= sent
        assert {name: kept.get(name) for name in acknowledged} == acknowledged
    # Whoever was not answered sends again, whoever was may.
    process, address = start(path)
    try:
        with grpc.insecure_channel(address) as channel:
            stub = FeedbackServiceStub(channel)
            for name in sorted(sent - acknowledged.keys()) + sorted(acknowledged)[:20]:
                recorded = stub.RecordRating(request(name), timeout=30).recorded_at.ToMilliseconds()
                assert recorded == acknowledged.get(name, recorded)
    finally:
        process.terminate()
        assert process.wait(30) == 0
    assert sorted(names(path)) == sorted(sent)


async def test_two_services_share_a_file(path: Path) -> None:
    stores = [RatingStore(path) for _ in range(2)]
    work = [store.record(rating(f"r{number}")) for number in range(100) for store in stores]
    kept = await asyncio.gather(*work)
    times = [each.recorded_at for each in kept]
    # Whoever came second was told when the first one was kept.
    assert times[::2] == times[1::2]
    assert sum(each.new for each in kept) == 100
    assert sorted(names(path)) == sorted(f"r{number}" for number in range(100))
    with pytest.raises(RatingConflict):
        await stores[1].record(rating("r0", "other"))
    for store in stores:
        await store.close()


async def test_closing_writes_what_waits_and_refuses_what_comes(path: Path) -> None:
    store = RatingStore(path)
    waiting = [asyncio.create_task(store.record(rating(f"r{number}"))) for number in range(50)]
    await asyncio.sleep(0)
    await store.close()
    assert len(await asyncio.gather(*waiting)) == 50
    assert len(names(path)) == 50
    with pytest.raises(RatingsUnavailable):
        await store.record(rating("late"))
    await store.close()


async def test_who_has_gone_does_not_hurt_the_others(store: RatingStore, path: Path) -> None:
    gone = asyncio.create_task(store.record(rating("gone")))
    await asyncio.sleep(0)
    gone.cancel()
    assert await store.record(rating("here"))
    assert set(names(path)) == {"gone", "here"}


async def test_a_full_disk_is_told_and_survived(store: RatingStore, path: Path) -> None:
    await store.record(rating("small"))
    connection = sqlite(store)
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(RatingsUnavailable, match="full"):
        await store.record(rating("large", image=b"x" * 100_000))
    connection.execute("PRAGMA max_page_count = 1000000")
    await store.record(rating("large", image=b"x" * 100_000))
    assert names(path) == ["small", "large"]


async def test_more_than_can_wait_is_refused_and_comes_later(
    store: RatingStore, monkeypatch: pytest.MonkeyPatch, path: Path
) -> None:
    monkeypatch.setattr(serving.ratings.store, "MAX_WAITING_BYTES", 1000)
    # Larger than all that may wait: taken when nothing else waits.
    outcomes = await asyncio.gather(
        *(store.record(rating(f"r{number}", image=b"x" * 2000)) for number in range(3)), return_exceptions=True
    )
    refused = [outcome for outcome in outcomes if isinstance(outcome, LaneFull)]
    assert len(refused) == 2
    assert refused[0].retry_after_s > 0
    await store.record(rating("r2"))
    assert names(path) == ["r0", "r2"]


def unusable(path: Path) -> str:
    with pytest.raises(StartFailed) as failure:
        RatingStore(path)
    assert "--ratings" in failure.value.message
    assert str(path) in failure.value.message
    return failure.value.message


def test_files_that_cannot_be_used_are_told_and_left_alone(tmp_path: Path) -> None:
    unusable(tmp_path / "nowhere" / "ratings.db")
    unusable(tmp_path)
    text = tmp_path / "notes.txt"
    text.write_text("no database, but long enough to be looked at " * 100)
    assert "not a database" in unusable(text)
    assert text.read_text().startswith("no database")
    other = tmp_path / "other.db"
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    before = other.read_bytes()
    assert "another program's" in unusable(other)
    assert other.read_bytes() == before
    with pytest.raises(DataError, match="another program's"):
        list(read_ratings(other))


async def test_a_later_version_is_not_touched(path: Path) -> None:
    await RatingStore(path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 2")
    assert "version is 2" in unusable(path)
    with pytest.raises(DataError, match="version is 2"):
        list(read_ratings(path))


async def test_export_writes_lines_and_images(
    store: RatingStore, path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await store.record(rating("one", image=b"png"))
    await store.record(rating("two", "ü\n"))
    out, images = tmp_path / "out.jsonl", tmp_path / "images"

    def run(*words: object) -> int:
        return main(["ratings", "export", *(str(word) for word in words)])

    assert run(path, "--out", out, "--images", images) == 0
    assert "2 ratings" in capsys.readouterr().out
    first, second = (json.loads(line) for line in out.read_text().splitlines())
    assert (images / first["image"]["file"]).read_bytes() == b"png"
    assert second["text"] == "ü\n"
    assert run(path) == 0
    assert [json.loads(line)["request_id"] for line in capsys.readouterr().out.splitlines()] == ["one", "two"]
    before = out.read_text()
    assert run(tmp_path / "nothing.db", "--out", out) == 2
    assert "nothing.db" in capsys.readouterr().err
    assert run(path, "--out", tmp_path / "nowhere" / "out.jsonl") == 2
    assert "nowhere" in capsys.readouterr().err
    assert out.read_text() == before
    assert run(path, "--out", path) == 2
    assert names(path) == ["one", "two"]
    assert sorted(entry.name for entry in tmp_path.iterdir() if entry.name.startswith(".")) == []


def test_a_service_does_not_start_without_its_ratings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = tmp_path / "nowhere" / "ratings.db"
    # Told before any model is looked for.
    assert main(["up", "--models", str(tmp_path / "models"), "--port", "0", "--ratings", str(wrong)]) == 2
    assert str(wrong) in capsys.readouterr().err
    assert main(["serve", "--backend_address", "127.0.0.1:1", "--port", "0", "--ratings", str(wrong)]) == 2
    assert str(wrong) in capsys.readouterr().err
