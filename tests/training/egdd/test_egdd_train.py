"""Training runs of tiny networks: they learn, keep their books, share the work, and say what is wrong."""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]
from torch import Tensor
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel

from saaa import archive
from saaa.errors import CheckpointError, DataError, TrainingDiverged
from saaa.models.classifier import Classifier
from tests.training.egdd.tiny_run import assert_same, options, still, weights
from tests.training.runs import losses, rows
from tests.training.several import together
from training import cli
from training.checkpoint import load_checkpoint
from training.egdd import outcome
from training.egdd.augment import Finish
from training.egdd.config import ArchiveConfig, EvaluateConfig
from training.egdd.evaluation import evaluate
from training.egdd.loader import epoch_order
from training.egdd.packing import pack
from training.egdd.train import train


@pytest.fixture(scope="module")
def finished(class_folders: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of a whole run."""
    output = tmp_path_factory.mktemp("finished")
    train(options(class_folders, output, attributions_every=2))
    return output


@pytest.fixture(autouse=True)
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures of the confusion and the calibration take longer than these runs; `finished` has them."""
    monkeypatch.setattr(outcome, "write_pictures", lambda *_: None)


def test_it_learns(class_folders: Path, tmp_path: Path) -> None:
    found = train(
        options(class_folders, tmp_path, epochs=10, lr=2e-2, layer_decay=1.0, mixup=0.0, aa="none", reprob=0.0)
    )
    assert found["accuracy"] >= 0.9
    assert found["history"][-1]["train_loss"] < found["history"][0]["train_loss"]


def test_files(finished: Path) -> None:
    metrics = json.loads((finished / "metrics.json").read_text())
    assert metrics["epoch"] == 3
    assert [row["epoch"] for row in metrics["history"]] == [1, 2, 3]
    assert metrics["best"]["accuracy"] == max(row["accuracy"] for row in metrics["history"])
    assert metrics["accuracy"] == metrics["history"][-1]["accuracy"], "the last epoch is what counts"
    assert "training" not in load_checkpoint(finished / "best.pt", "egdd")
    assert json.loads((finished / "classes.json").read_text()) == {"blue": 0, "green": 1, "red": 2}
    config = yaml.safe_load((finished / "config.yaml").read_text())
    assert (config["model"], config["mixup"], config["layer_decay"]) == ("test_efficientnet", 0.2, 0.75)
    with (finished / "failures.csv").open() as file:
        assert len(list(csv.DictReader(file))) == round(12 * (1 - metrics["accuracy"]))
    assert {"confusion.png", "calibration.png", "skipped.txt"} <= {path.name for path in finished.iterdir()}


def test_table_of_steps(finished: Path) -> None:
    table = rows(finished)
    assert [(int(row["step"]), int(row["epoch"])) for row in table] == [(s, 1 + (s - 1) // 3) for s in range(1, 10)]
    history = json.loads((finished / "metrics.json").read_text())["history"]
    for epoch, row in enumerate(history):
        assert row["train_loss"] == pytest.approx(sum(losses(finished)[3 * epoch : 3 * epoch + 3]) / 3)
    # MAE's schedule in fractions of an epoch: linear for 1 of 3 epochs, then a cosine from 3e-3 to 1e-6.
    for step, row in enumerate(table):
        time = step / 3
        cosine = 1e-6 + (3e-3 - 1e-6) / 2 * (1 + math.cos(math.pi * (time - 1) / 2))
        assert float(row["lr"]) == pytest.approx(3e-3 * time if time < 1 else cosine)
        assert float(row["images_per_s"]) > 0
        assert float(row["grad_norm"]) > 0


def test_curves(finished: Path) -> None:
    log = EventAccumulator(str(finished)).Reload()
    names = set(log.Tags()["scalars"])
    assert {"train/loss", "train/lr", "train/images_per_s", "val/accuracy", "val/top5", "val/loss", "val/ece"} <= names
    assert len([name for name in names if name.startswith("lr/")]) > 2
    assert [(e.step, e.value) for e in log.Scalars("train/loss")] == [
        (step, pytest.approx(loss)) for step, loss in enumerate(losses(finished), start=1)
    ]
    assert [event.step for event in log.Scalars("val/accuracy")] == [3, 6, 9]
    assert [event.step for event in log.Images("val/attributions")] == [6]


def test_same_seed_same_weights_other_seed_others(finished: Path, class_folders: Path, tmp_path: Path) -> None:
    """Nor do worker processes, attributions or another way of decoding change anything."""
    train(options(class_folders, tmp_path / "again", num_workers=1, cache_mb=0))
    assert_same(finished / "last.pt", tmp_path / "again" / "last.pt")
    train(options(class_folders, tmp_path / "other", seed=1, epochs=2))
    first, other = (weights(folder / "last.pt")["conv_stem.weight"] for folder in (finished, tmp_path / "other"))
    assert not torch.equal(first, other)


def test_accumulated_micro_batches_are_one_batch(class_folders: Path, tmp_path: Path) -> None:
    """The last step of an epoch has half the micro-batches, and still the mean of its own images."""
    train(still(class_folders, tmp_path / "many", batch_size=2, accum_iter=8, lr=1e-2))
    train(still(class_folders, tmp_path / "few", batch_size=8, accum_iter=2, lr=1e-2))
    many, few = (rows(tmp_path / name) for name in ("many", "few"))
    assert len(many) == len(few) == 6
    for one, other in zip(many, few, strict=True):
        assert float(one["loss"]) == pytest.approx(float(other["loss"]), abs=1e-5)
        assert float(one["grad_norm"]) == pytest.approx(float(other["grad_norm"]), rel=1e-3)


def test_gradients_travel_once_a_step(class_folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not once a micro-batch: 3 of these are a step, and an epoch has 4 on each process."""
    travels = 0

    def counted(_, bucket):  # type: ignore[no-untyped-def] # torch refuses annotations that are strings
        nonlocal travels
        travels += bucket.is_last()
        return allreduce_hook(None, bucket)  # type: ignore[arg-type] # of all processes

    class Counting(DistributedDataParallel):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.register_comm_hook(None, counted)

    def work(url: str) -> int:
        monkeypatch.setattr("training.egdd.train.DistributedDataParallel", Counting)
        changes = {"epochs": 1, "warmup_epochs": 0, "batch_size": 3, "accum_iter": 3}
        train(still(class_folders, tmp_path / "out", **changes, dist_url=url))
        return travels

    assert together(2, work, tmp_path / "meet") == [2, 2]
    assert len(rows(tmp_path / "out")) == 2


def test_two_processes_keep_one_set_of_books(class_folders: Path, tmp_path: Path, capfd: Any) -> None:
    changes = {"batch_size": 4, "epochs": 1, "warmup_epochs": 0, "accum_iter": 2, "ema": 0.5}

    def work(url: str) -> dict[str, Any]:
        return train(still(class_folders, tmp_path / "two", **changes, dist_eval=True, dist_url=url))

    first, second = together(2, work, tmp_path / "meet")
    assert first["confusion"] == second["confusion"]
    assert first["images"] == 12
    out = capfd.readouterr().out
    assert out.count("after the last epoch") == 1
    alone = train(still(class_folders, tmp_path / "one", **{**changes, "batch_size": 8}))
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=1e-5)
    assert first["loss"] == pytest.approx(alone["loss"], abs=1e-5)


@pytest.mark.parametrize(("amp", "tolerance"), [("bf16", 0.05), ("fp16", 0.02)])
def test_mixed_precision(amp: str, tolerance: float, class_folders: Path, tmp_path: Path) -> None:
    for name in (amp, "none"):
        train(still(class_folders, tmp_path / name, amp=name, epochs=1, warmup_epochs=0, batch_size=24))
    (mixed,), (plain,) = losses(tmp_path / amp), losses(tmp_path / "none")
    assert mixed == pytest.approx(plain, rel=tolerance)
    assert mixed != plain


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled(class_folders: Path, tmp_path: Path) -> None:
    train(still(class_folders, tmp_path / "compiled", compile=True, epochs=2))
    train(still(class_folders, tmp_path / "eager", epochs=2))
    assert losses(tmp_path / "compiled") == pytest.approx(losses(tmp_path / "eager"), abs=1e-4)
    assert weights(tmp_path / "compiled" / "last.pt").keys() == weights(tmp_path / "eager" / "last.pt").keys()


def test_patience_and_start_epoch(class_folders: Path, tmp_path: Path) -> None:
    """With a learning rate of next to nothing no epoch is better than the first."""
    frozen = {"lr": 1e-30, "min_lr": 0.0, "warmup_epochs": 0}
    metrics = train(still(class_folders, tmp_path, **frozen, epochs=9, patience=2, start_epoch=4))
    assert [row["epoch"] for row in metrics["history"]] == [5, 6, 7]
    assert metrics["best"]["epoch"] == 5
    assert [int(row["step"]) for row in rows(tmp_path)] == list(range(13, 22))
    again = train(still(class_folders, tmp_path, **frozen, epochs=9, patience=2, resume=tmp_path / "last.pt"))
    assert again["epoch"] == 7
    assert len(rows(tmp_path)) == 9


def test_best_metric(class_folders: Path, tmp_path: Path) -> None:
    metrics = train(still(class_folders, tmp_path, best_metric="loss", lr=3e-2))
    values = [row["loss"] for row in metrics["history"]]
    first = values.index(min(values)) + 1
    assert metrics["best"]["epoch"] == load_checkpoint(tmp_path / "best.pt", "egdd")["epoch"] == first


def test_eval(finished: Path, class_folders: Path, tmp_path: Path) -> None:
    expected = json.loads((finished / "metrics.json").read_text())
    found = train(options(class_folders, tmp_path / "own", eval=True, resume=finished / "last.pt"))
    assert found["confusion"] == expected["confusion"]
    assert found["loss"] == pytest.approx(expected["loss"], rel=1e-6)
    assert json.loads((tmp_path / "own" / "metrics.json").read_text())["loss"] == found["loss"]
    assert not {"last.pt", "steps.csv", "config.yaml"} & {path.name for path in (tmp_path / "own").iterdir()}

    def work(url: str) -> float:
        changes = {"eval": True, "finetune": finished / "best.pt", "dist_eval": True}
        return float(train(options(class_folders, tmp_path / "two", **changes, dist_url=url))["images"])

    assert together(2, work, tmp_path / "meet") == [12, 12]


def test_initial_weights(finished: Path, class_folders: Path, tmp_path: Path, capsys: Any) -> None:
    frozen = {"lr": 1e-30, "min_lr": 0.0, "warmup_epochs": 0, "epochs": 1, "ema": 0.0}
    train(options(class_folders, tmp_path, **frozen, finetune=finished / "last.pt"))
    assert "tensors taken" in capsys.readouterr().out
    own, given = (load_checkpoint(folder / "last.pt", "egdd")["model"] for folder in (tmp_path, finished))
    assert torch.equal(own["classifier.weight"], given["classifier.weight"])


def poison(finish: Any, calls: set[int]) -> Any:
    """Make the inputs of some batches, by number, not a number."""
    seen = 0

    def poisoned(self: Finish, pixels: Tensor) -> Tensor:
        nonlocal seen
        seen += 1
        inputs: Tensor = finish(self, pixels)
        return inputs * (math.nan if seen in calls else 1)

    return poisoned


def test_a_loss_that_is_not_finite_names_its_images(
    class_folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fifth micro-batch: the first of the second step."""
    monkeypatch.setattr(Finish, "__call__", poison(Finish.__call__, {5}))
    with pytest.raises(TrainingDiverged, match=r"The loss became nan in epoch 1, step 2; .*last\.pt is from before"):
        train(still(class_folders, tmp_path, batch_size=4, accum_iter=4, save_minutes=1e-9))
    found = json.loads((tmp_path / "nonfinite.json").read_text())
    files = sorted((class_folders / "train").glob("*/*.png"))
    names = [str(files[i]) for i in epoch_order(24, seed=0, epoch=0)[16:20]]
    assert found == {"epoch": 1, "step": 2, "images": {"0": names}}
    kept = load_checkpoint(tmp_path / "last.pt", "egdd")
    assert kept["training"]["step"] == 1
    assert all(value.isfinite().all() for value in kept["model"].values())


def test_all_processes_stop_when_one_loss_is_not_finite(
    class_folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(url: str) -> None:
        monkeypatch.setattr(Finish, "__call__", poison(Finish.__call__, {2} if os.environ["RANK"] == "1" else set()))
        train(still(class_folders, tmp_path, batch_size=4, dist_url=url))

    first, second = together(2, work, tmp_path / "meet")
    assert isinstance(first, TrainingDiverged)
    assert first.message == second.message
    images = json.loads((tmp_path / "nonfinite.json").read_text())["images"]
    assert images["0"] == []
    order = epoch_order(24, seed=0, epoch=0)[1::2]
    files = sorted((class_folders / "train").glob("*/*.png"))
    assert images["1"] == [str(files[i]) for i in order[4:8]]


def test_weights_that_run_away_are_not_saved(class_folders: Path, tmp_path: Path) -> None:
    """The only step of the epoch throws them away; val shows it, and nothing is saved."""
    with pytest.raises(TrainingDiverged, match="After epoch 1 the network's output is not finite"):
        train(still(class_folders, tmp_path, batch_size=24, lr=1e38, epochs=2, warmup_epochs=0))
    assert not (tmp_path / "last.pt").exists()


def test_corrupt_images_are_listed(own_folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (own_folders / "train" / "red" / "bad.jpg").write_bytes(b"nothing")
    found = train(options(own_folders, tmp_path / "out", epochs=1, warmup_epochs=0))
    assert found["images"] == 3
    assert "1 files skipped" in capsys.readouterr().out
    assert "bad.jpg" in (tmp_path / "out" / "skipped.txt").read_text()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"batch_size": 13, "mixup": 0.0}, "12 images, less than the 13 x 1 of one batch; lower --batch_size to 12"),
        ({"batch_size": 14}, "lower --batch_size to 12"),
    ],
)
def test_fewer_images_than_a_batch(changes: dict[str, Any], says: str, own_folders: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=says):
        train(options(own_folders, tmp_path / "out", **changes))


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
    assert torch.equal(served.net.state_dict()["conv_stem.weight"], moving_average["conv_stem.weight"])
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
    data, out = str(class_folders), str(tmp_path / "out")
    flags = "--model test_vit --input-size 32 --epochs 1 --warmup_epochs 0 --batch-size 8 --num_workers 0".split()
    assert cli.main(["egdd", "--data_path", data, "--output_dir", out, *flags, "--log_dir", f"{out}/log"]) == 0
    assert (
        cli.main(["archive", "egdd", "--checkpoint", f"{out}/last.pt", "--output", f"{out}/a.mar", "--name", "x"]) == 0
    )
    assert cli.main(["evaluate", "egdd", "--archive", f"{out}/a.mar", "--data_path", f"{data}/val"]) == 0
    assert any((tmp_path / "out" / "log").iterdir())
