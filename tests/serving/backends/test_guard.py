"""The guard: a run folder and its processes go when their owner does, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from serving.backends import guard

OWNER = """
import subprocess, sys, time
from pathlib import Path
from serving.backends import guard
from serving.backends.process import _start_guard
folder, lock = guard.make_run_dir(Path(sys.argv[1]))
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", f"-Djava.io.tmpdir={folder}/tmp"],
                         start_new_session=True)
watch = _start_guard(folder)
print(folder, child.pid, watch.pid, flush=True)
time.sleep(600)
"""


def wait_until(true: Callable[[], bool], seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if true():
            return True
        time.sleep(0.02)
    return False


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture
def owner(tmp_path: Path) -> tuple[subprocess.Popen[str], Path, int, int]:
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path)], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    folder, child, watch = process.stdout.readline().split()
    return process, Path(folder), int(child), int(watch)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_owners_death_leaves_nothing(
    owner: tuple[subprocess.Popen[str], Path, int, int], number: signal.Signals
) -> None:
    process, folder, child, watch = owner
    assert folder.stat().st_mode & 0o777 == 0o700
    assert guard.processes(folder) == [child]
    os.killpg(process.pid, number)
    process.wait()
    assert wait_until(lambda: not alive(child) and not folder.exists() and not alive(watch))


def test_what_survives_even_the_guard_is_swept_by_the_next(
    owner: tuple[subprocess.Popen[str], Path, int, int],
) -> None:
    process, folder, child, watch = owner
    root = folder.parent
    assert guard.sweep(root) == [], "a folder whose owner lives is left alone"
    assert folder.exists()
    os.kill(watch, signal.SIGKILL)
    process.kill()
    process.wait()
    assert alive(child)
    assert folder.exists()
    assert guard.sweep(root) == [folder]
    assert not folder.exists()
    assert wait_until(lambda: not alive(child))


def test_a_sweep_touches_only_what_is_ours(tmp_path: Path) -> None:
    other = tmp_path / "saaa-torchserve-no-lock"
    other.mkdir()
    (tmp_path / f"{guard._prefix()}unlocked").mkdir()
    assert guard.sweep(tmp_path) == []
    assert len(list(tmp_path.iterdir())) == 2
