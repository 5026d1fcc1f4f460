"""The output folder: killed at any step it loses nothing that was finished, and ends as if never stopped."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from saaa.concepts import concept_attribution
from saaa.errors import DataError, OptionInvalid
from saaa.images import Geometry
from saaa.scene_graph import Box, Relationship, SceneGraph, SceneObject
from training.attribute.explain import Answer, Grid
from training.attribute.store import INDEX, RUN, TABLE, Rank, Store

IDENTITY = {"method": "auto", "limit": None, "data": "d" * 64}
BATCHES, SIZE = 5, 3
GRAPH = SceneGraph(
    (SceneObject(4, "cup", Box(0, 0, 10, 10), ("réd",)), SceneObject(9, "mat", Box(8, 8, 20, 20))),
    (Relationship(1, 4, 9, "on"),),
)


class Killed(BaseException):
    """Stands for SIGKILL at a step."""


def answer(number: int) -> Answer:
    record = {
        "file": f"é/{number}.jpg", "region": None, "sha256": "0", "width": 32, "height": 24, "label": None,
        "covered": {"x": 0.0, "y": 0.0, "width": 32.0, "height": 24.0}, "error": None,
    }  # fmt: skip
    if number % 4 == 3:
        return Answer(record={**record, "covered": None, "error": {"reason": "IMAGE_REJECTED", "message": "torn"}})
    rng = np.random.default_rng(number)
    facts = {"kind": "class", "target": 1, "name": "den", "probability": 0.5, "method": "rise"}
    facts |= {"completeness_gap": None, "deletion_drop": 0.25}
    grids = []
    for _ in range(1 + number % 2):
        values = rng.normal(size=(3, 4)).astype(np.float32)
        effects = rng.normal(size=4).astype(np.float32) if number % 2 else None
        concepts = concept_attribution(values, Geometry(0, 0, 32, 24, 8), GRAPH, effects)
        grids.append(Grid(values=values, facts=facts, concepts=concepts, weights=np.ones(2, np.float32)))
    record["predictions"] = [{"class": "den", "probability": 0.5}]
    return Answer(record=record, grids=tuple(grids))


def work(folder: Path, rank: Rank, *, draw=lambda: None) -> bool:
    store = Store(folder, IDENTITY, rank)
    if store.complete():
        return True
    done = store.done()
    for batch in rank.share(BATCHES):
        if batch not in done:
            store.add(batch, batch * SIZE, [answer(batch * SIZE + k) for k in range(SIZE)], 0.5)
    return store.finish(BATCHES, {"software": "1"}, draw)


def contents(folder: Path) -> dict[str, str]:
    """Digest of every file that is not hidden."""
    files = (p for p in folder.rglob("*") if p.is_file() and p.name[0] != ".")
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reference") / "out"
    assert work(folder, Rank())
    return folder


def test_what_is_there_at_the_end(reference: Path) -> None:
    assert set(contents(reference)) == {"maps-00000-of-00001.h5", INDEX, TABLE, RUN}
    records = [json.loads(line) for line in (reference / INDEX).read_text().splitlines()]
    assert [record["item"] for record in records] == list(range(BATCHES * SIZE))
    with h5py.File(reference / "maps-00000-of-00001.h5") as shard:
        for number, record in enumerate(records):
            made = answer(number)
            assert record["file"] == f"é/{number}.jpg"
            assert len(record["maps"]) == len(made.grids)
            for entry, grid in zip(record["maps"], made.grids, strict=True):
                kept = shard[entry["data"]]
                assert kept.dtype == np.float32
                np.testing.assert_array_equal(kept[()], grid.values)
                assert kept.attrs["deletion_drop"] == entry["deletion_drop"] == 0.25
                assert "completeness_gap" not in kept.attrs
                nodes = shard[f"{number:08d}/nodes"]
                names = [(n["kind"].decode(), n["id"], n["name"].decode()) for n in nodes[()]]
                assert names == [(c["kind"], c["id"], c["name"]) for c in entry["concepts"]]
                assert names[1] == ("attribute", 4, "réd")
                np.testing.assert_allclose(kept.attrs["mass"], [score.mass for score in grid.concepts], rtol=1e-6)
                np.testing.assert_array_equal(kept.attrs["weight"], [1, 1, np.nan, np.nan])
                assert ("effect" in kept.attrs) == ("effect" in entry["concepts"][0]) == bool(number % 2)
                assert "weight" not in entry["concepts"][2]
    rows = (reference / TABLE).read_text().splitlines()
    assert len(rows) == 1 + sum(max(1, len(record["maps"])) for record in records)
    assert sum("torn" in row for row in rows) == 3
    run = json.loads((reference / RUN).read_text())
    assert run["counts"] == {"items": 15, "failed": 3, "maps": 16}
    assert run["seconds"] == 0.5 * BATCHES


def steps(monkeypatch: pytest.MonkeyPatch, fatal: int | None = None) -> list[str]:
    """Count what changes the folder, and die just before or just after a step: 2 * step, 2 * step + 1."""
    seen: list[str] = []

    def watch(owner, name: str) -> None:
        original = getattr(owner, name)

        def call(*arguments, **options):
            if fatal == 2 * len(seen):
                raise Killed
            result = original(*arguments, **options)
            seen.append(name)
            if fatal == 2 * len(seen) - 1:
                raise Killed
            return result

        monkeypatch.setattr(owner, name, call)

    for owner, name in ((Path, "replace"), (Path, "mkdir"), (Path, "unlink"), (shutil, "rmtree"), (os, "fsync")):
        watch(owner, name)
    return seen


def test_killed_at_every_step(reference: Path, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        seen = steps(patch)
        assert work(tmp_path / "whole", Rank())
        total = len(seen)
    assert total > 2 * BATCHES
    for fatal in range(2 * total):
        folder = tmp_path / f"{fatal}"
        with pytest.MonkeyPatch.context() as patch:
            steps(patch, fatal)
            with pytest.raises(Killed):
                work(folder, Rank())
        assert work(folder, Rank())
        assert contents(folder) == contents(reference), fatal


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(world=st.integers(1, 4), order=st.permutations(range(4)), first=st.integers(1, 4))
def test_any_number_of_processes(
    reference: Path, tmp_path_factory: pytest.TempPathFactory, world: int, order: list[int], first: int
) -> None:
    """Also when a run of `first` processes was stopped before."""
    folder = tmp_path_factory.mktemp("many") / "out"
    if first > 1:
        assert not work(folder, Rank(first - 1, first))
    ranks = [rank for rank in order if rank < world]
    assert [work(folder, Rank(rank, world)) for rank in ranks][-1]
    assert (folder / TABLE).exists()
    found, wanted = (Store(where, IDENTITY, Rank()).records() for where in (folder, reference))
    for mine, other in zip(found, wanted, strict=True):
        if mine["shard"] is not None:
            assert mine["shard"] == Rank(mine["item"] // SIZE % world, world).shard
            for entry in mine["maps"]:
                with h5py.File(folder / mine["shard"]) as a, h5py.File(reference / other["shard"]) as b:
                    np.testing.assert_array_equal(a[entry["data"]][()], b[entry["data"]][()])
                    assert dict(a[entry["data"]].attrs).keys() == dict(b[entry["data"]].attrs).keys()
        assert {**mine, "shard": None} == {**other, "shard": None}


def test_a_torn_file_is_no_part(reference: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    store = Store(folder, IDENTITY, Rank())
    store.add(0, 0, [answer(k) for k in range(SIZE)], 0.5)
    (folder / "parts/.00000001.h5.99").write_bytes(b"torn")
    assert store.done() == {0}
    del store
    assert work(folder, Rank())
    assert contents(folder) == contents(reference)


def test_a_damaged_part_is_named(tmp_path: Path) -> None:
    store = Store(tmp_path / "out", IDENTITY, Rank())
    (tmp_path / "out/parts/00000000.h5").write_bytes(b"damaged")
    with pytest.raises(DataError, match=r"00000000\.h5 is damaged; delete it"):
        store.finish(1, {}, lambda: None)


def test_other_options(reference: Path, tmp_path: Path) -> None:
    shutil.copytree(reference, tmp_path / "out")
    before = contents(tmp_path / "out")
    with pytest.raises(OptionInvalid, match=r"method auto \(now rise\).*--overwrite"):
        Store(tmp_path / "out", {**IDENTITY, "method": "rise"}, Rank())
    with pytest.raises(OptionInvalid, match=r"delete .* yourself"):
        Store(tmp_path / "out", IDENTITY, Rank(0, 2), overwrite=True)
    assert contents(tmp_path / "out") == before
    (tmp_path / "out/notes.txt").write_text("mine")
    store = Store(tmp_path / "out", {**IDENTITY, "method": "rise"}, Rank(), overwrite=True)
    assert not store.complete()
    assert set(contents(tmp_path / "out")) == {RUN, "notes.txt"}


def test_the_same_again_changes_nothing(reference: Path) -> None:
    before = contents(reference)
    assert work(reference, Rank())
    assert work(reference, Rank(1, 3))
    assert contents(reference) == before


@pytest.mark.parametrize(
    "content", [{"notes.txt": "mine"}, {RUN: "{}"}, {RUN: '{"job": "other", "identity": {}}'}, {RUN: "["}]
)
def test_foreign_folders_are_left_alone(tmp_path: Path, content: dict[str, str]) -> None:
    for name, text in content.items():
        (tmp_path / name).write_text(text)
    for overwrite in (False, True):
        with pytest.raises(DataError, match=r"holds|is not of an attribution run"):
            Store(tmp_path, IDENTITY, Rank(), overwrite=overwrite)
    assert {p.name: p.read_text() for p in tmp_path.iterdir() if p.name[0] != "."} == content


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(DataError, match="cannot be written"):
            Store(folder, IDENTITY, Rank())


def test_one_process_a_rank(tmp_path: Path) -> None:
    first = Store(tmp_path / "out", IDENTITY, Rank(0, 2))
    Store(tmp_path / "out", IDENTITY, Rank(1, 2))
    with pytest.raises(DataError, match="Another process is at work"):
        Store(tmp_path / "out", IDENTITY, Rank(0, 2))
    del first
    Store(tmp_path / "out", IDENTITY, Rank(0, 2))


def test_ranks() -> None:
    assert Rank.of_environment({}) == Rank(0, 1)
    assert Rank.of_environment({"RANK": "1", "WORLD_SIZE": "3"}) == Rank(1, 3)
    assert Rank(1, 3).shard == "maps-00001-of-00003.h5"
    assert sorted(b for r in range(3) for b in Rank(r, 3).share(8)) == list(range(8))
    for wrong in ({"RANK": "1"}, {"RANK": "x"}, {"WORLD_SIZE": "0"}, {"RANK": "-1", "WORLD_SIZE": "2"}):
        with pytest.raises(OptionInvalid, match="unset them or use torchrun"):
            Rank.of_environment(wrong)
