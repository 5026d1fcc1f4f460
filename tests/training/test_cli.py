"""The command `saaa-train`: finding jobs, fast help, options from files, errors as one line, exit codes."""

from __future__ import annotations

import importlib
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from training.cli import JOBS, main
from training.stopping import Stopped


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_usage_names_every_job(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in JOBS)


@pytest.mark.parametrize("arguments", [["eggd"], ["evaluate"], ["archive", "tea"], ["--data_path", "x"]])
def test_unknown_job(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert "there is no job" in captured.err
    assert not captured.out


@pytest.mark.parametrize("name", JOBS)
def test_jobs_exist(name: str) -> None:
    job = JOBS[name]
    module = importlib.import_module(job.module)
    assert callable(getattr(module, job.options))
    assert callable(getattr(module, job.run))


def test_help_needs_no_torch() -> None:
    code = (
        "import sys; from training.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as stop: assert stop.code == 0\n"
        "assert 'torch' not in sys.modules"
    )
    for arguments in (["--help"], ["egdd", "--print_config"], ["archive", "egdd", "--help"]):
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert "--checkpoint" in done.stdout


def test_missing_option_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["evaluate", "egdd"])
    assert stop.value.code == 2
    assert "data_path" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["egdd", "--data_path", "NONE"], "There is no folder NONE/train."),
        (["egdd", "--config", "NONE.yaml"], "Cannot read the options in NONE.yaml: No such file or directory"),
        (["egdd", "--data-path", "NONE", "--batch-size", "0"], "batch_size is 0; it must be at least 1."),
        (
            ["egdd", "--data_path", "NONE", "--drop_path", "1"],
            "drop_path is 1; it must be at least 0 and below 1.",
        ),
        (["evaluate", "egdd", "--data_path", "NONE"], "Give either --archive FILE.mar or --checkpoint FILE."),
        (
            ["evaluate", "egdd", "--data_path", "NONE", "--checkpoint", "NONE.pt"],
            "There is no checkpoint NONE.pt.",
        ),
        (
            ["archive", "egdd", "--checkpoint", "NONE.pt", "--output", "x.mar"],
            "There is no checkpoint NONE.pt.",
        ),
    ],
)
def test_errors_are_one_line(
    arguments: list[str],
    says: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert err.startswith("saaa-train ")
    assert err.endswith(f": {says}\n")


def printed(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main([*arguments, "--print_config"]) == 0
    values: dict[str, Any] = yaml.safe_load(capsys.readouterr().out)
    return values


def test_command_line_overrides_file_overrides_default(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("epochs: 7\nblr: 5e-4\nmodel: vit_large_patch16\ndist_eval: true\n")
    values = printed(["egdd", "--blr", "0.25", "--config", str(file), "--no_dist_eval"], capsys)
    assert values["epochs"] == 7
    assert values["blr"] == 0.25
    assert values["model"] == "vit_large_patch16"
    assert values["dist_eval"] is False
    assert values["weight_decay"] == 0.05


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("scenes", ["--confound", "office=colour", "nursery=object"]),
        ("egdd", ["--cutmix_minmax", "0.2", "0.8", "--lr", "1e-7", "--finetune", "w.pth", "--epochs", "50"]),
        ("ega", ["--data_path", "d", "--levels", "1", "2", "--clip_grad", "None"]),
        ("ega published", ["model.json", "path.json", "--is_train", "--num_workers", "8", "--device", "cpu"]),
        ("ega prepare", ["--data_path", "d", "--output_dir", "o", "--width", "64"]),
        ("evaluate egdd", ["--data_path", "d", "--archive", "a.mar"]),
        ("evaluate ega", ["--data_path", "d", "--archive", "a.mar", "--threads", "2"]),
        ("attribute", ["--data", "d", "--out", "o", "--archive", "a.mar", "--deletion"]),
        ("annotate export", ["--run", "r", "--out", "o", "--limit", "9"]),
        ("annotate serve", ["--tasks", "t", "--port", "0", "--pull"]),
        ("annotate import", ["--answers", "a.json", "b.jsonl", "--out", "o", "--hard", "gap"]),
        ("concepts", ["--classes", "c.json", "--out", "o", "--model", "m", "--temperature", "1", "--no_constrain"]),
        ("debug-train", ["--data", "d", "--out", "o", "--answers", "a.json", "b.json", "--strategy", "g-tg"]),
        ("archive egdd", ["--checkpoint", "c.pt", "--output", "o.mar"]),
        ("archive ega", ["--checkpoint", "c.pt", "--output", "o.mar"]),
        ("asg coco", ["--captions", "c.json", "--instances", "i.json", "--output_dir", "o", "--folds", "5"]),
        ("evaluate asg", ["--phrases", "dev.csv"]),
        ("features", ["--data_path", "d", "--output_dir", "o", "--splits", "trn", "val"]),
        ("pack", ["--data_path", "d", "--features", "f", "--output_dir", "o", "--box_tolerance", "1"]),
        ("shards", ["--data_path", "d", "--output_dir", "o"]),
    ],
)
def test_printed_configuration_reads_back(
    name: str, arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of every job, with required options in the file only; the sequences and Nones come back as they were."""
    first = printed([*name.split(), *arguments], capsys)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(first))
    assert printed([*name.split(), "--config", str(tmp_path / "config.yaml")], capsys) == first


def test_every_job_is_in_the_test_above() -> None:
    marks = test_printed_configuration_reads_back.pytestmark  # type: ignore[attr-defined]
    assert {name for name, _ in marks[0].args[1]} == set(JOBS)


def test_file_is_judged_together_with_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a file holds may be wrong alone, and right with what the command line adds."""
    (tmp_path / "c.yaml").write_text("eval: true\nbatch_size: 0\n")
    assert main(["egdd", "--config", str(tmp_path / "c.yaml"), "--batch_size", "4"]) == 2
    assert "--eval needs the weights" in capsys.readouterr().err
    assert main(["egdd", "--config", str(tmp_path / "c.yaml"), "--print_config", "--resume", "last.pt"]) == 2
    assert "batch_size is 0" in capsys.readouterr().err
    good = ["--config", str(tmp_path / "c.yaml"), "--batch_size", "4", "--resume", "last.pt"]
    assert printed(["egdd", *good], capsys)["resume"] == "last.pt"


def test_help_shows_the_file_s_values(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "c.yaml").write_text("epochs: 4321\n")
    with pytest.raises(SystemExit) as stop:
        main(["egdd", "--config", str(tmp_path / "c.yaml"), "--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert "4321" in out
    assert "--config FILE.yaml" in out


@pytest.mark.parametrize(
    ("words", "options"),
    [
        (["--eval_loss", "--is_train"], {"is_train": True, "eval_loss": True}),
        (["--eval_set", "val_sub_opt"], {"is_train": False, "eval_set": "val_sub_opt"}),
    ],
)
def test_the_published_captioner_s_command(
    words: list[str], options: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """A file after the job's name: the line is the published program's."""
    values = printed(["ega", "model.json", "path.json", *words, "--num_workers", "8"], capsys)
    wanted = {"model_json": "model.json", "path_json": "path.json", "num_workers": 8, **options}
    assert {name: values[name] for name in wanted} == wanted


PUBLISHED = (
    "--accum_iter 4 --batch_size 64 --model vit_base_patch16 --epochs 100 --blr 5e-4 --layer_decay 0.65 "
    "--weight_decay 0.05 --drop_path 0.1 --mixup 0.8 --cutmix 1.0 --reprob 0.25 --data_path DATA --output_dir OUT "
    "--log_dir LOG --dist_eval"
)
EVERY_OTHER_FLAG = (
    "--input_size 224 --clip_grad 1.0 --lr 1e-3 --min_lr 1e-6 --warmup_epochs 5 --color_jitter 0.4 "
    "--aa rand-m9-mstd0.5-inc1 --smoothing 0.1 --remode pixel --recount 1 --resplit --cutmix_minmax 0.2 0.8 "
    "--mixup_prob 1.0 --mixup_switch_prob 0.5 --mixup_mode batch --finetune FILE --global_pool --nb_classes 12 "
    "--device cuda --seed 0 --resume FILE --start_epoch 0 --eval --num_workers 10 --pin_mem --no_pin_mem "
    "--world_size 1 --local_rank -1 --dist_on_itp --dist_url env://"
)


def test_published_command_as_it_stands(capsys: pytest.CaptureFixture[str]) -> None:
    values = printed(["egdd", *PUBLISHED.split()], capsys)
    words = PUBLISHED.removesuffix(" --dist_eval").split()
    given = dict(zip(words[::2], words[1::2], strict=True))
    assert values["dist_eval"] is True
    assert {flag: type(values[flag[2:]])(word) for flag, word in given.items()} == {
        flag: values[flag[2:]] for flag in given
    }


def test_every_flag_of_the_published_script(capsys: pytest.CaptureFixture[str]) -> None:
    values = printed(["egdd", *PUBLISHED.split(), *EVERY_OTHER_FLAG.split()], capsys)
    assert values["cutmix_minmax"] == [0.2, 0.8]
    assert values["pin_mem"] is False
    assert values["local_rank"] == -1
    assert printed(["egdd", "--cls_token"], capsys)["cls_token"] is True


def test_published_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    """Those of the published script, EGDD's where it changed MAE's; what differs is in the option's description."""
    values = printed(["egdd"], capsys)
    published = {
        "batch_size": 64, "epochs": 100, "accum_iter": 1, "model": "vit_base_patch16", "input_size": 224,
        "drop_path": 0.1, "clip_grad": None, "weight_decay": 0.05, "lr": None, "blr": 1e-3, "layer_decay": 0.75,
        "min_lr": 1e-6, "warmup_epochs": 5, "color_jitter": None, "aa": "rand-m9-mstd0.5-inc1", "smoothing": 0.1,
        "reprob": 0.25, "remode": "pixel", "recount": 1, "resplit": False, "mixup": 0, "cutmix": 0,
        "cutmix_minmax": None, "mixup_prob": 1.0, "mixup_switch_prob": 0.5, "mixup_mode": "batch", "global_pool": False,
        "data_path": "data", "output_dir": "output_dir", "seed": 0, "resume": None, "start_epoch": 0, "eval": False,
        "dist_eval": False, "num_workers": 10, "pin_mem": True, "world_size": 1, "local_rank": -1,
        "dist_on_itp": False, "dist_url": "env://",
    }  # fmt: skip
    assert {name: values[name] for name in published} == published


@pytest.mark.parametrize(
    ("stop", "code"),
    [
        (KeyboardInterrupt(), 130),
        (Stopped("saved", signal.SIGINT), 130),
        (Stopped("saved", signal.SIGTERM), 75),
    ],
)
def test_exit_code_of_a_stop(
    stop: KeyboardInterrupt, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(_: Any) -> None:
        raise stop

    monkeypatch.setattr(importlib.import_module("training.scenes"), "run", run)
    assert main(["scenes"]) == code
    assert capsys.readouterr().err == f"saaa-train scenes: {str(stop) or 'stopped'}\n"


def test_module_form() -> None:
    done = subprocess.run([sys.executable, "-m", "training", "nonsense"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "there is no job 'nonsense'" in done.stderr
