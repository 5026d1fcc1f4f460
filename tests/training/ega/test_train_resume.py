"""Stop and resume: at any step, by signal or by a crash, on one process or two, the weights end up the same."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from saaa.errors import CheckpointError, OptionInvalid
from tests.training.ega.tiny_run import assert_same, config_for, eventful, signalled, still
from tests.training.ega.tiny_world import make
from tests.training.runs import losses, rows
from tests.training.several import together
from training.checkpoint import load_checkpoint
from training.ega.train import train
from training.stopping import Stopped


@pytest.fixture(scope="module")
def finished(tiny_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of an uninterrupted run."""
    output = tmp_path_factory.mktemp("finished")
    train(eventful(tiny_world, output))
    return output


@pytest.mark.parametrize(("step", "number"), [(1, signal.SIGTERM), (5, signal.SIGINT), (7, signal.SIGTERM)])
def test_stop_and_resume_equals_uninterrupted(
    step: int, number: int, finished: Path, tiny_world: Path, tmp_path: Path
) -> None:
    """In the middle (1, 7) or at the end (5) of an epoch."""
    with signalled(step, number), pytest.raises(Stopped, match=r"--resume .*last\.pt") as stopped:
        train(eventful(tiny_world, tmp_path))
    assert stopped.value.signal == number
    assert len(rows(tmp_path)) == step
    train(eventful(tiny_world, tmp_path, resume=tmp_path / "last.pt"))
    assert_same(finished / "last.pt", tmp_path / "last.pt")
    assert losses(tmp_path) == losses(finished)
    own, whole = (json.loads((folder / "metrics.json").read_text())["epochs"] for folder in (tmp_path, finished))
    assert own == whole


def test_resume_after_a_crash(finished: Path, tiny_world: Path, tmp_path: Path) -> None:
    """The process is killed in step 4; the last save is of step 3, whose row, and a torn one, are in the table. The
    same command, given again, goes on."""
    often = {"save_minutes": 1e-9, "go_on": True}

    def crash(_: str) -> None:
        with signalled(4, signal.SIGKILL, rank="0"):
            train(eventful(tiny_world, tmp_path / "out", **often))

    (error,) = together(1, crash, tmp_path / "meet")
    assert str(error) == f"exit code {-signal.SIGKILL}"
    assert load_checkpoint(tmp_path / "out" / "last.pt", "ega")["training"]["step"] == 3
    table = tmp_path / "out" / "steps.csv"
    table.write_text(table.read_text() + "4,1,0.1,0.1,0.1,0.1\n5,1,0.")
    train(eventful(tiny_world, tmp_path / "out", go_on=True))
    assert_same(finished / "last.pt", tmp_path / "out" / "last.pt")
    assert losses(tmp_path / "out") == losses(finished)


def test_one_place_to_continue_from(tiny_world: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionInvalid, match="--go_on and --resume"):
        eventful(tiny_world, tmp_path, go_on=True, resume=tmp_path / "last.pt")


def test_a_finished_run_resumed_does_nothing_and_more_epochs_go_on(
    finished: Path, tiny_world: Path, tmp_path: Path
) -> None:
    again = train(eventful(tiny_world, tmp_path, resume=finished / "last.pt"))
    assert again["epochs"] == json.loads((finished / "metrics.json").read_text())["epochs"]
    assert not (tmp_path / "last.pt").exists()
    train(eventful(tiny_world, tmp_path, epochs=3, resume=finished / "last.pt"))
    assert [int(row["epoch"]) for row in rows(tmp_path)] == [3] * 5


def test_resume_needs_the_same_run(finished: Path, tiny_world: Path, tmp_path: Path) -> None:
    def refused(says: str, name: str = "last.pt", world: Path = tiny_world, **changes: object) -> None:
        with pytest.raises(CheckpointError, match=says):
            train(eventful(world, tmp_path / "out", resume=finished / name, **changes))

    refused(r"resume from last\.pt", name="best.pt")
    refused("other sizes", width=24)
    refused("trained with --batch_size 10, not 8", batch_size=8)
    refused("trained with --seed 0", seed=1)
    refused("--captions_per_region None", captions_per_region=2)
    refused("other captions", world=make(tmp_path / "other", {"trn": 24, "val": 6}, seed=8))
    one, two = (load_checkpoint(finished / "last.pt", "ega") for _ in range(2))
    one["standard"]["region_mean"][0] += 1
    two["vocabulary"][5] = "absent"
    for content, says in ((one, "other features"), (two, "another vocabulary")):
        torch.save(content, tmp_path / "changed.pt")
        with pytest.raises(CheckpointError, match=says):
            train(eventful(tiny_world, tmp_path / "out", resume=tmp_path / "changed.pt"))
    (tmp_path / "noise.pt").write_bytes(b"noise")
    with pytest.raises(CheckpointError, match="cannot be read"):
        train(eventful(tiny_world, tmp_path / "out", resume=tmp_path / "noise.pt"))


def test_two_processes_stop_together_and_resume(tiny_world: Path, tmp_path: Path) -> None:
    """SIGTERM reaches only the second process; both stop after the same step. 48 captions in steps of 2 x 10: the last
    one has 8."""

    def whole(url: str) -> None:
        train(eventful(tiny_world, tmp_path / "whole", dist_url=url))

    def stopped(url: str) -> int | None:
        with signalled(4, signal.SIGTERM, rank="1"):
            try:
                train(eventful(tiny_world, tmp_path / "parts", dist_url=url))
            except Stopped as stop:
                return stop.signal
        return None

    def resumed(url: str) -> None:
        train(eventful(tiny_world, tmp_path / "parts", dist_url=url, resume=tmp_path / "parts" / "last.pt"))

    assert together(2, whole, tmp_path / "1") == [None, None]
    assert together(2, stopped, tmp_path / "2") == [signal.SIGTERM, signal.SIGTERM]
    assert [row["step"] for row in rows(tmp_path / "parts")] == ["1", "2", "3", "4"]
    with pytest.raises(CheckpointError, match="trained by 2 processes, not 1"):
        train(eventful(tiny_world, tmp_path / "alone", resume=tmp_path / "parts" / "last.pt"))
    assert together(2, resumed, tmp_path / "3") == [None, None]
    assert_same(tmp_path / "whole" / "last.pt", tmp_path / "parts" / "last.pt")
    assert losses(tmp_path / "whole") == losses(tmp_path / "parts")


def test_the_scale_of_fp16_is_kept(tiny_world: Path, tmp_path: Path) -> None:
    train(still(tiny_world, tmp_path / "whole", amp="fp16"))
    with signalled(4, signal.SIGTERM), pytest.raises(Stopped):
        train(still(tiny_world, tmp_path / "parts", amp="fp16"))
    train(still(tiny_world, tmp_path / "parts", amp="fp16", resume=tmp_path / "parts" / "last.pt"))
    assert_same(tmp_path / "whole" / "last.pt", tmp_path / "parts" / "last.pt")
    scalers = [load_checkpoint(tmp_path / name / "last.pt", "ega")["training"]["scaler"] for name in ("whole", "parts")]
    assert scalers[0] == scalers[1] != {}


def test_jittered_boxes_are_dealt_alike_after_a_stop(tiny_world: Path, tmp_path: Path) -> None:
    options = {"jitter": 0.5, "captions_per_region": 1, "batch_size": 8}
    train(config_for(tiny_world, tmp_path / "whole", **options))
    with signalled(5, signal.SIGTERM), pytest.raises(Stopped):
        train(config_for(tiny_world, tmp_path / "parts", **options))
    train(config_for(tiny_world, tmp_path / "parts", **options, resume=tmp_path / "parts" / "last.pt"))
    assert_same(tmp_path / "whole" / "last.pt", tmp_path / "parts" / "last.pt")
    train(config_for(tiny_world, tmp_path / "plain", **{**options, "jitter": 0.0}))
    assert not np.allclose(losses(tmp_path / "plain"), losses(tmp_path / "whole"))
