"""A real `saaa up` in a process of its own, on a port that stays, and what it holds of the machine."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

from serving.backends import guard
from serving.backends.launch import Ports
from serving.backends.torchserve import TorchServeBackend
from tests.serving.backends.test_process import wait_until

PATIENT_S = 300.0


class Service:
    """Start it, look at it, kill it, start it again; a context manager that leaves nothing behind.

    Args:
        folder: takes its temporary files and what it says; a short path.
        models: archives.
        options: of `saaa up`.
        environment: added to that of the process.
    """

    def __init__(
        self, folder: Path, models: Path, *options: object, environment: Mapping[str, str] | None = None
    ) -> None:
        self.folder = folder
        self.address = f"127.0.0.1:{Ports.free().rest}"
        port = self.address.rpartition(":")[2]
        words = ["up", "--models", models, "--port", port, "--leave_s", "0", *options]
        self._command = [sys.executable, "-m", "serving.commands.cli", *map(str, words)]
        self._environment = {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(folder), **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it listens."""
        with (self.folder / "said").open("ab") as said:
            begin = said.tell()
            self._process = subprocess.Popen(self._command, env=self._environment, stdout=said, stderr=said)
        listens = wait_until(lambda: b"serving on" in self.said()[begin:] or self._ended(), PATIENT_S)
        assert listens, self.said()[begin:]
        assert not self._ended(), self.said()[begin:]

    @property
    def pid(self) -> int:
        """Of the facade."""
        assert self._process is not None
        return self._process.pid

    def said(self) -> bytes:
        """All that it wrote to standard output and error, of every start."""
        return (self.folder / "said").read_bytes()

    def kill(self) -> None:
        """SIGKILL."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> int:
        """SIGTERM; gives the exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(60)

    def java(self) -> int:
        """Java's process."""
        (java,) = (pid for pid in self.theirs() if b"-Djava.io.tmpdir" in _command(pid))
        return java

    def workers(self, model: str) -> list[int]:
        """The processes that compute with a model: they work in its unpacked archive."""
        found = []
        for pid in self.theirs():
            config = Path(f"/proc/{pid}/cwd/config.json")
            if config.is_file() and json.loads(config.read_text())["name"] == model:
                found.append(pid)
        return found

    def theirs(self) -> list[int]:
        """Java and all workers."""
        return [pid for folder in self.folder.glob("saaa-torchserve-*") for pid in guard.processes(folder.resolve())]

    @contextlib.asynccontextmanager
    async def torchserve(self) -> AsyncIterator[TorchServeBackend]:
        """To ask TorchServe itself."""
        (folder,) = self.folder.glob("saaa-torchserve-*")
        lines = (folder / "config.properties").read_text().splitlines()
        ports = dict(line.split("=", 1) for line in lines)
        addresses = [f"127.0.0.1:{ports[f'grpc_{which}_port']}" for which in ("inference", "management")]
        backend = TorchServeBackend(*addresses)
        try:
            yield backend
        finally:
            await backend.close()

    def resident(self) -> int:
        """The facade's memory in bytes."""
        fields = Path(f"/proc/{self.pid}/statm").read_text().split()
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")

    def descriptors(self) -> int:
        """Its open files and connections."""
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    def _ended(self) -> bool:
        return self._process is not None and self._process.poll() is not None

    def __enter__(self) -> Service:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None and not self._ended():
            try:
                self.stop()
            except subprocess.TimeoutExpired:
                self.kill()
        # The guard removes them, should the facade have been killed.
        assert wait_until(lambda: not self.theirs(), 30)


def _command(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def settled(value: Callable[[], int], seconds: float = 10.0) -> int:
    """Its value once it has stayed the same for a second, or at the end of the time."""
    end, since = time.monotonic() + seconds, time.monotonic()
    last = value()
    while time.monotonic() < min(end, since + 1):
        time.sleep(0.05)
        if (now := value()) != last:
            last, since = now, time.monotonic()
    return last
