"""Training runs of a tiny captioner: they learn, keep their books, and say what is wrong."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

from saaa.errors import OptionInvalid
from tests.training.ega.tiny_run import assert_same, config_for, eventful, load, still
from tests.training.runs import losses, rows
from training.checkpoint import load_checkpoint
from training.cli import main
from training.distributed import World
from training.ega.checkpoints import load_guided
from training.ega.explanation import node_accuracy
from training.ega.train import train
from training.ega.validation import validate


@pytest.fixture(scope="module")
def finished(tiny_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of a whole run of 4 epochs of 3 steps."""
    output = tmp_path_factory.mktemp("finished")
    train(eventful(tiny_world, output, batch_size=16, epochs=4, warmup_epochs=1, lr=1e-2, val_every=2))
    return output


def test_training_learns_and_leaves_its_files(finished: Path) -> None:
    metrics = json.loads((finished / "metrics.json").read_text())
    epochs = metrics["epochs"]
    assert [e["epoch"] for e in epochs] == [1, 2, 3, 4]
    assert epochs[-1]["train/loss"] < 0.9 * epochs[0]["train/loss"]
    assert [("val/loss" in e, "val/cider" in e, "val/node_accuracy" in e) for e in epochs] == [
        (False,) * 3,
        (True,) * 3,
    ] * 2
    assert metrics["best"]["val/cider"] == max(e.get("val/cider", 0) for e in epochs)
    assert metrics["best_epoch"] == metrics["best"]["epoch"] == load_checkpoint(finished / "best.pt", "ega")["epoch"]
    assert metrics["captions_per_s"] > 0
    assert "training" not in load_checkpoint(finished / "best.pt", "ega")
    config = yaml.safe_load((finished / "config.yaml").read_text())
    assert (config["width"], config["schedule"], config["levels"]) == (16, "cosine", [1, 2])
    assert (finished / "skipped.txt").read_text() == ""


def test_table_of_steps(finished: Path) -> None:
    table = rows(finished)
    assert [(int(row["step"]), int(row["epoch"])) for row in table] == [(s, 1 + (s - 1) // 3) for s in range(1, 13)]
    for step, row in enumerate(table):
        cosine = 1e-2 * 0.5 * (1 + math.cos(math.pi * (step - 3) / 9))
        assert float(row["lr"]) == pytest.approx(1e-2 * (step + 1) / 3 if step < 3 else cosine)
        assert float(row["captions_per_s"]) > 0
        assert float(row["grad_norm"]) > 0


def test_curves(finished: Path) -> None:
    log = EventAccumulator(str(finished)).Reload()
    assert {"train/loss", "train/lr", "train/captions_per_s", "val/loss", "val/cider", "val/node_accuracy"} == set(
        log.Tags()["scalars"]
    )
    assert [(e.step, e.value) for e in log.Scalars("train/loss")] == [
        (step, pytest.approx(loss)) for step, loss in enumerate(losses(finished), start=1)
    ]
    assert [event.step for event in log.Scalars("val/cider")] == [6, 12]


def test_the_loss_of_an_epoch_is_the_mean_over_its_words(tiny_world: Path, tmp_path: Path) -> None:
    """With weights that stay as they are, and without side tasks, also the loss of all captions at once."""
    config = still(tiny_world, tmp_path, epochs=1, lr=1e-30, explanation_weight=0.0, naming_weight=0.0, batch_size=20)
    (epoch,) = train(config)["epochs"]
    guided, _ = load_guided(tmp_path / "last.pt")
    data = load(config)
    found = validate(guided.captioner, data.train, data.vocabulary, World())
    assert epoch["train/loss"] == pytest.approx(found.loss, rel=1e-5)


def test_validation_measures_the_served_weights_on_all_captions(tiny_world: Path, tmp_path: Path) -> None:
    config = eventful(tiny_world, tmp_path, ema=0.9, epochs=1)
    (epoch,) = train(config)["epochs"]
    guided, _ = load_guided(tmp_path / "best.pt")
    val = load(config).val
    batch = val.batch(torch.arange(len(val)), "cpu")
    taught = guided.captioner.teach(batch.regions, batch.image, batch.graphs, batch.captions, batch.lengths)
    scores = guided.captioner.decoder.score_words(taught.hidden)
    assert epoch["val/loss"] == pytest.approx(
        float(torch.nn.functional.cross_entropy(scores, taught.targets)), rel=1e-5
    )
    assert epoch["val/node_accuracy"] == pytest.approx(node_accuracy(guided.captioner, val, "cpu"))


def test_the_explanation_loss_draws_attention_to_the_named_nodes(tiny_world: Path, tmp_path: Path) -> None:
    found = []
    for name, weight in (("without", 0.0), ("with", 3.0)):
        options = {"epochs": 5, "batch_size": 8, "lr": 2e-2, "feature_dropout": 0.1, "val_every": 5}
        config = config_for(tiny_world, tmp_path / name, explanation_weight=weight, **options)
        found.append(train(config)["epochs"][-1]["val/node_accuracy"])
    assert found[1] > found[0] + 0.1


def test_equal_seeds_give_equal_models_and_others_do_not(tiny_world: Path, tmp_path: Path) -> None:
    for name, seed in (("one", 0), ("two", 0), ("other", 1)):
        train(eventful(tiny_world, tmp_path / name, epochs=1, seed=seed))
    assert_same(tmp_path / "one" / "last.pt", tmp_path / "two" / "last.pt")
    assert losses(tmp_path / "one") != losses(tmp_path / "other")


def test_patience(tiny_world: Path, tmp_path: Path) -> None:
    """With a learning rate of next to nothing no validation is better than the first."""
    options: dict[str, Any] = {"lr": 1e-30, "epochs": 9, "val_every": 2, "patience": 2}
    metrics = train(still(tiny_world, tmp_path, **options))
    assert [e["epoch"] for e in metrics["epochs"] if "val/loss" in e] == [2, 4, 6]
    assert (metrics["best_epoch"], len(metrics["epochs"])) == (2, 6)
    again = train(still(tiny_world, tmp_path, **options, resume=tmp_path / "last.pt"))
    assert len(again["epochs"]) == 6


def test_best_by_loss(tiny_world: Path, tmp_path: Path) -> None:
    metrics = train(still(tiny_world, tmp_path, best_by="loss", lr=5e-2, epochs=4))
    values = [e["val/loss"] for e in metrics["epochs"]]
    assert metrics["best_epoch"] == 1 + values.index(min(values))


@pytest.mark.parametrize(("amp", "tolerance"), [("bf16", 0.05), ("fp16", 0.02)])
def test_mixed_precision(amp: str, tolerance: float, tiny_world: Path, tmp_path: Path) -> None:
    for name in (amp, "none"):
        train(still(tiny_world, tmp_path / name, amp=name, epochs=1))
    mixed, plain = losses(tmp_path / amp), losses(tmp_path / "none")
    assert mixed == pytest.approx(plain, rel=tolerance)
    assert mixed != plain


def test_nothing_depends_on_threads_that_make_batches(tiny_world: Path, tmp_path: Path) -> None:
    for workers in (0, 3):
        train(eventful(tiny_world, tmp_path / str(workers), num_workers=workers, epochs=1))
    assert_same(tmp_path / "0" / "last.pt", tmp_path / "3" / "last.pt")


def test_two_threads_compute_what_one_does(tiny_world: Path, tmp_path: Path) -> None:
    for threads in (1, 2):
        train(still(tiny_world, tmp_path / str(threads), threads=threads, batch_size=48))
    assert losses(tmp_path / "1") == pytest.approx(losses(tmp_path / "2"), abs=1e-5)
    torch.set_num_threads(1)


def test_the_command(tiny_world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = (
        f"ega --data_path {tiny_world} --output_dir {tmp_path / 'out'} --log_dir {tmp_path / 'log'} --batch_size 16 "
    )
    words += "--width 16 --model test_efficientnet --levels 1 2 --input_size 64 --threads 1 --epochs 1 --patience 3"
    assert main(words.split()) == 0
    said = capsys.readouterr().out
    assert "48 captions to train on, 12 to validate; 3 steps an epoch" in said
    assert "val node accuracy" in said
    with (tmp_path / "out" / "steps.csv").open() as table:
        assert len(list(csv.reader(table))) == 4
    assert list((tmp_path / "log").glob("events.out.tfevents.*"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"max_tokens": 2},
        {"ema": 1.0},
        {"lr": 0.0},
        {"warmup_epochs": 2.0},
        {"pretrained": "efficientnet_lite0"},
        {"patience": 0},
        {"data_path": None},
        {"jitter": 0.6, "proposed": 0.6},
        {"proposer": None, "proposed": 0.1},
    ],
)
def test_impossible_options_are_refused(tiny_world: Path, tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(OptionInvalid) as caught:
        config_for(**{"world": tiny_world, "folder": tmp_path, **wrong})
    assert caught.value.field == next(iter(wrong))
