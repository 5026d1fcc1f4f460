"""The servers that `benchmarks.serving` compares: how each is installed, started, asked and understood."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import serving_calls as calls
from benchmarks.serving_calls import Answer, Caller, GrpcCaller, HttpCaller, Protocols
from benchmarks.serving_model import COUNT_VARIABLE
from benchmarks.serving_processes import Processes, memory_of

START_S = 150.0
FIRST_S = 20.0
CLOSE = 0.01
"""Probabilities of two servers that run one model differ by less."""
INSTALL_S = 900.0


class Absent(Exception):
    """A server that cannot be had here; says why."""


@dataclass(frozen=True)
class Setting:
    """What is tuned for a server."""

    workers: int = 2
    """Processes, or threads in one process, that compute."""
    threads: int = 1
    """torch's threads of each."""
    batch: int = 1
    """Most images a forward, where the server gathers batches."""

    def __str__(self) -> str:
        return f"{self.workers} x {self.threads} threads" + (f", batches to {self.batch}" if self.batch > 1 else "")


PLAIN = (Setting(2, 1), Setting(1, 2))
BATCHING = (*PLAIN, Setting(2, 1, 8))


@dataclass(frozen=True, kw_only=True)
class System:
    """One server."""

    name: str
    script: str = ""
    """Module that is run; "" is `saaa up`."""
    packages: tuple[str, ...] = ()
    """Its own environment's; none uses the project's."""
    settings: tuple[Setting, ...] = PLAIN
    """What it may be tuned to; one is how it comes."""
    caller: Callable[[int], Caller] = lambda port: GrpcCaller(port, "/bench.Model/Classify")
    request: Callable[[bytes], bytes] = Protocols.plain
    answer: Callable[[bytes], Answer] = calls.json_answer
    backend: str = ""
    """Of `saaa up`."""
    pauses: bool = False
    """Whether it does much while idle; it is paused while others are measured."""


ANALYZE = "/saaa.v1.AnalysisService/Analyze"


def _ours(backend: str) -> System:
    return System(
        name=f"facade_{backend}",
        backend=backend,
        settings=(Setting(2, 1),),
        caller=lambda port: GrpcCaller(port, ANALYZE),
        request=calls.analyze,
        answer=calls.analyze_answer,
    )


IN_PROCESS = System(name="in_process", script="serving_in_process")
SYSTEMS: dict[str, System] = {
    system.name: system
    for system in (
        IN_PROCESS,
        System(name="grpc_aio", script="serving_grpc_aio"),
        System(
            name="torchserve",
            script="serving_torchserve",
            settings=BATCHING,
            caller=lambda port: GrpcCaller(port, "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions"),
            request=Protocols.torchserve,
            answer=Protocols.torchserve_answer,
        ),
        _ours("torchserve"),
        _ours("local"),
        System(
            name="litserve",
            script="serving_litserve",
            packages=("litserve==0.2.19", "python-multipart"),
            settings=BATCHING,
            caller=HttpCaller,
            request=Protocols.multipart("/predict"),
            pauses=True,
        ),
        System(
            name="mlserver",
            script="serving_mlserver",
            packages=("mlserver==1.7.1", "uvloop==0.21.0"),
            settings=BATCHING,
            caller=lambda port: GrpcCaller(port, "/inference.GRPCInferenceService/ModelInfer"),
            request=Protocols.inference,
            answer=Protocols.inference_answer,
            pauses=True,
        ),
        System(
            name="bentoml",
            script="serving_bentoml",
            packages=("bentoml==1.4.39",),
            caller=HttpCaller,
            request=Protocols.multipart("/classify"),
            pauses=True,
        ),
        System(
            name="ray",
            script="serving_ray",
            packages=("ray[serve]==2.60.0", "grpcio"),
            settings=BATCHING,
            request=Protocols.wrapped,
            answer=Protocols.wrapped_answer,
            pauses=True,
        ),
    )
}


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the benchmark keeps what."""

    folder: Path
    """Its own: images, archives, logs, results."""
    environments: Path
    """The servers' environments."""

    def python(self, system: System) -> str:
        """The interpreter of a server's environment, which is made where it is not there.

        torch and the model's other packages are the project's, behind the server's own.

        Raises:
            Absent: it cannot be installed here.
        """
        if not system.packages:
            return sys.executable
        folder = self.environments / system.name
        python, done = folder / "bin" / "python", folder / "installed.txt"
        wanted = " ".join(system.packages)
        if done.is_file() and done.read_text() == wanted:
            return str(python)
        own = Path(sys.executable).parent / "uv"
        uv = str(own) if own.is_file() else shutil.which("uv")
        if uv is None:
            raise Absent("there is no uv to install it with")
        print(f"installing {wanted}", flush=True)
        try:
            for words in (
                ["venv", "--quiet", "--clear", "--python", sys.executable, str(folder)],
                ["pip", "install", "--quiet", "--python", str(python), *system.packages],
            ):
                subprocess.run([uv, *words], check=True, timeout=INSTALL_S, capture_output=True, text=True)
        except (subprocess.SubprocessError, OSError) as error:
            said = getattr(error, "stderr", None) or str(error)
            raise Absent(f"it cannot be installed: {str(said).strip().splitlines()[-1]}") from error
        (packages,) = (folder / "lib").glob("python*/site-packages")
        import torch

        (packages / "project.pth").write_text(f"{Path(torch.__file__).parent.parent}\n")
        done.write_text(wanted)
        return str(python)


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that are free now."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


class Running:
    """A server that runs, and our connection to it; `start` makes one.

    Args:
        system: which.
        processes: its own.
        setting: how it was started.
        ports: the first is asked, the second has metrics of `saaa up`.
        folder: its private one; goes with it.
    """

    def __init__(
        self, system: System, processes: Processes, setting: Setting, ports: Sequence[int], folder: Path
    ) -> None:
        self.system, self.processes, self.setting, self.ports = system, processes, setting, ports
        self._folder = folder
        self._caller = None if system is IN_PROCESS else system.caller(ports[0])

    @property
    def caller(self) -> Caller:
        """The connection."""
        assert self._caller is not None
        return self._caller

    async def block(
        self, requests: Sequence[bytes], *, callers: int, calls_: int, setting: Setting | None = None
    ) -> tuple[list[float], float]:
        """A closed loop: seconds of each call, and of all; `setting` is for IN_PROCESS, which takes any at any time."""
        start = time.perf_counter()
        if self.system is IN_PROCESS:
            now = setting or self.setting
            times = await asyncio.to_thread(self.tell, f"{callers} {calls_} {now.workers} {now.threads}")
        else:
            times = await calls.closed_loop(
                self.caller, requests, callers=callers, calls=calls_, clock=time.perf_counter
            )
        return times, time.perf_counter() - start

    def tell(self, line: str) -> Any:
        """Write a line to its input, and read one of its output."""
        root = self.processes.root
        assert root.stdin is not None
        root.stdin.write(line + "\n")
        root.stdin.flush()
        return self.next_line()

    def next_line(self) -> Any:
        """What it says next, JSON."""
        root = self.processes.root
        assert root.stdout is not None
        line = root.stdout.readline()
        if not line:
            raise Absent(f"it ended: {self.processes.last_words()}")
        return json.loads(line)

    async def until_right(self, request: bytes, right: Answer) -> None:
        """Wait until it answers, and as the model does.

        Raises:
            Absent: it ends, answers otherwise, or does not answer.
        """
        deadline, error = time.monotonic() + START_S, ""
        while time.monotonic() < deadline:
            if self.processes.root.poll() is not None:
                raise Absent(f"it ended: {self.processes.last_words()}")
            try:
                found = self.system.answer(await self.caller(request, FIRST_S))
            except Exception as failure:
                error = f"{type(failure).__name__}: {failure}"
                await asyncio.sleep(0.5)
                continue
            if found.keys() != right.keys() or any(abs(found[key] - right[key]) > CLOSE for key in right):
                raise Absent(f"it answers {found}, not {right}")
            return
        raise Absent(f"no answer in {START_S:.0f} s ({error}): {self.processes.last_words()}")

    def sample(self) -> dict[str, int]:
        """Bytes of memory of each program, open descriptors, files it has written and not removed."""
        files = sum(1 for _ in self._folder.rglob("*"))
        return {**memory_of(self.processes.look()), "descriptors": self.processes.descriptors(), "files": files}

    async def close(self) -> None:
        """End it."""
        if self._caller is not None:
            await self._caller.close()
        await asyncio.to_thread(self.processes.stop)
        shutil.rmtree(self._folder, ignore_errors=True)


def launch(
    system: System,
    place: Place,
    setting: Setting,
    *,
    archive: Path,
    images: Path,
    steps: int = 0,
    count: Path | None = None,
    options: Sequence[str] = (),
    script: str = "",
) -> Running:
    """Start a server; `Running.until_right` waits for it.

    Args:
        archive: the model; for `saaa up` the only one of its folder.
        images: folder of JPEGs.
        steps: of integrated gradients, for a server that explains.
        count: file that counts forwards.
        options: more, for `saaa up`.

    Raises:
        Absent: it cannot be installed here.
    """
    python = place.python(system)
    folder = Path(tempfile.mkdtemp(prefix=f"serving-{system.name[:8]}-"))
    ports = free_ports(3)
    if system.backend:
        words = ["up", "--models", archive.parent, "--backend", system.backend, "--port", ports[0]]
        command = [Path(python).parent / "saaa", *words, "--metrics_port", ports[1], *options]
    else:
        told = {"archive": archive, "workers": setting.workers, "threads": setting.threads, "batch": setting.batch}
        told |= {"folder": images if system is IN_PROCESS else folder, "steps": steps}
        flags = [word for name, value in told.items() for word in (f"--{name}", value)]
        command = [python, "-m", f"benchmarks.{script or system.script}", *flags, "--ports", *ports]
    root = str(Path.cwd())
    environment: Mapping[str, str] = {
        "PYTHONPATH": root,
        "OMP_NUM_THREADS": str(setting.threads),
        "PATH": f"{Path(python).parent}{os.pathsep}{os.environ['PATH']}",
        "TMPDIR": str(folder),
    } | ({COUNT_VARIABLE: str(count)} if count else {})
    log = place.folder / "logs" / f"{system.name}.log"
    processes = Processes([str(word) for word in command], environment, log, pipes=system is IN_PROCESS)
    return Running(system, processes, setting, ports, folder)
