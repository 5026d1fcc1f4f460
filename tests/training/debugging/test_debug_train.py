"""The loop as one command, on coloured squares: answers that people might give, debug images from a folder."""

from __future__ import annotations

import json
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from saaa import archive as archives
from saaa.annotations.readers import DESCRIPTION, RATING, TYPE
from saaa.errors import CheckpointError, DataError, GeneratorFailed, OptionInvalid
from tests.pages import without_pictures
from tests.training.egdd.conftest import CLASSES, draw
from tests.training.egdd.tiny_run import options, signalled
from tests.training.runs import rows
from training.checkpoint import load_checkpoint, save_checkpoint
from training.cli import main
from training.debugging import DebugTrainConfig, run
from training.debugging.models import Model, trained
from training.egdd import outcome
from training.egdd.train import train
from training.stopping import Stopped

RECIPE = {
    **{"model": "test_efficientnet", "input_size": 32, "batch_size": 8, "epochs": 2, "warmup_epochs": 1, "lr": 3e-3},
    **{"drop_path": 0.0, "min_crop": 0.6, "aa": "none", "resize": "squash", "num_workers": 0, "device": "cpu"},
}
SCRIPT = "<script>alert(1)</script>"


@pytest.fixture(autouse=True)
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures of the confusion and the calibration take longer than these runs; the trainer's own tests have them."""
    monkeypatch.setattr(outcome, "write_pictures", lambda *_: None)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Squares, and a pool and made ones of them; read only."""
    root = tmp_path_factory.mktemp("squares")
    for seed, (name, count) in enumerate({"train": 8, "val": 4, "test": 5, "pool": 6}.items()):
        draw(root / name, count, seed)
    for name in ("test", "pool"):
        for path in (root / name / "red").iterdir():
            path.rename(path.with_name(f"<b onclick=alert({path.stem})>.png"))
    names = [f"test/{path.relative_to(root / 'test').as_posix()}" for path in sorted((root / "test").rglob("*.png"))]
    told = {name: "aligned" if i % 2 else "counter" for i, name in enumerate(names)}
    (root / "slices.json").write_text(json.dumps(told))
    return root


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures made elsewhere."""
    folder = tmp_path_factory.mktemp("made")
    draw(folder / "images", 5, seed=9)
    return folder / "images"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an uninterrupted loop with s-random; read only."""
    out = tmp_path_factory.mktemp("finished") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outcome, "write_pictures", lambda *_: None)
        run(config(data, out))
    return out


def told(out: Path, strategy: str = "s-random") -> dict[str, Any]:
    """The loop's report."""
    report: dict[str, Any] = json.loads((out / strategy / "report.json").read_text())
    return report


def config(data: Path, out: Path, **changes: Any) -> DebugTrainConfig:
    recipe = out.with_name("egdd.yaml")
    recipe.write_text(yaml.safe_dump(RECIPE))
    given = {"egdd": recipe, "strategy": "s-random", "budget": 3, "threads": 1, "examples": 2, **changes}
    return DebugTrainConfig(data=data, out=out, **given)


def files(folder: Path, but: str = "") -> dict[str, bytes]:
    found = {path.relative_to(folder): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {str(name): path.read_bytes() for name, path in found.items() if name.parts[0] != but}


def answered(out: Path, rating: str = "1", what: str = "ball") -> list[dict[str, Any]]:
    """Every task answered alike."""
    tasks = json.loads((out / "tasks" / "tasks.json").read_text())
    typed = {TYPE: ["object"], DESCRIPTION: [what], RATING: [rating]}
    return [{**task, "status": "completed", "response": {"annotations": typed}} for task in tasks]


def test_a_strategy_that_asks_nobody(data: Path, finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, report = finished, told(finished)
    assert (report["concepts"], report["annotator"], report["answers"]) == (None, None, None)
    assert report["debug_set"]["images"] == dict.fromkeys(CLASSES, 3)
    test = report["test"]
    assert test["original"]["images"] == 15
    assert test["failures"]["images"] + test["successes"]["images"] == 15
    assert test["slices"]["aligned"]["images"] + test["slices"]["counter"]["images"] == 15
    assert not (out / "tasks").exists()

    # As many steps as the base, on its images and the debug set.
    assert len(rows(out / "base")) == len(rows(out / "s-random" / "retrained")) == 6
    first, second = (archives.read(out / "models" / f"egdd-1.{number}.mar") for number in (0, 1))
    assert (first.version, second.version) == ("1.0", "1.1")
    assert (first.card["data"]["train"]["images"], second.card["data"]["train"]["images"]) == (24, 33)
    assert second.card["debugging"] == {
        **{"strategy": "s-random", "budget": 3, "images": 9, "annotator": None},
        "base": report["models"]["before"]["digest"],
    }
    page = (out / "s-random" / "report.html").read_text()
    assert "http" not in without_pictures(page).replace("http-equiv", "")
    assert page.count("data:image/jpeg") >= 9

    # Again: nothing is made anew, and the report says the same.
    kept = files(out)
    capsys.readouterr()
    assert run(config(data, out)) == report
    assert files(out) == kept
    assert "epoch" not in capsys.readouterr().out


def test_it_asks_and_goes_on(
    data: Path, made: Path, finished: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Tasks first, then answers, among them what nobody should send: no good one is lost, nothing written outside."""
    shutil.copytree(finished, out)
    asked = config(data, out, strategy="ours", generator="folder", generator_path=made)
    capsys.readouterr()
    assert run(asked) == {}
    assert "then start the same command again with --answers FILE" in capsys.readouterr().out
    tasks = files(out / "tasks")
    assert run(asked) == {}
    assert files(out / "tasks") == tasks
    good = answered(out)
    assert len(good) == 12
    answers = out / "answers.json"
    answers.write_text(json.dumps([{"task_id": 1}]))
    with pytest.raises(DataError, match="Not one of 1 records counts"):
        run(replace(asked, answers=(answers,)))
    scripts = [{**task, "task_id": f"script-{i}"} for i, task in enumerate(answered(out, what=SCRIPT))]
    answers.write_text(json.dumps([*hostile(good), *good, *scripts, *good[3:5]]))
    around, given = files(out.parent, but="out"), files(data)

    report = run(replace(asked, answers=(answers,)))
    folder = out / "ours"
    ratings = [json.loads(line) for line in (folder / "annotations" / "ratings.jsonl").read_text().splitlines()]
    for what in ("ball", "script"):
        assert len({r["image"] for r in ratings if r["subject"] and what in r["subject"]}) == 12, (
            "every good one counts"
        )
    assert {r["rating"] for r in ratings} == {1.0}
    assert files(out.parent, but="out") == around
    assert files(data) == given
    assert report["annotator"] == {"kind": "people", "noise": None}
    assert report["answers"]["set_aside"] >= 15
    assert any(c["concept"] == "ball" for own in report["concepts"].values() for c in own)
    page = (folder / "report.html").read_text()
    assert "<script" not in page
    assert "<b onclick" not in page
    assert "&lt;b onclick=alert(" in page, "the pictures' own names"
    assert "{token}" not in page
    assert "a &lt;red&gt;" in page


def hostile(good: list[dict[str, Any]]) -> list[Any]:
    """Records that nobody should send."""
    typed = good[0]["response"]["annotations"]
    ratings = ("9", "-3", "nan", "1e999", "five", "4" * 10**5)
    places = (
        {"filename": "../../../etc/passwd"},
        {"unit": {"image": "../../out.png", "target": "class", "position": 0, "word": "red"}},
        {"filename": ["a list"]},
        "no object",
    )
    return [
        *({**good[0], "response": {"annotations": {**typed, RATING: [rating]}}} for rating in ratings),
        *({**good[0], "task_id": f"evil-{i}", "metadata": place} for i, place in enumerate(places)),
        *(None, 7, "text", [], {"task_id": {}}),
        {**good[1], "task_id": "list", "response": [1, 2]},
        {**good[2], "task_id": "text", "response": "x" * 2**20},
        {**good[2], "task_id": "long", "response": {"annotations": {**typed, DESCRIPTION: ["a" * 10**6]}}},
        {**good[2], "task_id": "deep", "response": {"annotations": {**typed, TYPE: [[[[["object"]]]]]}}},
    ]


def test_strategies_share_the_base(data: Path, made: Path, out: Path, finished: Path) -> None:
    """Also of a folder that has moved."""
    shutil.copytree(finished, out)
    base, models = files(out / "base"), files(out / "models")
    (out / "llm.json").write_text(json.dumps({name: [f"{name} ball", "carpet"] for name in CLASSES}))
    listed = {"strategy": "g-llm-prompt", "llm_concepts": out / "llm.json", "examples": 0}
    second = run(config(data, out, generator="folder", generator_path=made, **listed))
    third = run(config(data, out, strategy="s-similarity", name="near", budget=2))
    assert files(out / "base") == base
    assert [second["models"]["after"]["version"], third["models"]["after"]["version"]] == ["1.2", "1.3"]
    assert {name: content for name, content in files(out / "models").items() if name in models} == models
    assert second["models"]["before"] == third["models"]["before"]
    with pytest.raises(OptionInvalid, match="another budget"):
        run(config(data, out, budget=2))


def test_stopped_while_it_retrains(data: Path, out: Path, finished: Path) -> None:
    with signalled(9, signal.SIGTERM), pytest.raises(Stopped, match="the same command goes on") as stopped:
        run(config(data, out))
    assert stopped.value.signal == signal.SIGTERM
    assert len(rows(out / "s-random" / "retrained")) == 3
    report = run(config(data, out))
    whole = told(finished)
    assert report["test"] == whole["test"]
    for when in ("before", "after"):
        assert report["models"][when]["digest"] == whole["models"][when]["digest"]


def test_too_few_pictures_made_elsewhere(data: Path, made: Path, finished: Path, out: Path, tmp_path: Path) -> None:
    """Before anything is written; and the same command goes on once there are pictures enough."""
    few = shutil.copytree(made, tmp_path / "few")
    (few / "blue" / "00.png").rename(tmp_path / "00.png")
    asked = config(data, out, strategy="g-llm", generator="folder", generator_path=few, budget=5)
    with pytest.raises(GeneratorFailed, match="4 readable images of blue, and 5 are wanted; add images"):
        run(asked)
    assert not out.exists()
    shutil.copytree(finished, out)
    before = files(out)
    with pytest.raises(GeneratorFailed, match="4 readable images of blue"):
        run(asked)
    assert files(out) == before
    (tmp_path / "00.png").rename(few / "blue" / "00.png")
    assert run(asked)["debug_set"]["images"] == dict.fromkeys(CLASSES, 5)


def test_a_base_from_elsewhere(data: Path, out: Path, tmp_path: Path) -> None:
    """Trained by `saaa-train egdd`, by other options than the loop's."""
    recipe = {**RECIPE, "batch_size": 4}
    train(options(data, tmp_path / "mine", **{"ema": 0.0, "mixup": 0.0, **recipe}))
    base = tmp_path / "mine" / "last.pt"
    report = run(config(data, out, base=base, egdd=None))
    assert not (out / "base" / "last.pt").exists()
    assert len(rows(tmp_path / "mine")) == len(rows(out / "s-random" / "retrained")) == 12
    assert report["models"]["before"]["version"] == "1.0"
    with pytest.raises(OptionInvalid, match="was given by --base; give it again"):
        run(config(data, out))
    train(options(data, tmp_path / "other", **{**recipe, "seed": 5, "epochs": 1, "warmup_epochs": 0}))
    with pytest.raises(OptionInvalid, match="another base"):
        run(config(data, out, base=tmp_path / "other" / "last.pt", egdd=None))
    shutil.copytree(data, tmp_path / "changed")
    (tmp_path / "changed" / "train" / "red" / "00.png").unlink()
    with pytest.raises(DataError, match="trained on other images"):
        run(config(tmp_path / "changed", out, base=base, egdd=None))


def test_what_several_processes_trained(data: Path, tmp_path: Path) -> None:
    """One process retrains with steps as large."""
    train(options(data, tmp_path, lr=None, epochs=1, warmup_epochs=0))
    content = load_checkpoint(tmp_path / "last.pt", "egdd")
    content["options"]["world_size"] = 4
    save_checkpoint(tmp_path / "four.pt", "egdd", {k: v for k, v in content.items() if k not in ("format", "kind")})
    told = Model.read(tmp_path / "four.pt").options
    assert (told.accum_iter, told.batch_size, told.world_size) == (4, 8, 1)
    assert told.peak_lr(1) == pytest.approx(1e-3 * 8 * 4 / 256)
    del content["options"]
    save_checkpoint(tmp_path / "old.pt", "egdd", {k: v for k, v in content.items() if k not in ("format", "kind")})
    with pytest.raises(CheckpointError, match="does not tell how it was trained"):
        Model.read(tmp_path / "old.pt")


def test_training_is_kept_gone_on_with_or_refused(data: Path, tmp_path: Path) -> None:
    one = options(data, tmp_path, epochs=1, warmup_epochs=0)
    first = trained(one)
    written = (tmp_path / "last.pt").stat().st_mtime_ns
    assert trained(one) == first
    assert (tmp_path / "last.pt").stat().st_mtime_ns == written
    with pytest.raises(OptionInvalid, match="another lr; give the same"):
        trained(options(data, tmp_path, epochs=1, warmup_epochs=0, lr=1e-4))
    with pytest.raises(OptionInvalid, match="another epochs; give the same"):
        trained(options(data, tmp_path, epochs=2, warmup_epochs=0))
    assert trained(options(data, tmp_path, epochs=1, warmup_epochs=0, threads=1, num_workers=1)) == first


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"answers": (Path("a"),), "annotator": "simulated"}, "--answers and --annotator both give answers"),
        ({"noise": 0.2}, "--noise is the simulated annotator's"),
        ({"generator": "folder"}, "needs --generator_path"),
        ({"name": "../up"}, "plain folder name"),
        ({"name": "base"}, "out/base is the base's"),
        ({"base": Path("b.pt")}, "--base is trained already"),
        ({"budget": 0}, "budget is 0"),
        ({"least_share": 2}, "least_share is 2"),
    ],
)
def test_options_that_contradict(changes: dict[str, Any], says: str, data: Path, out: Path) -> None:
    with pytest.raises(OptionInvalid, match=says):
        config(data, out, **changes)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"strategy": "g-llm"}, "needs a generator; give --generator"),
        ({"strategy": "g-llm-prompt", "generator": "folder", "generator_path": Path("none")}, "needs --llm_concepts"),
        ({"strategy": "g-llm", "generator": "folder", "generator_path": Path("none")}, "There is no folder none"),
        ({"strategy": "g-llm", "generator": "diffusers", "generator_path": Path("none")}, "no pipeline of diffusers"),
        ({"answers": (Path("none.json"),)}, "no file none.json of answers"),
        ({"out": None}, "lies inside data"),
    ],
)
def test_what_is_missing_is_said_before_anything_is_trained(
    changes: dict[str, Any], says: str, data: Path, out: Path
) -> None:
    given = config(data, out, **{name: value for name, value in changes.items() if name != "out"})
    if "out" in changes:
        given = DebugTrainConfig(data=data, out=data / "inside", strategy="s-random")
    with pytest.raises((OptionInvalid, DataError), match=says):
        run(given)
    assert not (out / "base").exists()


def test_recipe_of_the_base(data: Path, out: Path, tmp_path: Path) -> None:
    assert DebugTrainConfig(data=data, out=out).training().model == "tf_efficientnet_lite0"
    (tmp_path / "bad.yaml").write_text("output_dir: elsewhere\n")
    with pytest.raises(OptionInvalid, match="the loop sets output_dir"):
        DebugTrainConfig(data=data, out=out, egdd=tmp_path / "bad.yaml").training()


def test_on_the_command_line(data: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = config(data, out).egdd
    words = ["debug-train", "--data", str(data), "--out", str(out), "--egdd", str(recipe), "--strategy", "ours"]
    words += ["--annotator", "simulated", "--generator", "folder", "--generator_path", str(data / "pool")]
    assert main(words) == 2
    assert "the simulated annotator answers on a world of `saaa-train scenes` only" in capsys.readouterr().err
    assert not (out / "base").exists()
