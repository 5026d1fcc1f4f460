"""Several processes on this machine: by torchrun, or as it starts them without the seconds that it takes."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

PROJECT = Path(__file__).resolve().parents[2]


def together(size: int, work: Callable[[str], Any], folder: Path, *, longest_s: float = 120) -> list[Any]:
    """Fork `size` processes that each call `work` in torchrun's environment.

    Args:
        size: how many.
        work: is given the url where they meet; its result must be picklable.
        folder: where the meeting place and the results go, new for each call.
        longest_s: seconds after which they are taken to wait for each other.

    Returns:
        The results by rank; of a process that failed, the exception; of one that was killed, a `ChildProcessError`.
    """
    folder.mkdir(parents=True)

    def process(rank: int) -> None:
        own = {
            "RANK": rank,
            "LOCAL_RANK": rank,
            "WORLD_SIZE": size,
            "LOCAL_WORLD_SIZE": size,
            "GLOO_SOCKET_IFNAME": "lo",
        }
        os.environ.update({name: str(value) for name, value in own.items()})
        # Threads do not survive a fork.
        torch.set_num_threads(1)
        try:
            result: Any = work((folder / "meet").as_uri())
        except BaseException as error:
            traceback.print_exc()
            result = error
        (folder / str(rank)).write_bytes(pickle.dumps(result))

    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=process, args=(rank,)) for rank in range(size)]
    for one in processes:
        one.start()
    end = time.monotonic() + longest_s
    try:
        for one in processes:
            one.join(max(0.0, end - time.monotonic()))
            assert one.exitcode is not None, "the processes wait for each other"
    finally:
        for one in processes:
            one.kill()
    files = [folder / str(rank) for rank in range(size)]
    return [
        pickle.loads(file.read_bytes()) if file.exists() else ChildProcessError(f"exit code {one.exitcode}")
        for file, one in zip(files, processes, strict=True)
    ]


@contextmanager
def torchrun(words: Sequence[str | Path], processes: int = 2) -> Iterator[subprocess.Popen[str]]:
    """Start `torchrun -m training` with these words on this machine alone; if it still runs at the end, it is ended."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    with subprocess.Popen(
        [*command, "-m", "training", *map(str, words)],
        cwd=PROJECT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            # Not kill: torchrun takes its processes along only if it is asked to end.
            process.terminate()


def torchrun_done(words: Sequence[str | Path]) -> subprocess.CompletedProcess[str]:
    """Run torchrun to its end."""
    with torchrun(words) as process:
        out, err = process.communicate(timeout=900)
        return subprocess.CompletedProcess(words, process.returncode, out, err)
