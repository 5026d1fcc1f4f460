"""Stop and resume: at any step, by signal or by a crash, on one process or two, the weights end up the same."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import pytest

from saaa import archive as archives
from saaa.errors import CheckpointError, OptionInvalid
from tests.training.egdd.conftest import draw
from tests.training.egdd.tiny_run import assert_same, options, signalled, still
from tests.training.runs import losses, rows
from tests.training.several import together
from training.checkpoint import load_checkpoint
from training.egdd import outcome
from training.egdd.config import ArchiveConfig
from training.egdd.packing import pack
from training.egdd.train import train
from training.stopping import Stopped

EVENTFUL = {"batch_size": 4, "accum_iter": 4, "reprob": 0.5, "save_minutes": 0.0}
"""6 micro-batches an epoch on one process: a step of 4, then one of 2."""


@pytest.fixture(scope="module")
def finished(class_folders: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of an uninterrupted run."""
    output = tmp_path_factory.mktemp("finished")
    train(options(class_folders, output, **EVENTFUL))
    return output


@pytest.fixture(autouse=True)
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures of the confusion and the calibration take longer than these runs; the trainer's own tests have them."""
    monkeypatch.setattr(outcome, "write_pictures", lambda *_: None)


@pytest.mark.parametrize(
    ("step", "number"), [(1, signal.SIGTERM), (2, signal.SIGTERM), (5, signal.SIGTERM), (5, signal.SIGINT)]
)
def test_stop_and_resume_equals_uninterrupted(
    step: int, number: int, finished: Path, class_folders: Path, tmp_path: Path
) -> None:
    """In the middle (1, 5) or at the end (2) of an epoch."""
    with signalled(step, number), pytest.raises(Stopped, match=r"--resume .*last\.pt") as stopped:
        train(options(class_folders, tmp_path, **EVENTFUL))
    assert stopped.value.signal == number
    assert len(rows(tmp_path)) == step
    train(options(class_folders, tmp_path, **EVENTFUL, resume=tmp_path / "last.pt"))
    assert_same(finished / "last.pt", tmp_path / "last.pt")
    assert losses(tmp_path) == losses(finished)
    own, whole = (json.loads((folder / "metrics.json").read_text()) for folder in (tmp_path, finished))
    assert own["history"] == whole["history"]


def test_resume_after_a_crash(finished: Path, class_folders: Path, tmp_path: Path) -> None:
    """The process is killed in step 4; the last save is of step 3, whose row, and a torn one, are in the table. The
    same command, given again, goes on."""

    def crash(_: str) -> None:
        with signalled(4, signal.SIGKILL, rank="0"):
            train(options(class_folders, tmp_path / "out", **{**EVENTFUL, "save_minutes": 1e-9}, go_on=True))

    (error,) = together(1, crash, tmp_path / "meet")
    assert str(error) == f"exit code {-signal.SIGKILL}"
    assert load_checkpoint(tmp_path / "out" / "last.pt", "egdd")["training"]["step"] == 1
    table = tmp_path / "out" / "steps.csv"
    assert len(rows(tmp_path / "out")) == 3
    table.write_text(table.read_text() + "4,2,0.1,0.1,0.1,0.1\n5,3,0.")
    train(options(class_folders, tmp_path / "out", **EVENTFUL, go_on=True))
    assert_same(finished / "last.pt", tmp_path / "out" / "last.pt")
    assert losses(tmp_path / "out") == losses(finished)


def test_two_processes_one_killed_and_both_started_again(class_folders: Path, tmp_path: Path) -> None:
    """The second process is killed in the midst of an epoch; the first one, which waits for it, fails."""
    changes = {**EVENTFUL, "accum_iter": 1, "dist_eval": True, "epochs": 2, "go_on": True}

    def whole(url: str) -> None:
        train(options(class_folders, tmp_path / "whole", **changes, dist_url=url))

    def struck(url: str) -> None:
        with signalled(5, signal.SIGKILL, rank="1"):
            train(options(class_folders, tmp_path / "parts", **{**changes, "save_minutes": 1e-9}, dist_url=url))

    def again(url: str) -> None:
        train(options(class_folders, tmp_path / "parts", **changes, dist_url=url))

    assert together(2, whole, tmp_path / "1") == [None, None]
    first, second = together(2, struck, tmp_path / "2")
    assert isinstance(first, RuntimeError)
    assert str(second) == f"exit code {-signal.SIGKILL}"
    assert load_checkpoint(tmp_path / "parts" / "last.pt", "egdd")["training"]["step"] == 1
    assert together(2, again, tmp_path / "3") == [None, None]
    assert_same(tmp_path / "whole" / "last.pt", tmp_path / "parts" / "last.pt")
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")


def test_one_place_to_continue_from(class_folders: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionInvalid, match="--go_on and --resume"):
        options(class_folders, tmp_path, go_on=True, resume=tmp_path / "last.pt")


def test_a_finished_run_resumed_does_nothing_but_measure(finished: Path, class_folders: Path, tmp_path: Path) -> None:
    metrics = train(options(class_folders, tmp_path, **EVENTFUL, resume=finished / "last.pt"))
    expected = json.loads((finished / "metrics.json").read_text())
    assert {k: v for k, v in metrics.items() if k != "seconds"} == {k: v for k, v in expected.items() if k != "seconds"}
    assert not (tmp_path / "last.pt").exists()


def test_with_extra_images(class_folders: Path, tmp_path: Path) -> None:
    """As many steps as without them; stopped and resumed, also when the folder has moved meanwhile; not with others."""
    draw(tmp_path / "debug", 3, seed=5)
    changes = {"extra_data": (tmp_path / "debug",), "epoch_images": 24}
    train(options(class_folders, tmp_path / "whole", **changes))
    assert load_checkpoint(tmp_path / "whole" / "last.pt", "egdd")["data"]["train"]["images"] == 33
    assert len(rows(tmp_path / "whole")) == 9
    with signalled(4, signal.SIGTERM), pytest.raises(Stopped):
        train(options(class_folders, tmp_path / "parts", **changes))
    changes["extra_data"] = (shutil.move(tmp_path / "debug", tmp_path / "moved"),)
    train(options(class_folders, tmp_path / "parts", **changes, resume=tmp_path / "parts" / "last.pt"))
    assert_same(tmp_path / "whole" / "last.pt", tmp_path / "parts" / "last.pt")
    for other, says in (({**changes, "extra_data": ()}, "other images"), ({**changes, "epoch_images": 16}, "epoch_im")):
        with pytest.raises(CheckpointError, match=says):
            train(options(class_folders, tmp_path / "other", **other, resume=tmp_path / "parts" / "last.pt"))

    pack(ArchiveConfig(checkpoint=tmp_path / "whole" / "last.pt", output=tmp_path / "a.mar", faithfulness_images=4))
    recipe = archives.read(tmp_path / "a.mar").card["recipe"]
    assert (recipe["extra_data"], recipe["epoch_images"]) == (["debug"], 24)


def test_an_epoch_smaller_than_a_batch(class_folders: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionInvalid, match="epoch_images is 7; it must be at least 8"):
        train(options(class_folders, tmp_path, epoch_images=7))


def test_longer_training_from_a_checkpoint(finished: Path, class_folders: Path, tmp_path: Path) -> None:
    train(options(class_folders, tmp_path, **EVENTFUL, epochs=4, resume=finished / "last.pt"))
    assert [int(row["epoch"]) for row in rows(tmp_path)] == [4, 4]


def test_the_scale_of_fp16_is_kept(class_folders: Path, tmp_path: Path) -> None:
    changes = {"amp": "fp16", "epochs": 2}
    train(still(class_folders, tmp_path / "whole", **changes))
    with signalled(4, signal.SIGTERM), pytest.raises(Stopped):
        train(still(class_folders, tmp_path / "parts", **changes))
    train(still(class_folders, tmp_path / "parts", **changes, resume=tmp_path / "parts" / "last.pt"))
    assert_same(tmp_path / "whole" / "last.pt", tmp_path / "parts" / "last.pt")
    scalers = [
        load_checkpoint(tmp_path / name / "last.pt", "egdd")["training"]["scaler"] for name in ("whole", "parts")
    ]
    assert scalers[0] == scalers[1] != {}


def test_resume_needs_the_same_run(finished: Path, class_folders: Path, own_folders: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="weights only"):
        train(options(class_folders, tmp_path, **EVENTFUL, resume=finished / "best.pt"))
    for changes, says in (
        ({"input_size": 48}, "another model"),
        ({"batch_size": 2}, "--batch_size 4"),
        ({"accum_iter": 2}, "--accum_iter 4"),
        ({"seed": 1}, "--seed 0"),
    ):
        with pytest.raises(CheckpointError, match=says):
            train(options(class_folders, tmp_path, **{**EVENTFUL, **changes}, resume=finished / "last.pt"))
    with pytest.raises(CheckpointError, match="other images"):
        train(options(own_folders, tmp_path, **EVENTFUL, resume=finished / "last.pt"))


def test_two_processes_stop_together_and_resume(class_folders: Path, tmp_path: Path) -> None:
    """SIGTERM reaches only the second process; both stop after the same step, and its random state is kept, too."""
    changes = {
        **EVENTFUL,
        "accum_iter": 2,
        "dist_eval": True,
        "epochs": 2,
    }  # 3 micro-batches an epoch on each: steps of 2 and 1

    def whole(url: str) -> None:
        train(options(class_folders, tmp_path / "whole", **changes, dist_url=url))

    def stopped(url: str) -> int | None:
        with signalled(3, signal.SIGTERM, rank="1"):
            try:
                train(options(class_folders, tmp_path / "parts", **changes, dist_url=url))
            except Stopped as stop:
                return stop.signal
        return None

    def resumed(url: str) -> None:
        train(
            options(class_folders, tmp_path / "parts", **changes, dist_url=url, resume=tmp_path / "parts" / "last.pt")
        )

    assert together(2, whole, tmp_path / "1") == [None, None]
    assert together(2, stopped, tmp_path / "2") == [signal.SIGTERM, signal.SIGTERM]
    assert [row["step"] for row in rows(tmp_path / "parts")] == ["1", "2", "3"]
    with pytest.raises(CheckpointError, match="trained by 2 processes, now there are 1"):
        train(options(class_folders, tmp_path / "alone", **changes, resume=tmp_path / "parts" / "last.pt"))
    assert together(2, resumed, tmp_path / "3") == [None, None]
    assert_same(tmp_path / "whole" / "last.pt", tmp_path / "parts" / "last.pt")
    assert losses(tmp_path / "whole") == losses(tmp_path / "parts")
    states = load_checkpoint(tmp_path / "whole" / "last.pt", "egdd")["training"]["random"]
    assert len(states) == 2
    assert (states[0]["numpy"][1] != states[1]["numpy"][1]).any(), "each process mixes its own way"


def test_a_checkpoint_that_cannot_be_written_ends_all_processes(class_folders: Path, tmp_path: Path) -> None:
    (tmp_path / "last.pt").mkdir()

    def work(url: str) -> None:
        train(still(class_folders, tmp_path, epochs=1, warmup_epochs=0, batch_size=4, dist_url=url))

    for error in together(2, work, tmp_path / "meet"):
        assert isinstance(error, CheckpointError)
        assert "Cannot write the checkpoint" in error.message
    assert not (tmp_path / ".last.pt.partial").exists()
