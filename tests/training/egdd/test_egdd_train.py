"""Training runs of a tiny network: it learns, resumes to the same weights, stops cleanly, and says what is wrong."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from saaa import archive
from saaa.errors import CheckpointError, DataError, OptionInvalid
from saaa.models.classifier import Classifier
from training import cli
from training.checkpoint import load_checkpoint
from training.egdd.config import ArchiveConfig, EgddConfig, EvaluateConfig
from training.egdd.evaluation import evaluate
from training.egdd.packing import pack
from training.egdd.train import train


def options(data: Path, output: Path, **changes: Any) -> EgddConfig:
    return EgddConfig(
        **{
            "data_path": data,
            "output_dir": output,
            "model": "test_efficientnet",
            "input_size": 32,
            "batch_size": 8,
            "epochs": 3,
            "warmup_epochs": 1,
            "lr": 3e-3,
            "drop_path": 0.1,
            "ema": 0.5,
            "mixup": 0.2,
            "min_crop": 0.6,
            "aa": "rand-m3-mstd0.5",
            **changes,
        }
    )


def weights(path: Path) -> dict[str, torch.Tensor]:
    content = load_checkpoint(path, "egdd")
    return {**content["model"], **{f"net.{k}": v for k, v in content["training"]["net"].items()}}


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    different = [key for key in one if not torch.equal(one[key], other[key])]
    assert not different


@pytest.fixture(scope="module")
def finished(class_folders: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of a whole run."""
    output = tmp_path_factory.mktemp("finished")
    train(options(class_folders, output))
    return output


def test_it_learns(class_folders: Path, tmp_path: Path) -> None:
    found = train(
        options(class_folders, tmp_path, epochs=10, lr=2e-2, layer_decay=1.0, mixup=0.0, aa="none", reprob=0.0)
    )
    assert found["accuracy"] >= 0.9
    assert found["history"][-1]["train_loss"] < found["history"][0]["train_loss"]


def test_outputs(finished: Path) -> None:
    names = {p.name for p in finished.iterdir()}
    assert {"last.pt", "best.pt", "metrics.json", "skipped.txt"} <= names
    assert any(name.startswith("events.out.tfevents") for name in names)
    metrics = json.loads((finished / "metrics.json").read_text())
    assert metrics["epoch"] == 3
    assert [row["epoch"] for row in metrics["history"]] == [1, 2, 3]
    assert metrics["best"]["accuracy"] == max(row["accuracy"] for row in metrics["history"])
    assert metrics["accuracy"] == metrics["history"][-1]["accuracy"], "the last epoch is what counts"
    assert "training" not in load_checkpoint(finished / "best.pt", "egdd")


def test_same_seed_same_weights_other_seed_others(finished: Path, class_folders: Path, tmp_path: Path) -> None:
    train(options(class_folders, tmp_path / "again"))
    assert_same(weights(finished / "last.pt"), weights(tmp_path / "again" / "last.pt"))
    train(options(class_folders, tmp_path / "other", seed=1, epochs=2))
    assert not torch.equal(
        weights(finished / "last.pt")["conv_stem.weight"],
        weights(tmp_path / "other" / "last.pt")["conv_stem.weight"],
    )


@pytest.mark.parametrize("steps", [2, 3, 7])
def test_stop_and_resume_equals_uninterrupted(
    steps: int, finished: Path, class_folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGTERM after some steps, in the middle (2, 7) or at the end (3) of an epoch."""
    seen = 0
    step = torch.optim.AdamW.step

    def counted(self: torch.optim.AdamW, *args: Any, **kwargs: Any) -> Any:
        nonlocal seen
        seen += 1
        if seen == steps:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", counted)
        with pytest.raises(KeyboardInterrupt, match=r"--resume .*last\.pt"):
            train(options(class_folders, tmp_path))
    assert seen == steps
    train(options(class_folders, tmp_path, resume=tmp_path / "last.pt"))
    assert_same(weights(finished / "last.pt"), weights(tmp_path / "last.pt"))
    own, whole = (json.loads((f / "metrics.json").read_text()) for f in (tmp_path, finished))
    assert [row["accuracy"] for row in own["history"]] == [row["accuracy"] for row in whole["history"]]


def test_resume_needs_the_same_run(finished: Path, class_folders: Path, own_folders: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="weights only"):
        train(options(class_folders, tmp_path, resume=finished / "best.pt"))
    with pytest.raises(CheckpointError, match="another model"):
        train(options(class_folders, tmp_path, resume=finished / "last.pt", input_size=48))
    with pytest.raises(CheckpointError, match="other images"):
        train(options(own_folders, tmp_path, resume=finished / "last.pt"))


def test_non_finite_loss_stops(class_folders: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionInvalid, match="The loss became"):
        train(options(class_folders, tmp_path, lr=1e30, mixup=0.0, ema=0.0))


def test_corrupt_images_are_listed(own_folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (own_folders / "train" / "red" / "bad.jpg").write_bytes(b"nothing")
    found = train(options(own_folders, tmp_path / "out", epochs=1, warmup_epochs=0))
    assert found["images"] == 3
    assert "1 files skipped" in capsys.readouterr().out
    assert "bad.jpg" in (tmp_path / "out" / "skipped.txt").read_text()


def test_set_smaller_than_a_batch_with_mixing(own_folders: Path, tmp_path: Path) -> None:
    train(options(own_folders, tmp_path / "out", batch_size=64, epochs=1, warmup_epochs=0))
    assert load_checkpoint(tmp_path / "out" / "last.pt", "egdd")["epoch"] == 1


def test_workers_and_transformer(class_folders: Path, tmp_path: Path) -> None:
    found = train(
        options(class_folders, tmp_path, model="test_vit", epochs=1, warmup_epochs=0, num_workers=1, cache_mb=0)
    )
    assert found["images"] == 12


def test_unwritable_output(class_folders: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match="Cannot write"):
        train(options(class_folders, tmp_path / "file" / "out"))


def test_archive(finished: Path, class_folders: Path, tmp_path: Path) -> None:
    pack(ArchiveConfig(checkpoint=finished / "last.pt", output=tmp_path / "new" / "a.mar", name="rooms", version="2"))
    pack(ArchiveConfig(checkpoint=finished / "last.pt", output=tmp_path / "b.mar", name="rooms", version="2"))
    assert (tmp_path / "new" / "a.mar").read_bytes() == (tmp_path / "b.mar").read_bytes()
    found = archive.read(tmp_path / "b.mar")
    assert (found.name, found.version) == ("rooms", "2")
    card = found.card
    assert card["data"]["train"]["images"] == 24
    assert len(card["data"]["train"]["digest"]) == 64
    metrics = json.loads((finished / "metrics.json").read_text())
    assert card["metrics"]["val"] == metrics["history"][-1]
    assert card["recipe"]["mixup"] == 0.2
    assert not any("path" in key or "dir" in key for key in card["recipe"] if key != "drop_path")
    assert card["faithfulness"]["images"] == 12
    assert card["faithfulness"]["method"] == "hires_cam"
    served = Classifier.from_archive(found)
    moving_average = load_checkpoint(finished / "last.pt", "egdd")["model"]
    assert torch.equal(served.net.conv_stem.weight, moving_average["conv_stem.weight"])
    report = evaluate(EvaluateConfig(data_path=class_folders / "val", archive=tmp_path / "b.mar"))
    assert report["accuracy"] == metrics["accuracy"], "serving equals the trainer's own evaluation"
    assert report["loss"] == pytest.approx(metrics["loss"], rel=1e-5)


def test_archive_without_the_data(finished: Path, own_folders: Path, tmp_path: Path) -> None:
    common: dict[str, Any] = {"checkpoint": finished / "last.pt", "output": tmp_path / "a.mar"}
    with pytest.raises(DataError, match="not those of the training"):
        pack(ArchiveConfig(**common, data_path=own_folders))
    with pytest.raises(DataError, match="There is no folder"):
        pack(ArchiveConfig(**common, data_path=tmp_path / "none"))
    assert not (tmp_path / "a.mar").exists()
    pack(ArchiveConfig(**common, data_path=tmp_path / "none", faithfulness_images=0))
    assert archive.read(tmp_path / "a.mar").card["faithfulness"] is None


def test_whole_way_on_the_command_line(class_folders: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(class_folders, data)
    out = str(tmp_path / "out")
    flags = [
        "--model",
        "resnet10t",
        "--input-size",
        "32",
        "--epochs",
        "1",
        "--warmup_epochs",
        "0",
        "--batch-size",
        "8",
        "--log_dir",
    ]
    assert cli.main(["egdd", "--data_path", str(data), "--output_dir", out, *flags, f"{out}/log"]) == 0
    assert (
        cli.main(["archive", "egdd", "--checkpoint", f"{out}/last.pt", "--output", f"{out}/a.mar", "--name", "x"]) == 0
    )
    assert cli.main(["evaluate", "egdd", "--archive", f"{out}/a.mar", "--data_path", str(data / "val")]) == 0
    assert any((tmp_path / "out" / "log").iterdir())
