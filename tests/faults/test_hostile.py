"""Hostile inputs to a running service: nothing crashes, nothing leaks, and everything is refused in words."""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import tempfile
from collections import Counter
from pathlib import Path

import pytest

from saaa.client import RequestInvalid
from saaa.client.request import analyze_request
from saaa.errors import OptionInvalid, SceneGraphError
from saaa.scene_graph import SceneGraph
from serving.commands.graph_files import questions
from tests.faults.hostile import SEEDS, Hostile, hostile, hostile_json
from tests.faults.sending import Said, send_all, table
from tests.faults.service import Service, settled
from tests.serving.pixel_backend import PixelBackend, calling

CALLS, DOCUMENTS = 9000, 1000
"""Of the long run; together the 10,000."""
ROUND = 1000
ONE_ARENA = {"MALLOC_ARENA_MAX": "1"}
"""glibc keeps a heap for each thread, and which of them is used is chance; that would hide a small leak."""
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
    """At a real service with real models."""
    kept = ("--ratings", tmp_path / "ratings.db", "--journal", tmp_path / "journal")
    said: Said = Counter()
    bad: list[Hostile] = []
    memory, open_files, shown = list[int](), list[int](), list[int]()
    with (
        tempfile.TemporaryDirectory(prefix="saaa-test-", dir="/tmp") as folder,
        Service(Path(folder), tiny_models, "--backend", "local", *kept, environment=ONE_ARENA) as service,
    ):
        for start in range(0, CALLS, ROUND):
            inputs = [hostile(1, number) for number in range(start, start + ROUND)]
            shown.append(sum(len(message) for given in inputs for message in given.messages))
            counts, failed = send_all(service.address, inputs)
            said.update(counts)
            bad += failed
            memory.append(settled(service.resident))
            open_files.append(settled(service.descriptors))
        files = documents(tmp_path, 1, DOCUMENTS)
        with capsys.disabled():
            print(f"\n{CALLS} calls and {DOCUMENTS} graph files")
            print(table(said))
            print("graph files      " + ", ".join(f"{count} {what}" for what, count in sorted(files.items())))
            print("MiB sent         " + " ".join(f"{size / 2**20:.0f}" for size in shown))
            print("MiB in memory    " + " ".join(f"{size / 2**20:.0f}" for size in memory))
            print("descriptors      " + " ".join(map(str, open_files)))
        assert bad == []
        assert open_files[-1] <= open_files[0]
        # What is allocated once is there after some rounds. From then on one kept copy of each input would show as what
        # was sent. Images of 89 million pixels leave the heap scattered: by up to 50 MiB, up and down, was seen.
        grown = statistics.median(memory[-3:]) - statistics.median(memory[1:4])
        assert grown < sum(shown[3:-1])
        assert service.stop() == 0
        assert b"incident" not in service.said()
        assert b"Traceback" not in service.said()
