"""An archive on its way into a running service: through gates and a canary, or back out. Real archives, real gRPC."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from saaa import archive
from saaa.errors import OptionInvalid
from saaa.images import encode_png
from serving.backends.care import Care
from serving.backends.local import LocalBackend
from serving.backends.reconcile import Reconciler
from serving.commands.cli import main
from serving.commands.manage import load
from serving.commands.release import Release, judge
from serving.models import models_file
from serving.server import Facade
from serving.settings import FacadeSettings
from tests.tiny_models import EGDD_NAME, make_classifier, make_pixels

GATES = "accuracy: {at_least: 0.8}\nece: {at_most: 0.1}\n"


@dataclass
class Place:
    """A store with version 1, pictures, gates, and what a training left."""

    store: Path
    folder: Path

    def made(self, version: str, *, seed: int = 2, broken: bool = False, **report: Any) -> Path:
        """An archive and its report."""
        classifier = make_classifier(seed=seed)
        if broken:
            classifier.net.get_classifier().bias.data.fill_(float("nan"))
        path = self.folder / f"made-{version}-{seed}.mar"
        digest = archive.write(path, classifier.to_archive(EGDD_NAME, version, {}))
        told = {"digest": digest, "accuracy": 0.9, "ece": 0.05, **report}
        path.with_suffix(".json").write_text(json.dumps(told))
        return path

    def words(self, path: Path, address: str = "", **options: Any) -> list[str]:
        files = {"report": path.with_suffix(".json"), "gates": self.folder / "gates.yaml", "models": self.store}
        named = {**files, "photos": self.folder / "photos", "address": address, "requests": 3, **options}
        return ["release", str(path), *(f"--{name}={value}" for name, value in named.items())]

    @property
    def entry(self) -> models_file.Entry | None:
        content = models_file.read(self.store)
        return content.models[EGDD_NAME] if content is not None else None


@pytest.fixture
def place(tmp_path: Path) -> Place:
    store = tmp_path / "store"
    (tmp_path / "photos").mkdir()
    store.mkdir()
    for number, pixels in enumerate(make_pixels(4)):
        (tmp_path / "photos" / f"{number}.png").write_bytes(encode_png(pixels))
    (tmp_path / "gates.yaml").write_text(GATES)
    archive.write(store / "first.mar", make_classifier(seed=1).to_archive(EGDD_NAME, "1", {}))
    return Place(store, tmp_path)


@contextlib.asynccontextmanager
async def service(store: Path) -> AsyncIterator[str]:
    """The address of a service that follows a store."""
    settings = FacadeSettings(port=0, probe_interval_s=0.1, leave_s=0, drain_s=5.0)
    async with LocalBackend(store, at_once=1) as backend:
        care = Care(backend, backend)
        async with Facade(care, settings) as facade, Reconciler(care, facade.catalog, interval_s=0.05):
            yield facade.address


async def test_a_good_archive_becomes_the_default_and_is_written_down(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    path = place.made("2")
    async with service(place.store) as address:
        words = place.words(path, address)
        assert await asyncio.to_thread(main, words) == 0
        assert place.entry is not None
        assert (place.entry.default, place.entry.canary, list(place.entry.versions)) == ("2", "", ["1", "2"])
        # Started again, as a Job does whose pod was lost at its end.
        assert await asyncio.to_thread(main, words) == 0
    content = models_file.read(place.store)
    assert content is not None
    assert [change.change for change in content.history] == ["load 2", "promote 2 to 0.1", "promote 2"]
    record = json.loads((place.store / f"{EGDD_NAME}-2.release.json").read_text())
    assert record["digest"] == archive.info(path).digest == place.entry.versions["2"].digest
    assert record["figures"] == {"accuracy": 0.9, "ece": 0.05}
    assert (place.store / f"{EGDD_NAME}-2.mar").read_bytes() == path.read_bytes()
    assert f"{EGDD_NAME} 2" in capsys.readouterr().out


async def test_a_canary_that_does_not_answer_is_taken_back(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    path = place.made("2", broken=True)
    async with service(place.store) as address:
        assert await asyncio.to_thread(main, place.words(path, address, within_s=4)) == 1
    assert place.entry is not None
    assert (place.entry.default, place.entry.canary, list(place.entry.versions)) == ("1", "", ["1"])
    assert "2 is taken back: " in capsys.readouterr().out


def test_a_release_that_was_cut_off_after_the_copy_goes_on(place: Place) -> None:
    """Without models.yaml the copy alone is served; the record says that it is a release's."""
    path = place.made("2")
    (place.store / f"{EGDD_NAME}-2.mar").write_bytes(path.read_bytes())
    assert main(place.words(path, within_s=1)) == 2
    (place.store / f"{EGDD_NAME}-2.release.json").write_text("{}")
    assert main(place.words(path, "127.0.0.1:1", within_s=1)) == 1


def test_nobody_to_ask_takes_back(place: Place) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
    assert main(place.words(place.made("2"), address, within_s=1)) == 1
    assert place.entry is not None
    assert (place.entry.default, list(place.entry.versions)) == ("1", ["1"])


def test_below_a_gate_nothing_is_touched(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(place.words(place.made("2", accuracy=0.7, ece=float("nan")))) == 1
    out = capsys.readouterr().out
    assert "accuracy is 0.7, at least 0.8 is asked" in out
    assert "ece is nan, at most 0.1 is asked" in out
    assert [file.name for file in place.store.iterdir()] == ["first.mar"]


def test_a_report_of_another_archive_and_another_archive_of_the_version_are_refused(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    path = place.made("2", digest="0" * 64)
    assert main(place.words(path)) == 2
    assert "is not of" in capsys.readouterr().err
    assert main(place.words(place.made("1"))) == 2
    assert "1 is served already" in capsys.readouterr().err
    assert [file.name for file in place.store.iterdir()] == ["first.mar"]
    load(place.store, Path("first.mar"))  # from now on a file alone is not served
    (place.store / f"{EGDD_NAME}-2.mar").write_bytes(place.made("2", seed=3).read_bytes())
    assert main(place.words(place.made("2"))) == 2
    assert "is another archive" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text", ["", "accuracy: 0.8", "accuracy: {above: 0.8}", "accuracy: {}", "accuracy: {at_least: x}", "[", "- 1"]
)
def test_gates_that_ask_nothing_are_refused(text: str, place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    (place.folder / "gates.yaml").write_text(text)
    assert main(place.words(place.made("2"))) == 2
    assert "gates" in capsys.readouterr().err
    assert [file.name for file in place.store.iterdir()] == ["first.mar"]


def test_figures_are_found_by_their_path() -> None:
    report = {"along": {"true": {"cider": 90.0}}, "words": "many", "n": None}
    gates = {"along.true.cider": {"at_least": 80.0}, "along.false": {"at_most": 1.0}, "words": {"at_most": 1.0}}
    figures, missed = judge(report, gates)
    assert figures == {"along.true.cider": 90.0}
    assert missed == ["along.false is not in the report", "words is not in the report"]
    assert judge(report, {"along.true.cider": {"at_least": 90.0, "at_most": 90.0}}) == (figures, [])


def test_options(place: Place) -> None:
    given: dict[str, Any] = dict.fromkeys(("archive", "report", "gates", "models"), place.folder)
    for changes in ({"share": 0.0}, {"share": 1.0}, {"requests": 0}, {"within_s": 0.0}):
        with pytest.raises(OptionInvalid):
            Release(**given, photos=(), **changes)
