"""A pod as processes of this machine: its paths are folders of ours, its ports are free ones."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

from deploy.check.manifests import Object
from tests.deploy.kubelet import Pod, Secrets

_PORT = re.compile(r"\b(50051|50052|9100|7070)\b")


def free_ports() -> list[int]:
    """Four; the last has a free neighbour, for management."""
    while True:
        with contextlib.ExitStack() as held, contextlib.suppress(OSError, OverflowError):
            taken = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(4)]
            numbers = [int(each.getsockname()[1]) for each in taken]
            held.enter_context(socket.create_server(("127.0.0.1", numbers[3] + 1)))
            return numbers
    raise AssertionError("not reached")


class ProcessPod(Pod):
    """See `Pod`. Rights, limits and images are not part of this."""

    def __init__(self, objects: list[Object], claims: Path, secrets: Secrets | None = None) -> None:
        super().__init__(objects, claims, secrets)
        self._ports = dict(zip(("50051", "50052", "9100", "7070"), map(str, free_ports()), strict=True))
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def create(self) -> None:
        pass

    def start(self, name: str) -> None:
        arguments = [self._here(name, word) for word in self.arguments(name)]
        environment = {
            **os.environ,
            **self.environment(name),
            "TMPDIR": self._here(name, "/tmp"),
            "OMP_NUM_THREADS": "1",
        }
        with (self.ends / f"{name}.log").open("wb") as log:
            self._processes[name] = subprocess.Popen(
                [sys.executable, "-m", "serving.commands.cli", *arguments], env=environment, stdout=log, stderr=log
            )

    def ended(self, name: str, seconds: float) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._processes[name].wait(seconds)
        return None

    def stop(self, name: str, seconds: float) -> int | None:
        self._processes[name].send_signal(signal.SIGTERM)
        return self.ended(name, seconds)

    def kill(self) -> None:
        for process in self._processes.values():
            process.kill()
            process.wait(30)

    def execute(self, name: str, words: list[str]) -> int:
        return subprocess.run([self._here(name, word) for word in words], check=False).returncode

    def address(self, port: int) -> str:
        return f"127.0.0.1:{self._ports[str(port)]}"

    def whole_log(self, name: str) -> str:
        return (self.ends / f"{name}.log").read_text()

    def option_file(self, name: str, text: str) -> str:
        return self._here(name, text)

    def _here(self, name: str, text: str) -> str:
        """A word of the manifests with this machine's paths and ports."""
        text = _PORT.sub(lambda found: self._ports[found[1]], text.replace("0.0.0.0", "127.0.0.1"))
        mounts = {mount["mountPath"]: mount for mount in self.container(name)["volumeMounts"]}
        # All at once: a folder that stands for one may lie below what is called like another.
        paths = rf"(?<![\w/])({'|'.join(map(re.escape, mounts))})(?=[/\s]|$)"
        return re.sub(paths, lambda found: str(self.folder(name, mounts[found[1]])), text)
