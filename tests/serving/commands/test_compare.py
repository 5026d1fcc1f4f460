"""`saaa compare` as people type it: against plain arithmetic whose answers are known, and against the real local
backend."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from saaa import archive
from saaa.client import Client
from saaa.errors import BackendFailed
from saaa.work import ItemResult, Work, WorkBatch
from serving.backends.local import LocalBackend
from serving.commands.cli import main
from serving.server import Facade
from tests.pages import without_pictures
from tests.serving.pixel_backend import CAPTIONER, CLASSIFIER, QUICK, PixelBackend, photo

SECOND = replace(CLASSIFIER, version="2", digest="c" * 64)
OTHER = replace(CLASSIFIER, name="inks", classes=("red", "cyan", "blue"), digest="d" * 64)


class TwoEyes(PixelBackend):
    """Version 2 takes red for green and green for red; what `failing` names does not answer."""

    failing: set[tuple[str, str, Work]]

    async def run(self, batch: WorkBatch, *, timeout: float) -> list[ItemResult]:
        if (batch.model, batch.version, batch.work) in self.failing:
            raise BackendFailed("the model is upset")
        if batch.version == "2":
            batch = replace(batch, pixels=np.ascontiguousarray(batch.pixels[..., [1, 0, 2]]))
        return await super().run(batch, timeout=timeout)


@contextmanager
def served(backend: Any) -> Iterator[str]:
    """The address of a facade that runs in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    if isinstance(backend, LocalBackend):
        asyncio.run_coroutine_threadsafe(backend.start(), loop).result(60)
    facade = Facade(backend, QUICK)
    asyncio.run_coroutine_threadsafe(facade.__aenter__(), loop).result(60)
    try:
        yield facade.address
    finally:
        asyncio.run_coroutine_threadsafe(facade.__aexit__(None, None, None), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.fixture(scope="module")
def eyes() -> Iterator[tuple[TwoEyes, str]]:
    backend = TwoEyes(CLASSIFIER, SECOND, OTHER, CAPTIONER)
    backend.failing = set()
    with served(backend) as address:
        yield backend, address


@pytest.fixture
def run(eyes: tuple[TwoEyes, str], tmp_path: Path) -> Iterator[Any]:
    backend, address = eyes
    (tmp_path / "red.png").write_bytes(photo((200, 20, 20)))

    def compare(*words: object, name: str = "red.png") -> int:
        given = [tmp_path / name, "--address", address, "--out", tmp_path / "out" / "page.html", *words]
        return main(["compare", *map(str, given)])

    yield compare
    backend.failing = set()


def test_versions_differ_and_the_table_says_how(run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--models", "colours") == 0
    captured = capsys.readouterr()
    lines = [line.split() for line in captured.out.splitlines()]
    assert lines[1] == ["class", "version", "1", "version", "2"]
    # In the photo a sixteenth is (200, 20, 20), the rest a quarter of that: the classes' scores are exp(mean / 50).
    [red, green, blue] = np.exp(np.array([200, 20, 20]) * (1 / 16 + 15 / 16 / 4) / 50)
    share = red / (red + green + blue)
    rows = {line[0]: line[1:] for line in lines[2:]}
    assert float(rows["red"][0].strip("%")) == pytest.approx(100 * share, abs=0.5)
    assert rows["red"][0] == rows["green"][1]
    assert rows["green"][0] == rows["red"][1]
    difference = float(rows["green"][1].strip("%")) - float(rows["green"][0].strip("%"))
    assert float(rows["green"][2].strip("()")) == pytest.approx(difference, abs=0.11)
    assert rows["red"][2] == "(-" + rows["green"][2][2:]
    assert rows["blue"][2] == "(0.0)"

    page = (tmp_path / "out" / "page.html").read_text(encoding="utf-8")
    assert str(tmp_path / "out" / "page.html") in captured.err
    # Each version's best class is explained in both.
    assert page.index("What speaks for red") < page.index("What speaks for green")
    assert page.count("data:image/png") == 1 + 2 * 2
    assert "http" not in without_pictures(page)


def test_json_holds_everything(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--json") == 0
    document = json.loads(capsys.readouterr().out)
    models = document["models"]
    assert [(model["name"], model["version"]) for model in models] == [
        ("colours", "1"),
        ("colours", "2"),
        ("inks", "1"),
    ]
    assert [model["archive_sha256"][0] for model in models] == ["a", "c", "d"]
    assert [model["predictions"][0]["label"] for model in models] == ["red", "green", "red"]
    assert [[entry["target"] for entry in model["attributions"]] for model in models] == [
        ["red", "green"],
        ["red", "green"],
        ["red"],
    ]
    assert all(model["failure"] is None for model in models)
    # The red channel is what version 1 sees of red and version 2 of green.
    assert models[0]["attributions"][0]["grid"] == models[1]["attributions"][1]["grid"]


def test_the_first_model_named_is_the_one_compared_with(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--models", "colours:2", "inks", "colours", "--top_k", "1", "--classes", "cyan", "blue") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["class", "colours", "2", "inks", "1", "colours", "1"]
    assert {line.split()[0] for line in lines[2:]} == {"red", "green"}
    [green] = [line.split() for line in lines if line.split()[0] == "green"]
    assert green[2] == "-"  # inks does not know it


def test_nodes_of_a_given_graph_are_compared(run: Any, tmp_path: Path) -> None:
    graph = tmp_path / "graph.json"
    thing = {"object_id": 1, "name": "the <b>square", "attributes": [], "x": 20, "y": 10, "w": 20, "h": 10}
    graph.write_text(json.dumps({"objects": [thing], "relationships": []}))
    assert run("--models", "colours") == 0
    page = tmp_path / "out" / "page.html"
    assert "Concepts" not in page.read_text()
    assert run("--models", "colours", "--graph", graph) == 0
    assert page.read_text().count("the &lt;b&gt;square") == 2
    assert "<b>square" not in page.read_text()
    graph.write_text(json.dumps({"5": {"objects": [thing]}, "6": {"objects": [thing]}}))
    assert run("--models", "colours", "--graph", graph) == 2


def test_a_model_that_fails_does_not_hide_the_others(
    run: Any, eyes: tuple[TwoEyes, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    eyes[0].failing = {("colours", "2", Work.PREDICT), ("inks", "1", Work.EXPLAIN)}
    assert run() == 1
    captured = capsys.readouterr()
    assert captured.out.splitlines()[1].split() == ["class", "colours", "1", "colours", "2", "inks", "1"]
    told = [line for line in captured.err.splitlines() if line.startswith("saaa: ")]
    assert [line.split(": ")[1] for line in told] == ["colours:2", "inks:1"]
    page = (tmp_path / "out" / "page.html").read_text()
    assert "2 of 3 models answered" in page
    assert "no answer" in page
    assert "What speaks for red" in page
    assert page.count("upset") >= 3


def test_a_bad_photo_is_told_once(run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.png").write_bytes(b"no picture at all")
    for name, reason in (("bad.png", "IMAGE_REJECTED"), ("gone.png", "FILE_UNREADABLE")):
        assert run(name=name) == 1
        captured = capsys.readouterr()
        assert captured.out == ""
        [line] = captured.err.splitlines()
        assert name in line
        assert reason in line
    assert not (tmp_path / "out").exists()


def test_wrong_words_are_one_line(run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, named in (
        (["--models", "paints"], "paints"),
        (["--models", "colours:3"], "colours:1, colours:2, inks:1"),
        (["--models", "words"], "words"),
        (["--classes", "mauve"], "mauve"),
        (["--top_k", "0"], "top_k"),
        (["--timeout", "0"], "timeout"),
    ):
        assert run(*words) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert named in line
    (tmp_path / "out").write_text("in the way")
    assert run("--models", "colours") == 2
    assert "cannot be written" in capsys.readouterr().err
    assert main(["compare", str(tmp_path / "red.png"), "--address", "127.0.0.1:1"]) == 2


def test_real_versions_of_a_real_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tests.tiny_models import CLASSES, make_classifier

    (tmp_path / "models").mkdir()
    for seed in range(2):
        made = make_classifier(seed).to_archive("tiny", f"1.{seed}", {})
        archive.write(tmp_path / "models" / f"{seed}.mar", made)
    picture = tmp_path / "photo.png"
    picture.write_bytes(photo())

    with served(LocalBackend(tmp_path / "models")) as address:
        assert (
            main(["compare", str(picture), "--address", address, "--json", "--out", str(tmp_path / "page.html")]) == 0
        )
        document = json.loads(capsys.readouterr().out)
        with Client(address) as client:
            for model in document["models"]:
                analysis = client.analyze(
                    picture,
                    outputs=("predictions", "attributions"),
                    classifier=f"tiny:{model['version']}",
                    top_k=len(CLASSES),
                    classes=[entry["target"] for entry in model["attributions"]],
                )
                assert [entry.to_json() for entry in analysis.predictions] == model["predictions"]
                for entry, said in zip(analysis.attributions, model["attributions"], strict=True):
                    np.testing.assert_allclose(entry.grid, said["grid"], rtol=1e-4, atol=1e-6)
    best = [model["predictions"][0]["label"] for model in document["models"]]
    targets = {entry["target"] for entry in document["models"][0]["attributions"]}
    assert targets == set(best)
    assert (tmp_path / "page.html").stat().st_size > 10_000
