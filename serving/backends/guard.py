"""Leave nothing behind: the run folder of one TorchServe, and all processes that work in it.

The owner of a TorchServe makes a run folder, locks a file in it, and starts this module as a tiny child
process. Should the owner die in whatever way, even by SIGKILL, the child's standard input ends; it then
kills the processes that work in the folder and removes it. What survives even that (the child was killed,
too) is swept when the next owner starts: a folder whose lock is free has no owner.

Only the standard library: the child must start in no time. Linux only (`/proc`).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

_LOCK = "owner.lock"
_LOOK_S = 1.0
_GONE_S = 10.0


def _prefix() -> str:
    return f"saaa-torchserve-{os.getuid()}-"


def make_run_dir(root: Path) -> tuple[Path, int]:
    """Make a private run folder (mode 0700) and lock it.

    Returns:
        The folder and the lock's file descriptor: whoever holds it open owns the folder.
    """
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_prefix(), dir=root)).resolve()
        lock = os.open(folder / _LOCK, os.O_CREAT | os.O_RDWR, 0o600)
        # A sweep may have seen the folder before it was locked; then another one is made.
        if _try_lock(lock) and (folder / _LOCK).exists():
            return folder, lock
        os.close(lock)


def sweep(root: Path) -> list[Path]:
    """Remove the run folders in `root` whose owners are dead; gives their names."""
    swept = []
    for folder in root.glob(f"{_prefix()}*"):
        try:
            lock = os.open(folder / _LOCK, os.O_RDWR)
        except OSError:
            continue
        try:
            if _try_lock(lock):
                remove(folder.resolve())
                swept.append(folder)
        finally:
            os.close(lock)
    return swept


def processes(folder: Path) -> list[int]:
    """Find the Java and the workers that work in a run folder, by their command lines."""
    java, worker = f"-Djava.io.tmpdir={folder}/", f"{folder}/"
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            arguments = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if any(a.startswith(java) or (a.startswith(worker) and ".ts.sock." in a) for a in arguments):
            found.append(int(entry.name))
    return found


def kill(folder: Path) -> None:
    """Kill the processes that work in a run folder, and wait until they are gone (at most 10 s)."""
    end = time.monotonic() + _GONE_S
    # Again and again, because a Java on its way out may still start a worker.
    while (pids := processes(folder)) and time.monotonic() < end:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def remove(folder: Path) -> None:
    """Kill the processes that work in a run folder, and remove it."""
    kill(folder)
    shutil.rmtree(folder, ignore_errors=True)


def wait_for_owner(folder: Path) -> None:
    """Block until standard input ends or the parent is another, then clean up."""
    owner = os.getppid()
    while True:
        readable, _, _ = select.select([sys.stdin], [], [], _LOOK_S)
        if (readable and not os.read(sys.stdin.fileno(), 1)) or os.getppid() != owner:
            break
    remove(folder)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


if __name__ == "__main__":
    # The owner decides when it is over, not a Ctrl-C that the terminal sends to everybody.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    wait_for_owner(Path(sys.argv[1]))
