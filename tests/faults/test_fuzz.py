"""A coverage-guided fuzzer at the code that reads strangers' images and graphs, in a process that may crash."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris is for Linux only")


@pytest.mark.parametrize("target", ["images", "graphs"])
@pytest.mark.parametrize("runs", [2000, pytest.param(100_000, marks=pytest.mark.faults)])
def test_nothing_but_answers_and_refusals(target: str, runs: int, tmp_path: Path) -> None:
    # The same inputs on every run, as far as the decoders are the same.
    options = [f"-runs={runs}", "-seed=1", "-max_len=4096", "-timeout=60", f"-artifact_prefix={tmp_path}/"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.fuzzing", target, *options], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert f"Done {runs} runs" in done.stderr
