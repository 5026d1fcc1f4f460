"""Several processes train one captioner: as one process does with all their captions."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from saaa.errors import CheckpointError, DataError, TrainingDiverged
from tests.training.ega.tiny_run import assert_same, config_for, signalled, still, weights
from tests.training.runs import losses, rows
from tests.training.several import together, torchrun, torchrun_done
from training.cli import INTERRUPTED, PREEMPTED, main
from training.ega.batches import Batch
from training.ega.dataset import CaptionSet
from training.ega.train import train


@pytest.mark.parametrize("options", [{}, {"captions_per_region": 1, "batch_size": 6, "val_every": 2}])
def test_two_processes_do_what_one_does_with_twice_the_batch(
    options: dict[str, Any], tiny_world: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Every part of the loss is a mean over the whole batch, however its words and names fall to the processes."""
    size = options.get("batch_size", 8)

    def work(url: str) -> dict[str, Any]:
        return train(still(tiny_world, tmp_path / "two", **{**options, "batch_size": size}, dist_url=url))

    first, second = together(2, work, tmp_path / "meet")
    assert capfd.readouterr().out.count("steps an epoch") == 1
    assert first["epochs"] == second["epochs"]
    one = train(still(tiny_world, tmp_path / "one", **{**options, "batch_size": 2 * size}))
    assert len(rows(tmp_path / "two")) == len(rows(tmp_path / "one"))
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=1e-5)
    assert first["epochs"][-1]["val/loss"] == pytest.approx(one["epochs"][-1]["val/loss"], abs=1e-5)
    together_, alone = weights(tmp_path / "two" / "last.pt"), weights(tmp_path / "one" / "last.pt")
    for name in together_:
        if name.startswith("captioner."):
            assert torch.allclose(together_[name], alone[name], atol=1e-3), name


@pytest.mark.parametrize(("amp", "tolerance"), [("none", 1e-5), ("fp16", 1e-2)])
def test_a_process_without_captions_goes_along(amp: str, tolerance: float, tiny_world: Path, tmp_path: Path) -> None:
    """47 captions in batches of 2 x 23: of the one that is left the second process has none."""
    odd = tmp_path / "world"
    shutil.copytree(tiny_world, odd)
    path = odd / "annotations" / "cleaned_trn_region_descriptions.json"
    said = json.loads(path.read_text())
    said[next(iter(said))]["0"].pop()
    path.write_text(json.dumps(said))

    def work(url: str) -> None:
        train(still(odd, tmp_path / "two", batch_size=23, epochs=2, amp=amp, dist_url=url))

    assert together(2, work, tmp_path / "meet") == [None, None]
    train(still(odd, tmp_path / "one", batch_size=46, epochs=2, amp=amp))
    assert len(rows(tmp_path / "two")) == 4
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=tolerance)


def poison(batches: set[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a node of the third caption of some of the batches made, by number, not a number."""
    seen = 0
    real = CaptionSet.batch

    def poisoned(self: CaptionSet, rows: torch.Tensor, device: torch.device) -> Batch:
        nonlocal seen
        seen += 1
        batch = real(self, rows, device)
        if seen in batches:
            batch.regions[2, 0, 0] = math.nan
        return batch

    monkeypatch.setattr(CaptionSet, "batch", poisoned)


def test_a_loss_that_is_not_finite_names_its_caption(
    tiny_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison({2}, monkeypatch)
    with pytest.raises(TrainingDiverged, match=r"The loss became nan in epoch 1, step 2; .*last\.pt is from before"):
        train(still(tiny_world, tmp_path, save_minutes=1e-9))
    found = json.loads((tmp_path / "nonfinite.json").read_text())
    assert (found["epoch"], found["step"], len(found["captions"]["0"])) == (1, 2, 1)
    (bad,) = found["captions"]["0"]
    said = json.loads((tiny_world / "annotations" / "cleaned_trn_region_descriptions.json").read_text())
    assert bad["caption"] in said[bad["image"]][bad["region"]]


def test_all_processes_stop_when_one_loss_is_not_finite(
    tiny_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(url: str) -> None:
        poison({2} if os.environ["RANK"] == "1" else set(), monkeypatch)
        train(still(tiny_world, tmp_path, batch_size=8, dist_url=url))

    first, second = together(2, work, tmp_path / "meet")
    assert isinstance(first, TrainingDiverged)
    assert first.message == second.message
    captions = json.loads((tmp_path / "nonfinite.json").read_text())["captions"]
    assert (captions["0"], len(captions["1"])) == ([], 1)
    assert not (tmp_path / "last.pt").exists()


def test_weights_that_run_away_are_not_saved(tiny_world: Path, tmp_path: Path) -> None:
    """The only step of the epoch throws them away; the validation shows it."""
    with pytest.raises(TrainingDiverged, match="After epoch 1 the network's output is not finite"):
        train(still(tiny_world, tmp_path, batch_size=48, lr=1e37))
    assert not (tmp_path / "last.pt").exists()


def test_too_few_captions_and_an_unwritable_folder_are_told_before_anything_is_computed(
    tiny_world: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"48 captions an epoch, less than the 49 x 1 .* lower --batch_size to 48"):
        train(config_for(tiny_world, tmp_path / "out", batch_size=49))
    with pytest.raises(DataError, match="24 captions an epoch"):
        train(config_for(tiny_world, tmp_path / "out", batch_size=25, captions_per_region=1))
    assert not (tmp_path / "out" / "features").exists()
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match="Cannot write to"):
        train(config_for(tiny_world, tmp_path / "file" / "out"))

    def work(url: str) -> None:
        train(config_for(tiny_world, tmp_path / "out", batch_size=25, dist_url=url))

    for error in together(2, work, tmp_path / "meet"):
        assert isinstance(error, DataError)
        assert "25 x 2 of one batch; lower --batch_size to 24" in error.message


def test_a_checkpoint_that_cannot_be_written_ends_all_processes(tiny_world: Path, tmp_path: Path) -> None:
    (tmp_path / "last.pt").mkdir()

    def work(url: str) -> None:
        train(still(tiny_world, tmp_path, epochs=1, dist_url=url))

    for error in together(2, work, tmp_path / "meet"):
        assert isinstance(error, CheckpointError)
        assert "Cannot write the checkpoint" in error.message


@pytest.mark.slow
def test_torchrun_stopped_by_sigterm_and_resumed_equals_uninterrupted(tiny_world: Path, tmp_path: Path) -> None:
    """The command itself, on two processes, asked to stop in the midst of an epoch."""
    flags = (
        "--model test_efficientnet --levels 1 2 --input_size 64 --width 16 --epochs 5 --batch_size 2 --ema 0.9 "
        "--val_every 5 --device cpu"
    )
    words = ["ega", "--data_path", str(tiny_world), *flags.split()]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    ran = torchrun_done([*words, "--output_dir", whole])
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("epoch 5/5") == 1
    with torchrun([*words, "--output_dir", parts]) as process:
        end = time.monotonic() + 300
        while not (parts / "steps.csv").exists() or len(rows(parts)) < 15:
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=120)
    assert process.returncode != 0
    assert err.count(f"saaa-train ega: stopped; continue with --resume {parts / 'last.pt'}") == 1
    assert 15 <= len(rows(parts)) < 60
    ran = torchrun_done([*words, "--output_dir", parts, "--resume", parts / "last.pt"])
    assert ran.returncode == 0, ran.stderr
    assert_same(whole / "last.pt", parts / "last.pt")
    assert losses(whole) == losses(parts)


def test_the_exit_code_says_by_which_signal(
    tiny_world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "ega",
        "--data_path",
        str(tiny_world),
        "--output_dir",
        str(tmp_path),
        "--batch_size",
        "16",
        "--width",
        "16",
    ]
    words += ["--model", "test_efficientnet", "--levels", "1", "2", "--input_size", "64", "--threads", "1"]
    for number, code in ((signal.SIGTERM, PREEMPTED), (signal.SIGINT, INTERRUPTED)):
        with signalled(1, number):
            assert main(words) == code
        assert "continue with --resume" in capsys.readouterr().err
