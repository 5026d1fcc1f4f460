"""`saaa analyze FOLDER --out` as people use it: everything answered once, and going on where it stopped."""

from __future__ import annotations

import asyncio
import io
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from serving.commands.cli import main
from serving.commands.progress import Bar
from serving.server import Facade
from tests.serving.pixel_backend import CLASSIFIER, QUICK, PixelBackend, photo

COLOURS = {"red": (200, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 200)}


class Service:
    """A facade in a thread of its own, and the images that its backend saw."""

    def __init__(self, address: str, backend: PixelBackend) -> None:
        self.address = address
        self.backend = backend

    def asked(self) -> int:
        """Images since the last time."""
        count = sum(len(batch.items) for batch in self.backend.batches)
        self.backend.batches.clear()
        return count


@pytest.fixture
def service() -> Iterator[Service]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    backend = PixelBackend(CLASSIFIER)
    facade = Facade(backend, QUICK)
    asyncio.run_coroutine_threadsafe(facade.__aenter__(), loop).result(30)
    yield Service(facade.address, backend)
    asyncio.run_coroutine_threadsafe(facade.__aexit__(None, None, None), loop).result(30)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for name, colour in COLOURS.items():
        (folder / f"{name}.png").write_bytes(photo(colour))
    (folder / "more" / "deep.PNG").write_bytes(photo((150, 40, 40)))
    (folder / "notes.txt").write_text("no picture")
    return folder


def run(service: Service, *words: object) -> int:
    return main(["analyze", *(str(word) for word in words), "--address", service.address])


def predict(service: Service, *words: object) -> int:
    """Without pictures to draw, which cost more than all the rest."""
    return run(service, *words, "--outputs", "predictions")


def test_a_folder_is_answered_with_all_that_is_in_it(
    service: Service, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run(service, photos, "--out", out) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"report: {out / 'report.html'}\n"
    labels = {path.stem: json.loads(path.read_text())["predictions"][0]["label"] for path in out.glob("*.json")}
    assert labels == {"red": "red", "green": "green", "blue": "blue", "deep": "red"}
    assert service.asked() == 4
    # Named one by one, or without files, they are told.
    assert run(service, photos, "--outputs", "predictions") == 0
    told = [line for line in capsys.readouterr().out.splitlines() if not line.startswith(" ")]
    assert [Path(line).name for line in told] == ["blue.png", "green.png", "deep.PNG", "red.png"]


def test_the_same_command_goes_on_where_it_was_stopped(
    service: Service, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    (photos / "bad.png").write_bytes(b"no picture")
    assert predict(service, photos, "--out", out) == 1
    assert service.asked() == 4
    first = (out / "red.json").read_text()
    page = (out / "report.html").read_text()
    # Stopped in the middle of a line.
    kept = (out / "answers.jsonl").read_text().splitlines(keepends=True)
    (out / "answers.jsonl").write_text("".join(kept[:2]) + kept[2][:100])
    capsys.readouterr()
    assert predict(service, photos, "--out", out) == 1
    assert "2 of 5 answered before" in capsys.readouterr().err
    assert service.asked() == 2
    # Done now, but for the one that fails, and the report is of all of them.
    assert predict(service, photos, "--out", out, "--json") == 1
    assert service.asked() == 0
    assert len(json.loads(capsys.readouterr().out)["images"]) == 4
    again = json.loads((out / "red.json").read_text())
    assert {**json.loads(first), "timings": 0, "request_id": 0} == {**again, "timings": 0, "request_id": 0}
    assert (out / "report.html").read_text().count("<img") == page.count("<img")


def test_what_was_answered_is_known_by_its_content_and_its_options(
    service: Service, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert predict(service, photos, "--out", out) == 0
    assert service.asked() == 4
    # Another name, the same picture.
    (photos / "red.png").rename(photos / "rouge.png")
    assert predict(service, photos, "--out", out) == 0
    assert service.asked() == 0
    # Another picture under the same name.
    (photos / "green.png").write_bytes(photo((10, 230, 10)))
    assert predict(service, photos, "--out", out) == 0
    assert service.asked() == 1
    # Other options, another graph, another model.
    assert predict(service, photos, "--out", out, "--top_k", 1) == 0
    assert service.asked() == 4
    region = {"objects": [{"object_id": 1, "name": "square", "x": 20, "y": 10, "w": 20, "h": 10}]}
    graph = tmp_path / "graph.json"
    graph.write_text(json.dumps({file.name: region for file in photos.rglob("*.[pP][nN][gG]")}))
    for expected in (4, 0):
        assert predict(service, photos, "--out", out, "--graph", graph) == 0
        assert service.asked() == expected
    service.backend.models = (replace(CLASSIFIER, version="2", digest="c" * 64),)
    for _ in range(500):
        if predict(service, photos / "blue.png", "--out", tmp_path / "other") == 0:
            document = json.loads((tmp_path / "other" / "blue.json").read_text())
            if document["provenance"]["classifier"]["version"] == "2":
                break
    service.asked()
    assert predict(service, photos, "--out", out) == 0
    assert service.asked() == 4


def test_a_service_that_goes_away_is_told_and_the_answers_are_kept(
    service: Service, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert predict(service, photos / "red.png", "--out", out) == 0
    service.asked()
    service.backend.seconds = 30
    assert predict(service, photos, "--out", out, "--timeout", "0.2") in (1, 2)
    assert "saaa: " in capsys.readouterr().err
    service.backend.seconds = 0
    assert len((out / "answers.jsonl").read_text().splitlines()) == 1


def test_a_folder_without_pictures_is_wrong_usage(
    service: Service, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(service, tmp_path) == 2
    assert "no pictures" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_told_before_anything_is_asked(
    service: Service, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert run(service, photos, "--out", tmp_path / "file") == 2
    assert "cannot be kept" in capsys.readouterr().err
    assert service.asked() == 0


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_bar_is_for_terminals() -> None:
    terminal = Terminal()
    bar = Bar(4, 1, what="drawing ", stream=terminal)
    bar.step()
    bar.step(failed=True)
    bar.clear()
    bar.step()
    lines = terminal.getvalue().split("\r\x1b[K")[1:]
    assert [line.split("]")[0].count("#") for line in lines] == [7, 15, 22, 0, 30]
    assert lines[0].startswith("drawing [")
    assert lines[0].endswith("] 1/4")
    assert "3/4, " in lines[2]
    assert lines[2].endswith("1 failed")
    assert lines[-1].endswith("4/4, 1 failed")
    for total, stream in ((4, io.StringIO()), (1, Terminal())):
        quiet = Bar(total, stream=stream)
        quiet.step()
        quiet.clear()
        assert stream.getvalue() == ""
