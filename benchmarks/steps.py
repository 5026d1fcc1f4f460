"""Running console commands as timed steps, and a facade as a context."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

START_LIMIT_S = 180.0
STOP_LIMIT_S = 60.0


class Steps:
    """Times named steps and prints them as a table."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._start = time.monotonic()

    @property
    def total(self) -> float:
        """Seconds since construction."""
        return time.monotonic() - self._start

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Announce the step, time it, keep the time under its name."""
        print(f"\n== {name}", flush=True)
        start = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - start

    def print_table(self) -> None:
        """One line a step and the total, in seconds."""
        print("\nseconds by step")
        for name, seconds in self.seconds.items():
            print(f"  {name:<34}{seconds:8.1f}")
        print(f"  {'total':<34}{self.total:8.1f}")


def command(*words: str | Path) -> None:
    """Run one of the project's console commands; a failure ends the program with its exit code."""
    name, *arguments = (str(word) for word in words)
    print("$", name, *arguments, flush=True)
    done = subprocess.run([str(Path(sys.executable).parent / name), *arguments], check=False)
    if done.returncode:
        sys.exit(done.returncode)


@contextmanager
def facade(models: Path, backend: str) -> Iterator[str]:
    """`saaa up` on a free loopback port; gives its address, ends it with SIGTERM.

    Raises:
        RuntimeError: it did not come up, or did not end cleanly.
    """
    words = [str(Path(sys.executable).parent / "saaa"), "up", "--models", str(models), "--backend", backend]
    process = subprocess.Popen([*words, "--port", "0"], stdout=subprocess.PIPE, text=True)
    try:
        yield _address(process)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            code = process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            raise RuntimeError(f"saaa up did not end within {STOP_LIMIT_S:.0f} s of SIGTERM") from None
    if code:
        raise RuntimeError(f"saaa up ended with exit code {code}")


def _address(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    deadline = time.monotonic() + START_LIMIT_S
    for line in process.stdout:
        print(line, end="", flush=True)
        if match := re.match(r"serving on (\S+)", line):
            return match.group(1)
        if time.monotonic() > deadline:
            break
    raise RuntimeError("saaa up did not start; its message is above")
