"""The whole command: `saaa-train egdd` and `torchrun -m training egdd` by exit code, message and files."""

from __future__ import annotations

import csv
import json
import os
import resource
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from tests.training import several
from tests.training.egdd.conftest import draw
from training.checkpoint import load_checkpoint
from training.cli import main

PROJECT = Path(__file__).resolve().parents[3]
TINY = "--model test_vit --input_size 32 --aa none --device cpu --threads 1 --num_workers 0".split()
SHORT = [*TINY, *"--batch_size 8 --epochs 2 --warmup_epochs 0".split()]


def egdd(data: Path, output: Path, *words: str) -> int:
    """Run `saaa-train egdd` in this process; give its exit code."""
    return main(["egdd", "--data_path", str(data), "--output_dir", str(output), *SHORT, *words])


def torchrun(words: Sequence[str | Path], processes: int = 2) -> AbstractContextManager[subprocess.Popen[str]]:
    """Start `torchrun -m training egdd`."""
    return several.torchrun(["egdd", *words], processes)


def done(words: Sequence[str | Path]) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    return several.torchrun_done(["egdd", *words])


def rows(output: Path) -> list[dict[str, str]]:
    """The steps that a run has noted so far."""
    path = output / "steps.csv"
    return list(csv.DictReader(path.open())) if path.exists() else []


def test_published_command(tmp_path: Path) -> None:
    """The published flags, on two processes, but for a tiny network on tiny pictures and fewer epochs."""
    draw(tmp_path / "data" / "train", 44, seed=1)
    draw(tmp_path / "data" / "val", 3, seed=2)
    flags = (
        "--accum_iter 4 --batch_size 64 --model test_vit --input_size 32 --epochs 6 --blr 5e-4 --layer_decay 0.65 "
        "--weight_decay 0.05 --drop_path 0.1 --mixup 0.8 --cutmix 1.0 --reprob 0.25 --dist_eval"
    ).split()
    output, log = tmp_path / "out", tmp_path / "log"
    ran = done([*flags, "--data_path", tmp_path / "data", "--output_dir", output, "--log_dir", log])
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("after the last epoch") == 1
    metrics = json.loads((output / "metrics.json").read_text())
    assert metrics["images"] == 9  # an odd number on two processes, each counted once
    assert metrics["epoch"] == 6
    # 132 images are one batch of 64 on each process, and the epoch's one step has fewer than four of them.
    assert [int(row["step"]) for row in rows(output)] == [1, 2, 3, 4, 5, 6]
    assert yaml.safe_load((output / "config.yaml").read_text())["mixup"] == 0.8
    assert json.loads((output / "classes.json").read_text()) == {"blue": 0, "green": 1, "red": 2}
    assert {"last.pt", "best.pt"} <= {path.name for path in output.iterdir()}
    assert list(log.glob("events.out.tfevents.*"))


@pytest.mark.slow
def test_terminated_torchrun_goes_on_where_it_was(tmp_path: Path) -> None:
    """SIGTERM to torchrun in the midst of an epoch: saved, said once; resumed it ends as a run that never stopped."""
    draw(tmp_path / "data" / "train", 40, seed=1)
    draw(tmp_path / "data" / "val", 3, seed=2)
    words = [*TINY, *"--batch_size 2 --accum_iter 2 --epochs 5 --warmup_epochs 0 --mixup 0.2 --drop_path 0.2".split()]
    words += ["--ema", "0.9", "--dist_eval", "--data_path", str(tmp_path / "data")]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    ran = done([*words, "--output_dir", whole])
    assert ran.returncode == 0, ran.stderr
    with torchrun([*words, "--output_dir", parts]) as process:
        end = time.monotonic() + 600
        while len(rows(parts)) < 20 and process.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=300)
    assert process.returncode != 0
    assert err.count(f"saaa-train egdd: stopped; continue with --resume {parts / 'last.pt'}") == 1
    stopped = len(rows(parts))
    assert 20 <= stopped < len(rows(whole))
    ran = done([*words, "--output_dir", parts, "--resume", parts / "last.pt"])
    assert ran.returncode == 0, ran.stderr
    assert [row["loss"] for row in rows(parts)] == [row["loss"] for row in rows(whole)]
    first, second = (load_checkpoint(folder / "last.pt", "egdd") for folder in (whole, parts))
    for one, other in ((first["model"], second["model"]), (first["training"]["net"], second["training"]["net"])):
        assert all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.slow
def test_errors_that_processes_share_are_said_once(tmp_path: Path, class_folders: Path) -> None:
    where = ["--data_path", class_folders, "--output_dir", tmp_path / "out"]
    for words, says in (
        (["--batch_size", "16"], "The training set has 24 images, less than the 16 x 2 of one batch"),
        (["--epochs", "many"], "invalid literal for int() with base 10: 'many'"),
    ):
        ran = done([*SHORT, *where, *words])
        assert ran.returncode != 0
        assert ran.stderr.count(says) == 1, ran.stderr


def test_terminated_command_has_its_own_exit_code(class_folders: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"

    def terminate() -> None:
        while not rows(output):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    # Should the command end before the signal comes, the tests shall not.
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=terminate, daemon=True).start()
    try:
        assert egdd(class_folders, output, "--epochs", "1000") == 75
    finally:
        signal.signal(signal.SIGTERM, before)
    assert load_checkpoint(output / "last.pt", "egdd")["epoch"] < 1000


def empty_class(data: Path) -> None:
    (data / "train" / "grey").mkdir()


def one_class(data: Path) -> None:
    shutil.rmtree(data / "train" / "red")
    shutil.rmtree(data / "train" / "green")


def one_image(data: Path) -> None:
    """A single image a class, with val/ apart."""
    for folder in (data / "train").iterdir():
        _, *others = sorted(folder.iterdir())
        (data / "val" / folder.name).mkdir(parents=True)
        for path in others:
            path.rename(data / "val" / folder.name / path.name)


def nothing(_: Path) -> None:
    """The folders as they are."""


def unusable(data: Path) -> None:
    for path in (data / "train" / "red").iterdir():
        path.write_bytes(b"no picture")


@pytest.mark.parametrize(
    ("spoil", "words", "says"),
    [
        (empty_class, "", "grey"),
        (one_class, "", "at least 2 classes"),
        (one_image, "", "has 3 images, less than the 8 x 1 of one batch; lower --batch_size to 3."),
        (unusable, "", "red"),
        (nothing, "--mixup 0.8 --batch_size 7", "batch_size must be even; it is 7."),
        (nothing, "--cutmix_minmax 0.2 0.8 --batch_size 7", "batch_size must be even; it is 7."),
        (nothing, "--nb_classes 12", "12"),
        (nothing, "--model no_such_net", "no_such_net"),
        (nothing, "--finetune nowhere.pth", "nowhere.pth"),
        (nothing, "--eval", "--eval needs the weights to evaluate: --resume or --finetune."),
        (nothing, "--device abacus", "abacus"),
        (nothing, "--lr 1e30 --batch_size 4", "nonfinite.json lists the images."),
    ],
)
def test_bad_input(
    spoil: Callable[[Path], None],
    words: str,
    says: str,
    own_folders: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    spoil(own_folders)
    assert egdd(own_folders, tmp_path / "out", *words.split()) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("saaa-train egdd: ")
    assert says in last


def test_diverged_run_names_its_images(own_folders: Path, tmp_path: Path) -> None:
    assert egdd(own_folders, tmp_path / "out", "--lr", "1e30", "--batch_size", "4") == 2
    found = json.loads((tmp_path / "out" / "nonfinite.json").read_text())
    assert found["images"]["0"]
    for name in found["images"]["0"]:
        with Image.open(name) as image:
            assert image.size == (40, 40)


def test_checkpoint_of_other_classes(
    own_folders: Path, class_folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert egdd(class_folders, tmp_path / "first", "--epochs", "1") == 0
    shutil.rmtree(own_folders / "train" / "red")
    last = str(tmp_path / "first" / "last.pt")
    assert egdd(own_folders, tmp_path / "second", "--resume", last) == 2
    assert "is of another model, input or set of classes" in capsys.readouterr().err
    assert egdd(own_folders, tmp_path / "second", "--finetune", last, "--eval") == 2
    assert capsys.readouterr().err.startswith("saaa-train egdd: ")
    # As initial weights its head is replaced.
    assert egdd(own_folders, tmp_path / "second", "--finetune", last, "--epochs", "1") == 0


def test_unwritable_output(own_folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("in the way")
    assert egdd(own_folders, tmp_path / "file" / "out") == 2
    assert f"Cannot write to {tmp_path / 'file' / 'out'}" in capsys.readouterr().err


def test_full_disk_leaves_the_last_checkpoint(
    own_folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A limit on the size of files stands in for the end of the disk: writing fails in the midst of a checkpoint."""
    output = tmp_path / "out"
    assert egdd(own_folders, output, "--epochs", "1") == 0
    before = (output / "last.pt").read_bytes()
    capsys.readouterr()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, hard))
    try:
        code = egdd(own_folders, output, "--epochs", "3", "--resume", str(output / "last.pt"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert code == 2
    assert "Cannot write the checkpoint" in capsys.readouterr().err
    assert (output / "last.pt").read_bytes() == before
    assert not list(output.glob(".*.partial"))
    assert egdd(own_folders, output, "--epochs", "2", "--resume", str(output / "last.pt")) == 0


def test_saved_configuration_repeats_the_run(
    own_folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert egdd(own_folders, tmp_path / "first", "--reprob", "0.9", "--seed", "3") == 0
    file, again = str(tmp_path / "first" / "config.yaml"), str(tmp_path / "again")
    assert main(["egdd", "--config", file, "--output_dir", again]) == 0
    first, second = (load_checkpoint(tmp_path / name / "last.pt", "egdd") for name in ("first", "again"))
    assert all(torch.equal(value, second["model"][name]) for name, value in first["model"].items())
