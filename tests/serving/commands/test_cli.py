"""The commands as people type them, against a facade of plain arithmetic and the real local backend."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from saaa.client import Client
from saaa.work import Execution
from serving.commands.cli import UNUSABLE, main
from serving.server import Facade
from tests.serving.pixel_backend import CAPTIONER, CLASSIFIER, QUICK, PixelBackend, photo

FALLEN_BACK = Execution(runtime="torch", precision="fp32", refused="bf16: top-1 agreement 0.9900 < 0.995")

REGION = {
    "objects": [
        {"object_id": 1, "name": "square", "attributes": ["bright"], "x": 20, "y": 10, "w": 20, "h": 10},
        {"object_id": 2, "name": "ground", "attributes": [], "x": 0, "y": 0, "w": 80, "h": 40},
    ],
    "relationships": [{"relationship_id": 1, "subject_id": 1, "object_id": 2, "name": "on"}],
    "phrase": "a bright square on the ground",
}


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A facade that runs in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    classifier = replace(CLASSIFIER, decode_scales=(2, 4), decode_margin=1.5)
    facade = Facade(PixelBackend(classifier, replace(CAPTIONER, execution=FALLEN_BACK)), QUICK)
    asyncio.run_coroutine_threadsafe(facade.__aenter__(), loop).result(30)
    yield facade.address
    asyncio.run_coroutine_threadsafe(facade.__aexit__(None, None, None), loop).result(30)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "red.png").write_bytes(photo((200, 20, 20)))
    (folder / "blue.png").write_bytes(photo((20, 20, 200)))
    (folder / "bad.png").write_bytes(b"no picture at all")
    return folder


def run(*words: object) -> int:
    return main([str(word) for word in words])


def test_analyze_tells_class_reason_and_caption(address: str, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("analyze", photos / "red.png", "--address", address, "--top_k", "2") == 0
    out = capsys.readouterr().out
    assert "red.png" in out
    assert [line.split()[-1] for line in out.splitlines() if "%" in line] == ["red", "green"]
    assert "nodes" in out
    assert "proposed" in out


def test_words_nodes_and_effects_are_told(
    address: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    graph = tmp_path / "graph.json"
    graph.write_text(json.dumps(REGION))
    asked = ("analyze", photos / "red.png", "--address", address, "--graph", graph)
    assert run(*asked, "--words", "all", "--nodes", "object:2", "--effects", "--deletion", "--out", tmp_path / "o") == 0
    out = capsys.readouterr().out
    assert "word nodes because of (attention)" in out
    assert "node ground because of (attention)" in out
    assert "deletion drop 0.250" in out
    assert out.count("deletion drop 0.500") == 3
    assert "on +9.00" in out
    assert (tmp_path / "o" / "red.attribution.3.png").is_file()
    assert run(*asked, "--text", "two words", "--words", "1", "--json") == 0
    (image,) = json.loads(capsys.readouterr().out)["images"]
    assert [entry["target"] for entry in image["attributions"]] == ["red", "words"]
    assert run(*asked, "--words", "first") == 2
    assert "--words" in one_line(capsys)


def test_one_refused_photo_does_not_stop_the_others(
    address: str, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [photos / name for name in ("bad.png", "red.png", "missing.png", "blue.png")]
    assert run("analyze", *names, "--address", address, "--json") == 1
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert [Path(image["file"]).name for image in document["images"]] == ["red.png", "blue.png"]
    assert [image["predictions"][0]["label"] for image in document["images"]] == ["red", "blue"]
    assert [(Path(entry["file"]).name, entry["reason"]) for entry in document["failures"]] == [
        ("bad.png", "IMAGE_REJECTED"),
        ("missing.png", "FILE_UNREADABLE"),
    ]
    errors = captured.err.splitlines()
    assert len(errors) == 2
    assert "bad.png" in errors[0]


def test_report_is_written(address: str, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run("analyze", photos / "red.png", photos / "bad.png", "--address", address, "--out", out) == 1
    assert "red.png" in (out / "report.html").read_text()
    assert json.loads((out / "red.json").read_text())["predictions"][0]["label"] == "red"


@pytest.mark.parametrize(
    ("content", "regions"),
    [
        (REGION, [""]),
        ({"5": REGION, "6": REGION}, ["5", "6"]),
        ({"red.png": REGION}, [""]),
        ({"red.png": {"5": REGION}}, ["5"]),
    ],
)
def test_graph_files_in_every_form(
    address: str,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    content: dict[str, object],
    regions: list[str],
) -> None:
    path = tmp_path / "graph.json"
    path.write_text(json.dumps(content))
    assert run("analyze", photos / "red.png", "--address", address, "--graph", path, "--json") == 0
    images = json.loads(capsys.readouterr().out)["images"]
    assert [image.get("region_id", "") for image in images] == regions
    assert {image["graph_source"] for image in images} == {"request"}
    assert images[0]["graph"]["objects"] == REGION["objects"]


def test_graph_folder_for_several_photos(
    address: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "red.json").write_text(json.dumps(REGION))
    (tmp_path / "blue.json").write_text(json.dumps({"9": REGION}))
    words = (photos / "red.png", photos / "blue.png", "--address", address, "--graph", tmp_path, "--json")
    assert run("analyze", *words) == 0
    assert [image["graph_source"] for image in json.loads(capsys.readouterr().out)["images"]] == ["request"] * 2


@pytest.mark.parametrize("content", ["not json", "[1, 2]", "{}", '{"a": 3}'])
def test_unusable_graph_file_is_one_line(
    address: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    path = tmp_path / "graph.json"
    path.write_text(content)
    assert run("analyze", photos / "red.png", "--address", address, "--graph", path) == 2
    assert one_line(capsys)


def test_models_are_listed(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("models", "--address", address) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["colours", "JPEGs", "words", "not"]
    assert "brightness (class, 2 forwards)" in lines[0]
    assert lines[1] == "  JPEGs decoded at 1/2, 1/4 where 1.5 pixels are left for each of the input's"
    assert "attention (word/node, 0.5 forwards)" in lines[2]
    assert "  ready  torch fp32  bbbbbbbbbbbb" in lines[2]
    assert lines[3] == "  not used: bf16: top-1 agreement 0.9900 < 0.995"
    assert run("models", "--address", address, "--json") == 0
    models = json.loads(capsys.readouterr().out)
    assert models[0]["classes"] == ["red", "green", "blue"]
    assert models[1]["execution"]["runtime"] == "torch"


def test_hyphens_and_underscores_both_work(address: str, photos: Path) -> None:
    for flag in ("--top-k", "--top_k"):
        assert run("analyze", photos / "red.png", "--address", address, flag, 1) == 0


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("saaa: ")
    return lines[0]


def test_unreachable_service_is_one_line(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        nobody = f"127.0.0.1:{sock.getsockname()[1]}"
        assert run("analyze", photos / "red.png", "--address", nobody) == 2
        assert nobody in one_line(capsys)
        assert run("models", "--address", nobody) == 2
        assert nobody in one_line(capsys)


@pytest.mark.parametrize("backend", ["local", "torchserve"])
def test_unusable_model_folder_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], backend: str) -> None:
    assert run("up", "--models", tmp_path / "nowhere", "--backend", backend, "--port", 0) == 2
    assert "nowhere" in one_line(capsys)
    assert run("up", "--models", tmp_path, "--backend", backend, "--port", 0) == 2
    assert ".mar" in one_line(capsys)
    (tmp_path / "broken.mar").write_bytes(b"PK, but nothing else")
    assert run("up", "--models", tmp_path, "--backend", backend, "--port", 0) == 2
    assert "broken.mar" in one_line(capsys)


def test_port_in_use_is_one_line_before_any_model_is_loaded(
    address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    port = address.rpartition(":")[2]
    assert run("up", "--models", tmp_path, "--port", port) == 2
    assert port in one_line(capsys)
    assert run("serve", "--backend_address", "127.0.0.1:1", "--port", port) == 2
    assert port in one_line(capsys)


def test_wrong_java_is_one_line(
    tmp_path: Path, tiny_models: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\" 2019-01-15' >&2\n")
    java.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    assert run("up", "--models", tiny_models, "--port", 0) == 2
    line = one_line(capsys)
    assert "17" in line
    assert "JAVA_HOME" in line


def test_wrong_backend_address_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for wrong in ("nonsense", "host:", ":70", "host:99999"):
        assert run("serve", "--backend_address", wrong, "--port", 0) == 2
        assert "HOST:PORT" in one_line(capsys)


def test_torchserve_needs_a_port_and_the_one_after_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for wrong in (0, 65535):
        assert run("torchserve", "--models", tmp_path, "--port", wrong) == 2
        assert "1 to 65534" in one_line(capsys)
    assert run("torchserve", "--models", tmp_path / "none") == 2
    assert "does not exist" in one_line(capsys)


@pytest.mark.parametrize("words", [["fly"], ["up"], ["analyze", "--top_k", "many"], []])
def test_wrong_usage_exits_with_two(words: list[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(words)
    assert exit_.value.code == 2


def test_no_photo_is_wrong_usage(address: str) -> None:
    assert run("analyze", "--address", address) == 2


def test_nobody_reads_what_is_printed(address: str, photos: Path) -> None:
    """As in `saaa analyze ... | head -1`, once head has gone."""
    command = [sys.executable, "-m", main.__module__, "analyze", "--address", address, *map(str, photos.iterdir())]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    with process.stderr:
        said = process.stderr.read()
    assert process.wait(60) == 141
    assert b"Traceback" not in said
    assert b"BrokenPipe" not in said


def test_up_serves_until_a_signal(tiny_models: Path) -> None:
    command = [sys.executable, "-m", "serving.commands.cli", "up", "--backend", "local", "--port", "0", "--models"]
    process = subprocess.Popen(
        [*command, str(tiny_models)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("serving on 127.0.0.1:")
        assert line.endswith("(local, 2 models)\n")
        with Client(line.split()[2]) as client:
            analysis = client.analyze(photo())
            assert analysis.predictions
            assert analysis.captions
            assert analysis.provenance.backend == "local"
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()


def test_options_of_drawing_need_drawing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["analyze", "photo.jpg", "--temperature", "0.5"]) == UNUSABLE
    assert "--sample" in capsys.readouterr().err
