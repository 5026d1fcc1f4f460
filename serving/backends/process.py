"""Own a TorchServe: start it, keep it alive, stop it, and leave nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from saaa import archive
from saaa.errors import (
    ArchiveError,
    BackendUnavailable,
    DeadlineExceeded,
    OptionInvalid,
    SaaaError,
    StartFailed,
)
from saaa.work import ModelInfo, ModelKind
from serving.backends import guard
from serving.backends.java import find_java
from serving.backends.launch import Launch, Ports, torchserve_home
from serving.backends.torchserve import TorchServeBackend
from serving.backends.watch import LOOK_S, ended, ended_or_silent
from serving.models.store import find_archives

_PORT_ATTEMPTS = 4
_FIRST_BACKOFF_S, _LONGEST_BACKOFF_S = 1.0, 30.0
_STEADY_S = 60.0
"""A TorchServe that lived so long starts again without delay."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TorchServeOptions:
    """How to run TorchServe.

    Raises:
        OptionInvalid: a number outside its range.
    """

    classifier_workers: int = 2
    """Worker processes of each EGDD model, at least 1. With two, a long explanation leaves one to predict."""
    captioner_workers: int = 1
    """Worker processes of each EGA model, at least 1."""
    threads: int = 1
    """torch's threads in each worker, at least 1."""
    heap_mb: int = 1024
    """Largest Java heap in MiB, at least 256."""
    start_timeout_s: float = 300.0
    """Seconds until all models must be ready."""
    stop_timeout_s: float = 20.0
    """Seconds that work in flight gets to finish when stopping; then it is killed."""
    silent_timeout_s: float = 30.0
    """A Java that lives and answers nothing for so many seconds is killed and started again, at least 1."""

    def __post_init__(self) -> None:
        for name, least in (
            ("classifier_workers", 1),
            ("captioner_workers", 1),
            ("threads", 1),
            ("heap_mb", 256),
            ("start_timeout_s", 0),
            ("stop_timeout_s", 0),
            ("silent_timeout_s", 1),
        ):
            if not getattr(self, name) >= least:
                raise OptionInvalid(f"{name} is {getattr(self, name)}; give at least {least}.", field=name)


class TorchServeProcess:
    """A TorchServe of our own, with Java as direct child; an async context manager.

    It serves every archive of a folder, on ports that stay the same. When Java dies, or lives and answers no more, it
    is started again, with growing delays. Everything it writes lies in one private temporary folder, which goes
    with it, whoever dies first (`serving.backends.guard`). `TorchServeBackend` talks to it.

    Args:
        models_dir: folder of `.mar` archives.
        options: how to run it.
        progress: told what is being done, for people.
        host: where gRPC listens; whoever reaches it may do everything.
        port: of gRPC inference, management is the next one; the folder is then TorchServe's model store, for whoever
            manages models from outside. None picks free ones, and only `serving.backends.hosting` changes the models.
    """

    def __init__(
        self,
        models_dir: Path | str,
        *,
        options: TorchServeOptions | None = None,
        progress: Callable[[str], None] = lambda _: None,
        host: str = "127.0.0.1",
        port: int | None = None,
    ) -> None:
        self.models_dir = Path(models_dir)
        """The folder of archives."""
        self.options = options or TorchServeOptions()
        """How it is run."""
        self._progress = progress
        self._host = host
        self._port = port
        self.models: list[tuple[Path, ModelInfo]] = []
        """What it serves, with the archives; `serving.backends.hosting` changes it."""
        self._launch: Launch | None = None
        self._java: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        self._lock: int | None = None
        self._supervisor: asyncio.Task[None] | None = None

    @property
    def inference_address(self) -> str:
        """host:port of gRPC inference."""
        return f"127.0.0.1:{self.launched.ports.inference}"

    @property
    def management_address(self) -> str:
        """host:port of gRPC management."""
        return f"127.0.0.1:{self.launched.ports.management}"

    @property
    def rest_address(self) -> str:
        """host:port of HTTP inference."""
        return f"127.0.0.1:{self.launched.ports.rest}"

    @property
    def run_dir(self) -> Path:
        """The private folder, with `logs`."""
        return self.launched.folder

    @property
    def pid(self) -> int | None:
        """Java's process id; None while it is down."""
        return self._java.pid if self._java is not None and self._java.poll() is None else None

    async def start(self) -> None:
        """Start Java and wait until every worker of every model can compute.

        Raises:
            StartFailed: no usable Java, TorchServe or archive, or a model does not load; it says why.
        """
        java = await asyncio.to_thread(find_java)
        torchserve_home()
        self.models = list(await asyncio.to_thread(find_archives, self.models_dir))
        root = Path(tempfile.gettempdir())
        for folder in await asyncio.to_thread(guard.sweep, root):
            _log.warning("removed %s, which a TorchServe owner that died had left", folder)
        folder, self._lock = guard.make_run_dir(root)
        try:
            self._guard = _start_guard(folder)
            for attempt in range(_PORT_ATTEMPTS):
                self._launch = Launch(
                    folder=folder,
                    java=java,
                    ports=Ports.free(self._port),
                    threads=self.options.threads,
                    heap_mb=self.options.heap_mb,
                    host=self._host,
                    shared=None if self._port is None else self.models_dir.resolve(),
                )
                try:
                    await self._start_once()
                    break
                except StartFailed:
                    if attempt + 1 == _PORT_ATTEMPTS or not self._launch.port_taken():
                        raise
                    await self._kill()
        except BaseException:
            await asyncio.shield(self._clean())
            raise
        self._supervisor = asyncio.create_task(self._supervise())

    async def stop(self) -> None:
        """Let work in flight finish for `stop_timeout_s`, stop Java, and remove the run folder."""
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.gather(self._supervisor, return_exceptions=True)
            self._supervisor = None
        try:
            if self._java is not None and self._java.poll() is None:
                # To Java only: a worker that got the signal would drop what it computes.
                self._java.terminate()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(ended(self._java), self.options.stop_timeout_s)
        finally:
            await asyncio.shield(self._clean())

    @contextlib.asynccontextmanager
    async def backend(self) -> AsyncIterator[TorchServeBackend]:
        """Talk to it."""
        backend = TorchServeBackend(self.inference_address, self.management_address)
        try:
            yield backend
        finally:
            await backend.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def launched(self) -> Launch:
        """How it was started.

        Raises:
            BackendUnavailable: it was not.
        """
        if self._launch is None:
            raise BackendUnavailable("TorchServe has not been started.")
        return self._launch

    async def _start_once(self) -> None:
        launch = self.launched
        self._progress("starting TorchServe")
        self.models = await asyncio.to_thread(self._models_to_start)
        launch.prepare([path for path, _ in self.models])
        with launch.logs()[0].open("wb") as log:
            self._java = subprocess.Popen(
                launch.command(),
                cwd=launch.folder,
                env=launch.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # A Ctrl-C in the terminal is ours to handle; Java would kill its workers in mid-work.
                start_new_session=True,
            )
        try:
            async with asyncio.timeout(self.options.start_timeout_s), self.backend() as backend:
                await self._wait_until_ready(backend)
        except TimeoutError:
            raise StartFailed(
                f"TorchServe was not ready after {self.options.start_timeout_s:g} s: {launch.failure()}"
            ) from None

    def _models_to_start(self) -> list[tuple[Path, ModelInfo]]:
        """What was served before, as far as the archives are what they were: that is known to load, whatever else the
        folder holds or lists by now."""
        kept = [(path, info) for path, info in self.models if _is(path, info)]
        if len(kept) < len(self.models):
            _log.error("TorchServe starts without %d archives, which are gone or changed", len(self.models) - len(kept))
        return kept or list(find_archives(self.models_dir))

    async def _wait_until_ready(self, backend: TorchServeBackend) -> None:
        """Wait for the ports, for all workers, and for an answer of every model."""
        wanted = {(info.name, info.version): self.workers(info) for _, info in self.models}
        asked: set[tuple[str, str]] = set()
        told = ""
        while True:
            await asyncio.sleep(LOOK_S)
            self._check_alive()
            try:
                states = {(s.name, s.version): s for s in await backend.states()}
            except (BackendUnavailable, DeadlineExceeded):
                continue
            if missing := wanted.keys() - states.keys():
                name, version = min(missing)
                raise StartFailed(f"TorchServe cannot serve {name} {version}: {self.launched.failure()}")
            for key, workers in wanted.items():
                if workers > 1 and key not in asked:
                    await backend.scale(*key, workers)
                    asked.add(key)
            ready = sum(min(states[key].ready, workers) for key, workers in wanted.items())
            if (text := f"loading models: {ready} of {sum(wanted.values())} workers ready") != told:
                self._progress(text)
                told = text
            if ready == sum(wanted.values()):
                break
        served = {(info.name, info.version): info.digest for info in await backend.describe()}
        for _, info in self.models:
            if served.get((info.name, info.version)) != info.digest:
                raise StartFailed(f"TorchServe's {info.name} {info.version} is not the archive that it was given.")
        self._progress("TorchServe is ready")

    def _check_alive(self) -> None:
        launch, java = self.launched, self._java
        if java is None or (code := java.poll()) is not None:
            raise StartFailed(f"TorchServe ended with code {code} while it started: {launch.failure()}")
        if reason := launch.load_failure():
            raise StartFailed(f"A model does not load: {reason}")

    def workers(self, info: ModelInfo) -> int:
        """How many worker processes a model gets."""
        options = self.options
        return options.classifier_workers if info.kind is ModelKind.EGDD else options.captioner_workers

    async def _supervise(self) -> None:
        """Start Java again whenever it dies or falls silent."""
        delay = _FIRST_BACKOFF_S
        clock = asyncio.get_running_loop().time
        while True:
            started = clock()
            if self._java is not None:
                await self._watch(self._java)
            delay = _FIRST_BACKOFF_S if clock() - started > _STEADY_S else min(2 * delay, _LONGEST_BACKOFF_S)
            await self._kill()
            await asyncio.sleep(delay)
            try:
                await self._start_once()
                _log.warning("TorchServe runs again")
            except SaaaError as error:
                _log.error("TorchServe does not start: %s", error)
                await self._kill()

    async def _watch(self, java: subprocess.Popen[bytes]) -> None:
        """Return when it has to be started again."""
        patience = self.options.silent_timeout_s
        async with self.backend() as backend:
            if await ended_or_silent(java, backend, patience):
                _log.error("TorchServe lives and has answered nothing for %g s: it is killed", patience)
            else:
                _log.error("TorchServe ended with code %s: %s", java.returncode, self.launched.failure())

    async def _kill(self) -> None:
        """Kill Java and all workers, and reap Java."""
        await asyncio.to_thread(guard.kill, self.launched.folder)
        if self._java is not None:
            self._java.kill()
            await asyncio.to_thread(self._java.wait)
            self._java = None

    async def _clean(self) -> None:
        """Leave nothing: kill what is left, remove the folder, dismiss the guard."""
        if self._launch is not None:
            await self._kill()
        if self._guard is not None and self._guard.stdin is not None:
            self._guard.stdin.close()  # it removes the folder now, if need be
            await asyncio.to_thread(self._guard.wait)
            self._guard = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _is(path: Path, info: ModelInfo) -> bool:
    try:
        return archive.info(path).digest == info.digest
    except ArchiveError:
        return False


def _start_guard(folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-I", "-S", guard.__file__, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        start_new_session=True,
    )
