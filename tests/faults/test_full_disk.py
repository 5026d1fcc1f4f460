"""A disk that is full, and then has room again: ratings are refused, answers go on, nothing that was kept is lost.

A small file system in memory is filled up; where it may not be mounted, the tests are skipped.
"""

from __future__ import annotations

import asyncio
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from saaa.v1.feedback_pb2_grpc import FeedbackServiceStub
from serving.ratings.export import read_ratings
from serving.telemetry.journal import read_journal
from serving.telemetry.settings import TelemetrySettings
from tests.faults.load import Load, right_answers
from tests.faults.service import Service
from tests.serving.contract.test_feedback import request as rating
from tests.serving.pixel_backend import PixelBackend, calling, refusal


class Disk:
    """A file system of a few MiB.

    Args:
        folder: where it is mounted.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def fill(self) -> None:
        """Leave no byte."""
        with self._ballast.open("ab", buffering=0) as file:
            for size in (2**16, 2**12):
                try:
                    while True:
                        file.write(bytes(size))
                except OSError:
                    continue

    def clear(self) -> None:
        """Make room."""
        self._ballast.unlink()


@pytest.fixture
def disk() -> Iterator[Disk]:
    with tempfile.TemporaryDirectory(prefix="saaa-test-", dir="/tmp") as folder:
        mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "none", folder]
        if subprocess.run(mount, capture_output=True).returncode:
            pytest.skip("needs the right to mount a small file system")
        try:
            yield Disk(Path(folder))
        finally:
            subprocess.run(["umount", folder], check=True)


async def test_ratings_and_journal_on_a_full_disk(disk: Disk) -> None:
    store, journal = disk.folder / "ratings.db", disk.folder / "journal"
    settings = TelemetrySettings(journal=journal)
    async with calling(PixelBackend(), ratings=store, telemetry=settings) as caller:
        stub = FeedbackServiceStub(caller.channel)
        for name in ("before", "also before"):
            await stub.RecordRating(rating(name), timeout=60)
        assert (await caller.analyze()).predictions
        await asyncio.sleep(0)
        disk.fill()
        refused = 0
        for number in range(5):
            # What still fits into a page that is there may be kept; what is not is told.
            call = stub.RecordRating(rating(f"full {number}", annotator="x" * 60), timeout=60)
            code = await call.code()
            assert code in (grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE)
            refused += code is grpc.StatusCode.UNAVAILABLE
            assert (await caller.analyze()).predictions
        assert refused
        disk.clear()
        await stub.RecordRating(rating("after"), timeout=60)
        last = (await caller.analyze(request_id="the last")).request_id
        bad = await refusal(stub.RecordRating(rating("after", annotator="another"), timeout=60))
        assert bad.code is grpc.StatusCode.ALREADY_EXISTS
    names = [entry["request_id"] for entry in read_ratings(store)]
    assert len(names) == 2 + 5 - refused + 1
    assert {"before", "also before", "after"} <= set(names)
    told = [entry["request_id"] for entry in read_journal(journal) if entry["record"] == "request"]
    assert told[-1] == last == "the last"


@pytest.mark.faults
async def test_a_real_service_with_all_its_files_on_a_full_disk(tiny_models: Path, disk: Disk) -> None:
    """Ratings, journal, and the folder that TorchServe works in."""
    right = await right_answers(tiny_models)
    kept = ("--ratings", disk.folder / "ratings.db", "--journal", disk.folder / "journal")
    workers = ("--classifier_workers", 1, "--captioner_workers", 1, "--heap_mb", 512, "--care.canary_timeout_s", 60)
    with Service(disk.folder, tiny_models, *workers, *kept) as service:
        load = Load(service.address, right, deadline_s=30, rate=True)
        async with load.going_on(callers=2):
            await load.answers()
            await load.until(lambda: len(load.acknowledged) >= 5)
            disk.fill()
            await load.until(lambda: load.said["UNAVAILABLE"] >= 5)
            await load.answers(40)
            disk.clear()
            before = len(load.acknowledged)
            await load.until(lambda: len(load.acknowledged) >= before + 5)
            await load.answers()
        assert service.stop() == 0
    names = {entry["request_id"] for entry in read_ratings(disk.folder / "ratings.db")}
    assert set(load.acknowledged) <= names
