"""The command `saaa-train`: finding jobs, fast help, errors as one line and exit code 2."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from training.cli import JOBS, main


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
    for arguments in (["--help"], ["egdd", "--help"], ["archive", "egdd", "--help"]):
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert "--checkpoint" in done.stdout


def test_missing_option_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["egdd"])
    assert stop.value.code == 2
    assert "data_path" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["egdd", "--data_path", "NONE"], "There is no folder NONE/train."),
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


def test_module_form() -> None:
    done = subprocess.run([sys.executable, "-m", "training", "nonsense"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "there is no job 'nonsense'" in done.stderr
