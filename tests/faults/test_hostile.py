"""Hostile inputs to a running service: nothing crashes, nothing leaks, and everything is refused in words."""

from __future__ import annotations

import asyncio
import json
import random
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from saaa.client import RequestInvalid
from saaa.client.request import analyze_request
from saaa.errors import OptionInvalid, SceneGraphError
from saaa.scene_graph import SceneGraph
from serving.graph_files import questions
from tests.faults.hostile import SEEDS, Hostile, hostile, hostile_json
from tests.faults.sending import send_all, table
from tests.faults.service import Service, settled
from tests.serving.pixel_backend import PixelBackend, calling

CALLS, DOCUMENTS = 9000, 1000
"""Of the long run; together the 10,000."""
FEW = 500


async def test_five_hundred_of_them(tmp_path: Path) -> None:
    async with calling(PixelBackend(), ratings=tmp_path / "ratings.db") as caller:
        inputs = (hostile(0, number) for number in range(FEW))
        said, bad = await asyncio.to_thread(send_all, caller.facade.address, inputs)
        assert bad == []
        assert {kind for kind, status in said if status == "OK"} >= {"image", "graph"}
        assert {kind for kind, status in said if status == "INVALID_ARGUMENT"} == {kind for kind, _ in said}
        assert (await caller.analyze()).predictions


def documents(folder: Path, seed: int, count: int) -> Counter[str]:
    """Graph files, as `saaa analyze` reads them and as the library does; how many were taken as a graph."""
    said: Counter[str] = Counter()
    path = folder / "graph.json"
    for number in range(count):
        path.write_bytes(hostile_json(random.Random(f"{seed}.{number}")).encode("utf-8", "surrogateescape"))
        try:
            for question in questions(Path("photo.png"), path, photos=1):
                analyze_request(SEEDS[0], question.graph, {}).SerializeToString()
            said["sent"] += 1
        except (OptionInvalid, RequestInvalid):
            said["refused before it is sent"] += 1
        try:
            content = json.loads(path.read_bytes())
        except (ValueError, RecursionError):
            said["no JSON"] += 1
            continue
        try:
            SceneGraph.from_region(content, image_size=(48, 32)).role_graph(10)
            said["a graph"] += 1
        except SceneGraphError:
            said["no graph"] += 1
    return said


def test_graph_files_are_read_or_refused(tmp_path: Path) -> None:
    said = documents(tmp_path, 0, 200)
    assert min(said.values()) > 0
    assert len(said) == 5


@pytest.mark.faults
def test_ten_thousand_leave_no_trace(tiny_models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """At a real service with real models. What a leak would cost is known: the inputs that it is shown."""
    kept = ("--ratings", tmp_path / "ratings.db", "--journal", tmp_path / "journal")
    with (
        tempfile.TemporaryDirectory(prefix="saaa-test-", dir="/tmp") as folder,
        Service(Path(folder), tiny_models, "--backend", "local", *kept) as service,
    ):
        first = CALLS // 2
        said, bad = send_all(service.address, (hostile(1, number) for number in range(first)))
        memory, open_files = settled(service.resident), settled(service.descriptors)
        # Everything that is allocated once is there now: the second half may cost nothing that stays.
        shown = 0

        def second() -> Iterator[Hostile]:
            nonlocal shown
            for number in range(first, CALLS):
                given = hostile(1, number)
                shown += sum(map(len, given.messages))
                yield given

        more, worse = send_all(service.address, second())
        growth = settled(service.resident) - memory
        said.update(more)
        files = documents(tmp_path, 1, DOCUMENTS)
        with capsys.disabled():
            print(
                f"\n{CALLS} calls and {DOCUMENTS} graph files; the second half of the calls was {shown / 2**20:.0f} MiB,"
            )
            print(f"memory grew by {growth / 2**20:.1f} MiB meanwhile, from {memory / 2**20:.0f} MiB")
            print(table(said))
            print("graph files      " + ", ".join(f"{count} {what}" for what, count in sorted(files.items())))
        assert bad == worse == []
        assert settled(service.descriptors) <= open_files
        # A tenth of what was sent: far below one kept copy of each input, above what an allocator scatters.
        assert growth < max(shown, CALLS * 10_000) / 10
        assert service.stop() == 0
        assert b"incident" not in service.said()
        assert b"Traceback" not in service.said()
