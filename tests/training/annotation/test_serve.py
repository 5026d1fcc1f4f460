"""Label Studio itself: installed, started, filled, answered by a user, fetched from, stopped."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request

import pytest

from saaa.annotations import Unit
from saaa.annotations.drawing import ATTRIBUTES, BOX, NAME
from saaa.annotations.readers import STUDIO_DESCRIPTION, STUDIO_RATING, STUDIO_TYPE
from saaa.errors import DataError, OptionInvalid, StartFailed
from training.annotation import ExportConfig, ImportConfig, ServeConfig, export_tasks, import_answers, serve_tasks
from training.annotation.studio_client import StudioClient
from training.annotation.studio_install import VERSION, installed
from training.annotation.studio_lock import held
from training.annotation.studio_server import StudioServer
from training.annotation.tasks import ATTRIBUTION_LABELS, RATIONALE_LABELS, studio_task
from training.cli import main
from training.stopping import Stop


@pytest.fixture
def tasks(classified: Path, tmp_path: Path) -> Path:
    """Two tasks of attribution and one of rationale an image, of four."""
    export_tasks(ExportConfig(run=classified, out=tmp_path / "tasks"))
    return tmp_path / "tasks"


def load(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Label Studio, really installed; removed afterwards, for it is large."""
    folder = tmp_path_factory.mktemp("label-studio")
    try:
        installed(folder, Stop())
    except StartFailed as error:
        if shutil.disk_usage(folder).free > 2e9:
            pytest.skip(f"no package index to be had: {error.message[:200]}")
        raise
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def serving(tasks: Path, environment: Path) -> Iterator[tuple[subprocess.Popen[str], StudioClient, list[str]]]:
    """The command in a process of its own, its API as the user who logs in, and what it has printed."""
    words = ["annotate", "serve", "--tasks", str(tasks), "--environment", str(environment), "--port", "0"]
    process = subprocess.Popen(
        [sys.executable, "-m", "training", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    printed: list[str] = []
    try:
        assert process.stdout is not None
        for line in process.stdout:
            printed.append(line)
            if line.startswith("Ctrl-C"):
                break
        (url,) = {word.rstrip(":") for line in printed for word in line.split() if word.startswith("http://127.")}
        token = load(tasks / "studio/credentials.json")["token"]
        yield process, StudioClient(url, token), printed
    finally:
        process.kill()
        process.wait()


def listens(client: StudioClient) -> bool:
    host, port = client.url.removeprefix("http://").split(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


def rate(kind: str, description: str, rating: float) -> dict[str, Any]:
    """What Label Studio's own page sends."""
    values = (
        (STUDIO_TYPE, "choices", {"choices": [kind]}),
        (STUDIO_DESCRIPTION, "textarea", {"text": [description]}),
        (STUDIO_RATING, "number", {"number": rating}),
    )
    result = [{"id": n, "from_name": n, "to_name": "picture", "type": t, "value": v} for n, t, v in values]
    return {"result": result, "lead_time": 1.5}


def draw(name: str, attributes: str, x: float, y: float, width: float, height: float) -> dict[str, Any]:
    size = {"original_width": 64, "original_height": 64, "image_rotation": 0}
    box = {"x": x, "y": y, "width": width, "height": height, "rotation": 0}
    values = (
        (BOX, "rectanglelabels", {**box, "rectanglelabels": ["object"]}),
        (NAME, "textarea", {**box, "text": [name]}),
        (ATTRIBUTES, "textarea", {**box, "text": [attributes]}),
    )
    result = [{"id": "b", "from_name": n, "to_name": "picture", "type": t, "value": v, **size} for n, t, v in values]
    return {"result": result}


@pytest.mark.slow
def test_asked_answered_fetched_and_imported(
    tasks: Path, environment: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pull = ["annotate", "serve", "--tasks", str(tasks), "--environment", str(environment), "--pull"]
    asked = load(tasks / "label_studio/attribution.json")
    given: dict[str, tuple[str, str, float]] = {}
    with serving(tasks, environment) as (process, client, printed):
        # Private, and nothing secret on the screen.
        secrets = load(tasks / "studio/credentials.json")
        assert not any(secrets[name] in "".join(printed) for name in ("password", "token"))
        assert stat.S_IMODE((tasks / "studio").stat().st_mode) == 0o700
        assert stat.S_IMODE((tasks / "studio/credentials.json").stat().st_mode) == 0o600
        projects = {name: client.find(f"saaa {name}") or 0 for name in ("attribution", "rationale")}
        there = {name: list(client.tasks(number)) for name, number in projects.items()}
        assert [task["data"] for task in there["attribution"]] == [task["data"] for task in asked]
        assert len(there["rationale"]) == 4
        # The picture that a browser is sent.
        shown = client._opener.open(_request(client, there["attribution"][0]["data"]["image"])).read()
        assert shown == (tasks / "pictures" / asked[0]["data"]["filename"]).read_bytes()
        # A user answers all tasks but two, skips one of these, and draws.
        for number, task in enumerate(there["attribution"][:-2]):
            answer = ("object", f"<script>alert({number})</script> lamp" if number == 1 else "lamp", 1 + number % 9 / 2)
            client.call("POST", f"/api/tasks/{task['id']}/annotations/", rate(*answer))
            given[task["data"]["task_id"]] = answer
        skipped = there["attribution"][-1]
        client.call("POST", f"/api/tasks/{skipped['id']}/annotations/", {"result": [], "was_cancelled": True})
        drawn = there["rationale"][2]
        client.call("POST", f"/api/tasks/{drawn['id']}/annotations/", draw("ball", "red, round", 25, 50, 50, 25))
        # Fetched while it runs, by another process.
        assert main(pull) == 0
        assert f"attribution: {len(given) + 1} of {len(asked)}" in capsys.readouterr().out
        # And it cannot be started twice.
        assert main([*pull[:-1], "--port", "0"]) == 2
        assert client.url in capsys.readouterr().err
        answers = tuple(tasks / f"answers/{name}.json" for name in ("attribution", "rationale"))
        import_answers(ImportConfig(answers=answers, out=tmp_path / "said"))
        _compare(tmp_path / "said", asked, given, drawn)
        # One more, and Ctrl-C.
        late = there["attribution"][-2]
        client.call("POST", f"/api/tasks/{late['id']}/annotations/", rate("object", "chair", 5))
        given[late["data"]["task_id"]] = ("object", "chair", 5)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        gone_by(client, time.monotonic())
    import_answers(ImportConfig(answers=answers, out=tmp_path / "more"))
    _compare(tmp_path / "more", asked, given, drawn)
    assert len(load(answers[0])) == len(asked)
    with serving(tasks, environment) as (process, client, _):
        # Started again: the same projects, tasks and answers, nothing twice.
        assert {name: client.find(f"saaa {name}") for name in projects} == projects
        ids = [task["id"] for task in client.tasks(projects["attribution"])]
        assert ids == [task["id"] for task in there["attribution"]]
        # As if killed while the tasks were being added: one is missing.
        client.call("DELETE", f"/api/tasks/{ids[-1]}/")
        (tasks / "studio/filled.json").unlink()
        process.kill()
        process.wait()
        gone_by(client, time.monotonic() + 20)
    with serving(tasks, environment) as (process, client, _):
        left = [task["data"]["task_id"] for task in client.tasks(projects["attribution"])]
        assert sorted(left) == sorted(task["data"]["task_id"] for task in asked)
        process.terminate()
        assert process.wait(60) == 0
    # Fetched when nothing runs: what was deleted is gone, all else is there.
    assert main(pull) == 0
    assert f"attribution: {len(given)} of {len(asked)}" in capsys.readouterr().out
    assert not [path for path in tasks.parent.iterdir() if path.name not in ("tasks", "said", "more")]


def gone_by(client: StudioClient, end: float) -> None:
    while listens(client):
        assert time.monotonic() < end
        time.sleep(0.1)


def _request(client: StudioClient, path: str) -> Request:
    return Request(f"{client.url}{path}", headers={"Authorization": f"Token {client._token}"})


def _compare(
    out: Path, asked: list[dict[str, Any]], given: dict[str, tuple[str, str, float]], drawn: dict[str, Any]
) -> None:
    """What was imported is what the user answered."""
    units = {task["data"]["task_id"]: task["data"]["unit"] for task in asked}
    ratings = {(r["image"], r["position"]): r for r in lines(out / "ratings.jsonl")}
    assert len(ratings) == len(given)
    for task, (_, description, rating) in given.items():
        found = ratings[units[task]["image"], units[task]["position"]]
        assert (found["rating"], found["annotator"]) == (rating, "1")
        assert found["description"] == description
    ((image, regions),) = load(out / "human_asg.json").items()
    ((region, (graph,)),) = regions.items()
    assert (image, region) == (drawn["data"]["unit"]["image"], drawn["data"]["unit"]["region"] or "")
    (ball,) = graph["objects"]
    size = drawn["data"]["width"], drawn["data"]["height"]
    assert (ball["name"], ball["attributes"]) == ("ball", ["red", "round"])
    assert (ball["x"], ball["y"], ball["w"], ball["h"]) == (size[0] // 4, size[1] // 2, size[0] // 2, size[1] // 4)
    assert any("skipped" in problem["reason"] for problem in lines(out / "problems.jsonl"))


# What needs no Label Studio.


@pytest.fixture
def few(tmp_path: Path) -> Path:
    """One task, of attribution."""
    folder = tmp_path / "few"
    (folder / "label_studio").mkdir(parents=True)
    task = studio_task("t1", "p.jpg", Unit(image="x.jpg", word="kitchen", target="class"), "kitchen", "/data/")
    for name, made, labels in (("attribution", [task], ATTRIBUTION_LABELS), ("rationale", [], RATIONALE_LABELS)):
        (folder / f"label_studio/{name}.json").write_text(json.dumps(made))
        (folder / f"label_studio/{name}.xml").write_text(labels)
    return folder


def test_folders_without_tasks(few: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["annotate", "serve", "--tasks", str(tmp_path / "nowhere")]) == 2
    assert "annotate export" in capsys.readouterr().err
    (few / "label_studio/rationale.json").write_text('[{"data": {}}]')
    with pytest.raises(DataError, match=r"rationale\.json"):
        serve_tasks(ServeConfig(tasks=few, environment=tmp_path))
    (few / "label_studio/rationale.json").write_text('[{"data": {"task_id": "a"}}, {"data": {"task_id": "a"}}]')
    with pytest.raises(DataError, match="same task_id"):
        serve_tasks(ServeConfig(tasks=few, environment=tmp_path))
    assert not (few / "studio").exists()
    with pytest.raises(OptionInvalid, match="port"):
        ServeConfig(tasks=few, port=70_000)


@pytest.mark.parametrize("with_uv", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_it_cannot_be_installed(
    few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], with_uv: bool
) -> None:
    """The real installers, told to use no package index."""
    if not with_uv:
        monkeypatch.setattr("training.annotation.studio_install.UV", tmp_path / "no-uv")
    for name, value in {"UV_NO_INDEX": "1", "UV_OFFLINE": "1", "UV_NO_CACHE": "1", "PIP_NO_INDEX": "1"}.items():
        monkeypatch.setenv(name, value)
    assert main(["annotate", "serve", "--tasks", str(few), "--environment", str(tmp_path / "env")]) == 2
    told = capsys.readouterr().err
    assert f"label-studio=={VERSION} could not be installed" in told
    assert "package index" in told
    assert "label_studio/" in told


def test_an_installation_is_stopped_and_begun_anew(tmp_path: Path) -> None:
    half = tmp_path / f"label-studio-{VERSION}"
    half.mkdir()
    (half / "left").touch()
    stop = Stop()
    stop.signal = signal.SIGINT
    with pytest.raises(KeyboardInterrupt, match="not installed"):
        installed(tmp_path, stop)
    assert not (half / "left").exists()
    half.mkdir(exist_ok=True)
    (half / "complete").touch()
    assert installed(tmp_path, Stop()) == half / "bin/python"
    # Another process is at it.
    (half / "complete").unlink()
    with held(tmp_path / ".lock"), pytest.raises(KeyboardInterrupt):
        installed(tmp_path, stop)


def test_a_port_that_is_taken(few: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    environment = tmp_path / "env"
    (environment / f"label-studio-{VERSION}").mkdir(parents=True)
    (environment / f"label-studio-{VERSION}" / "complete").touch()
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        words = ["annotate", "serve", "--tasks", str(few), "--environment", str(environment), "--port", port]
        assert main(words) == 2
    assert "--port" in capsys.readouterr().err


def test_a_server_that_ends_at_once_is_quoted(tmp_path: Path) -> None:
    """Our own Python has no Label Studio."""
    state = tmp_path / "studio"
    server = StudioServer(Path(sys.executable), state, tmp_path, port=0, stop=Stop())
    (state / "data").mkdir(parents=True)
    (state / "data" / "half-made").touch()
    with pytest.raises(StartFailed, match="No module named 'label_studio'"), server:
        pass
    assert not (state / "data" / "half-made").exists()
    assert server.ended() is not None


def test_an_environment_that_is_gone(few: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / f"env/label-studio-{VERSION}").mkdir(parents=True)
    (tmp_path / f"env/label-studio-{VERSION}/complete").touch()
    words = ["annotate", "serve", "--tasks", str(few), "--environment", str(tmp_path / "env"), "--port", "0"]
    assert main([*words, "--pull"]) == 2
    assert "has not been served" in capsys.readouterr().err
    assert main(words) == 2
    assert "bin/python: No such file" in capsys.readouterr().err


def test_tasks_that_are_being_served(few: Path, tmp_path: Path) -> None:
    (few / "studio").mkdir()
    with held(few / "studio/.lock"), pytest.raises(StartFailed, match="try again"):
        serve_tasks(ServeConfig(tasks=few, environment=tmp_path, pull=True))
