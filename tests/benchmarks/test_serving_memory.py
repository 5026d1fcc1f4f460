"""Whose memory a soak tells apart, what its gates say of it, and where the benchmark's folder is."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from benchmarks.serving import Options
from benchmarks.serving_processes import OTHER, PROGRAMS, Processes, memory_of
from benchmarks.serving_results import gates_of_soak, second_and_last

WORKER_BYTES = 48 * 2**20
WORKER = f"import time\nheld = bytearray({WORKER_BYTES})\nheld[::4096] = b'.' * len(held[::4096])\ntime.sleep(60)"
FACADE = """
import subprocess, sys
started = [subprocess.Popen([sys.executable, sys.argv[1]]), subprocess.Popen(["sleep", "60"])]
started[0].wait()
"""


def test_memory_is_told_apart_by_program(tmp_path: Path) -> None:
    """A tree as of `saaa up`: a facade that started one large worker and something else."""
    facade, worker = tmp_path / "saaa", tmp_path / "model_service_worker.py"
    facade.write_text(FACADE)
    worker.write_text(WORKER)
    processes = Processes([sys.executable, str(facade), str(worker)], {}, tmp_path / "log")
    try:
        deadline = time.monotonic() + 60
        while (found := memory_of(processes.look()))["workers"] < WORKER_BYTES or not found[OTHER]:
            assert time.monotonic() < deadline, (found, processes.last_words())
            time.sleep(0.1)
        assert found.keys() == {*PROGRAMS, OTHER}
        assert found["java"] == 0
        assert 0 < found["facade"] < WORKER_BYTES
        assert 0 < found[OTHER] < found["facade"]
    finally:
        processes.stop()
    assert set(memory_of([processes.root.pid]).values()) == {0}


def test_second_and_last_quarter() -> None:
    assert second_and_last([9, 9, 9, 1, 2, 3, 5, 5, 5, 6, 7, 8]) == (2, 7)
    assert second_and_last([4]) == (4, 4)


def test_the_gate_of_memory_says_who_grew() -> None:
    mib = 2**20
    parts = {"facade": (100 * mib, 101 * mib), "java": (100 * mib, 109 * mib), "workers": (200 * mib, 198 * mib)}
    soak = {"memory": (400 * mib, 408 * mib), "memory_of": parts, "descriptors": (50, 60), "files": (0, 0)}
    memory, descriptors, files = gates_of_soak(soak)
    assert (memory.value, memory.reached) == (1.02, True)
    assert memory.why == "java +9.0 MiB of 100, facade +1.0 MiB of 100, workers -2.0 MiB of 200"
    assert memory.why in str(memory)
    assert (descriptors.value, descriptors.reached, descriptors.why) == (1.2, False, "")
    assert (files.value, files.reached) == (0, True)
    assert [gate.reached for gate in gates_of_soak({})] == [None] * 3


def test_servers_in_other_folders_find_the_benchmarks_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    options = Options()
    monkeypatch.chdir("/")
    assert options.output == tmp_path / "build" / "bench"
