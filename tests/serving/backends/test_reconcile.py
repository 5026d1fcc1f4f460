"""Following models.yaml with a host of a few lines: what is loaded, where callers go, what is let go."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from saaa import archive
from saaa.errors import BackendFailed, BackendUnavailable, ModelNotFound
from saaa.work import ModelInfo
from serving.backends.reconcile import Reconciler
from serving.commands.manage import load, promote, rollback, unload
from serving.models.catalog import Catalog
from serving.models.models_file import FILE_NAME
from tests.serving.small_archives import write

M = "m"


@dataclass
class Host:
    """Holds what it is told to, and tells the catalog as the probe does."""

    folder: Path
    catalog: Catalog
    held: dict[tuple[str, str], ModelInfo] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    refuse: set[str] = field(default_factory=set)
    slow: set[str] = field(default_factory=set)
    """Versions that are not ready."""

    def loaded(self) -> dict[tuple[str, str], str]:
        return {key: info.digest for key, info in self.held.items()}

    async def load(self, path: Path, info: ModelInfo) -> None:
        if info.version in self.refuse:
            raise BackendFailed("it does not load")
        self.said.append(f"+{info.version}")
        self.held[info.name, info.version] = info
        self.look()

    async def unload(self, name: str, version: str) -> None:
        if f"-{version}" in self.refuse:
            raise BackendUnavailable("not now")
        self.said.append(f"-{version}")
        del self.held[name, version]
        self.look()

    async def restart(self, name: str, version: str) -> None:
        raise AssertionError

    def look(self) -> None:
        self.catalog.describe(self.held.values())
        self.catalog.set_ready(frozenset(key for key in self.held if key[1] not in self.slow))


class World:
    """A folder with m 1 served, and one service that follows it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.catalog = Catalog()
        self.host = Host(folder, self.catalog)
        self.reconciler = Reconciler(self.host, self.catalog, interval_s=0.01)

    async def start(self, *versions: str) -> None:
        for version in versions:
            file, _ = write(self.folder, M, version)
            await self.host.load(self.folder / file, archive.info(self.folder / file))
        self.host.said.clear()
        await self.reconciler.step()

    async def settle(self) -> None:
        for _ in range(5):
            await self.reconciler.step()

    def gets(self, request_id: str = "x") -> str:
        return self.catalog.find(M, request_id=request_id).version

    def canaries(self) -> float:
        return sum(self.gets(f"request {n}") != self.gets("") for n in range(2000)) / 2000


@pytest.fixture
async def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def test_without_the_file_all_is_served_and_the_highest_is_the_default(world: World) -> None:
    await world.start("1", "2")
    assert world.catalog.routes is None
    assert world.gets() == "2"


async def test_load_canary_promote_roll_back_unload(world: World) -> None:
    await world.start("1")
    file, _ = write(world.folder, M, "2")
    load(world.folder, Path(file))
    await world.settle()
    assert world.host.said == ["+2"]
    assert world.gets() == "1"
    assert world.catalog.find(M, "2").version == "2", "a request may pin it"
    promote(world.folder, M, "2", 0.2)
    await world.settle()
    assert 0.15 < world.canaries() < 0.25
    chosen = {n for n in range(500) if world.gets(str(n)) == "2"}
    promote(world.folder, M, "2", 0.6)
    await world.settle()
    assert 0.55 < world.canaries() < 0.65
    assert chosen <= {n for n in range(500) if world.gets(str(n)) == "2"}, "who was chosen stays"
    promote(world.folder, M, "2")
    await world.settle()
    assert {world.gets(str(n)) for n in range(50)} == {"2"}
    rollback(world.folder, M)
    await world.settle()
    assert 0.55 < world.canaries() < 0.65
    promote(world.folder, M, "2")
    unload(world.folder, M, "1")
    await world.settle()
    assert world.host.said == ["+2", "-1"]
    with pytest.raises(ModelNotFound):
        world.catalog.find(M, "1")
    rollback(world.folder, M)
    rollback(world.folder, M)
    rollback(world.folder, M)
    await world.settle()
    assert world.host.said == ["+2", "-1", "+1"]
    assert 0.15 < world.canaries() < 0.25


async def test_callers_move_only_when_the_new_version_was_seen_to_compute(world: World) -> None:
    await world.start("1")
    world.host.slow.add("2")
    file, _ = write(world.folder, M, "2")
    load(world.folder, Path(file))
    promote(world.folder, M, "2")
    unload(world.folder, M, "1")
    await world.settle()
    assert (world.gets(), world.host.said) == ("1", ["+2"])
    world.host.slow.clear()
    world.host.look()
    await world.settle()
    assert (world.gets(), world.host.said) == ("2", ["+2", "-1"])
    # Who is the default stays it through an outage; nobody is sent elsewhere in silence.
    world.host.slow.add("2")
    world.host.look()
    await world.settle()
    assert world.gets() == "2"


async def test_a_canary_that_cannot_compute_gets_nobody(world: World) -> None:
    await world.start("1")
    world.host.slow.add("2")
    file, _ = write(world.folder, M, "2")
    load(world.folder, Path(file))
    promote(world.folder, M, "2", 0.5)
    await world.settle()
    assert world.canaries() == 0


async def test_what_is_held_is_not_let_go(world: World) -> None:
    await world.start("1", "2")
    with world.catalog.using(world.catalog.find(M, "1")):
        unload(world.folder, M, "1")
        await world.settle()
        with pytest.raises(ModelNotFound):
            world.catalog.find(M, "1")
        assert world.host.said == []
    await world.settle()
    assert world.host.said == ["-1"]


async def test_what_does_not_load_changes_nothing_and_is_tried_again(
    world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.backends.reconcile._FIRST_RETRY_S", 0.05)
    await world.start("1")
    file, _ = write(world.folder, M, "2")
    load(world.folder, Path(file))
    promote(world.folder, M, "2")
    unload(world.folder, M, "1")
    world.host.refuse.add("2")
    await world.settle()
    assert (world.gets(), world.host.said) == ("1", [])
    assert sum("it does not load" in record.message for record in caplog.records) == 1
    (world.folder / file).rename(world.folder / "away")
    world.host.refuse.clear()
    await asyncio.sleep(0.06)
    await world.settle()
    assert "no such archive" in caplog.records[-1].message
    (world.folder / "away").rename(world.folder / file)
    await asyncio.sleep(0.11)
    await world.settle()
    assert (world.gets(), world.host.said) == ("2", ["+2", "-1"])


async def test_another_archive_than_the_one_listed_is_never_loaded(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    await world.start("1")
    file, _ = write(world.folder, M, "2")
    load(world.folder, Path(file))
    write(world.folder, M, "2", weight=1.0)
    await world.settle()
    assert world.host.said == []
    assert "its digest is" in caplog.text


async def test_a_version_whose_archive_was_replaced_behind_our_back_is_loaded_anew(world: World) -> None:
    """Unloaded, built again and loaded while nobody looked."""
    await world.start("1", "2")
    unload(world.folder, M, "1")
    file, digest = write(world.folder, M, "1", weight=1.0)
    load(world.folder, Path(file))
    await world.settle()
    assert world.host.said == ["-1", "+1"]
    assert world.catalog.find(M, "1").digest == digest


async def test_a_file_that_is_wrong_or_gone_changes_nothing_and_is_told_once(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    await world.start("1", "2")
    promote(world.folder, M, "1")
    await world.settle()
    path = world.folder / FILE_NAME
    sound = path.read_text()
    with caplog.at_level(logging.ERROR):
        path.write_text("models: [")
        await world.settle()
        path.unlink()
        await world.settle()
    assert ["stays as it is" in record.message for record in caplog.records] == [True, True]
    assert world.gets() == "1"
    path.write_text(sound.replace("default: '1'", "default: '2'"))
    await world.settle()
    assert world.gets() == "2"


async def test_what_cannot_be_unloaded_now_is_unloaded_later(world: World) -> None:
    await world.start("1", "2")
    world.host.refuse.add("-1")
    unload(world.folder, M, "1")
    await world.settle()
    assert world.host.said == []
    world.host.refuse.clear()
    await world.settle()
    assert world.host.said == ["-1"]


async def test_a_change_of_mind_while_it_unloads_sends_nobody_there_until_it_is_loaded_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.start("1", "2")
    begun, go_on, unloads = asyncio.Event(), asyncio.Event(), world.host.unload

    async def slowly(name: str, version: str) -> None:
        begun.set()
        await go_on.wait()
        await unloads(name, version)

    monkeypatch.setattr(world.host, "unload", slowly)
    async with world.reconciler, asyncio.timeout(10):
        unload(world.folder, M, "1")
        await begun.wait()
        rollback(world.folder, M)
        promote(world.folder, M, "1")
        await asyncio.sleep(0.1)
        assert world.gets() == "2"
        go_on.set()
        while world.gets() != "1":
            await asyncio.sleep(0.01)
    assert world.host.said == ["-1", "+1"]


async def test_it_follows_by_itself_and_survives_surprises(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.start("1", "2")
    surprises = [RuntimeError("surprise")]
    original = world.host.loaded

    def loaded() -> dict[tuple[str, str], str]:
        if surprises and world.catalog.routes is not None:
            raise surprises.pop()
        return original()

    async with world.reconciler:
        promote(world.folder, M, "1")
        async with asyncio.timeout(10):
            while world.gets() != "1":
                await asyncio.sleep(0.01)
            monkeypatch.setattr(world.host, "loaded", loaded)
            promote(world.folder, M, "2")
            while world.gets() != "2":
                await asyncio.sleep(0.01)
    assert surprises == []


async def test_a_model_that_is_no_longer_listed_is_not_found(world: World) -> None:
    await world.start("1")
    other, _ = write(world.folder, "other", "1")
    await world.host.load(world.folder / other, archive.info(world.folder / other))
    unload(world.folder, "other")
    await world.settle()
    with pytest.raises(ModelNotFound):
        world.catalog.find("other")
    assert [info.name for info in world.catalog.models] == [M]
