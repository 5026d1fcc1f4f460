"""The backend that computes in this process: the same archives and executor as TorchServe's workers."""

from __future__ import annotations

import asyncio
import importlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from saaa.errors import ArchiveError, DeadlineExceeded, ModelNotFound, OptionInvalid, StartFailed
from saaa.work import ItemResult, ModelInfo, WorkBatch
from serving.models.store import find_archives

if TYPE_CHECKING:
    from saaa.runtime.executor import Executor

_T = TypeVar("_T")
_R = TypeVar("_R")


@dataclass(frozen=True)
class _Served:
    executor: Executor
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """An executor runs one batch at a time."""


class LocalBackend:
    """Serves every archive of a folder from threads of this process; an async context manager.

    Args:
        models_dir: folder of `.mar` archives.
        threads: torch's threads for one batch, at least 1.
        at_once: batches computed at the same time, of different models, at least 1; None is one a
            processor, at most 4.
        progress: told what is being done, for people.
    """

    name = "local"

    def __init__(
        self,
        models_dir: Path | str,
        *,
        threads: int = 1,
        at_once: int | None = None,
        progress: Callable[[str], None] = lambda _: None,
    ) -> None:
        at_once = min(4, os.cpu_count() or 1) if at_once is None else at_once
        if threads < 1 or at_once < 1:
            raise OptionInvalid(f"threads is {threads} and at_once {at_once}; both must be at least 1.")
        self._folder = Path(models_dir)
        self._threads = threads
        self._progress = progress
        self._pool = ThreadPoolExecutor(at_once, thread_name_prefix="saaa-local")
        self._served: dict[tuple[str, str], _Served] = {}
        self._running: set[asyncio.Task[list[ItemResult]]] = set()

    async def start(self) -> None:
        """Load all archives and warm them up.

        Raises:
            StartFailed: no folder, no archive, one that cannot be used, or torch is not installed.
        """
        for path, info in await self._in_pool(find_archives, self._folder):
            try:
                await self.load(path, info)
            except ArchiveError as error:
                raise StartFailed(f"Cannot serve {error.message}") from error

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def folder(self) -> Path:
        """The folder of archives."""
        return self._folder

    def loaded(self) -> dict[tuple[str, str], str]:
        """See `ModelHost`."""
        return {key: served.executor.info.digest for key, served in self._served.items()}

    async def load(self, path: Path, info: ModelInfo) -> None:
        """See `ModelHost`."""
        self._progress(f"loading {info.name} {info.version}")
        executor = await self._in_pool(self._open, path)
        if executor.info.digest != info.digest:
            raise ArchiveError(f"{path} changed while it was loaded.")
        self._served[info.name, info.version] = _Served(executor)

    async def unload(self, name: str, version: str) -> None:
        """See `ModelHost`; waits for what is being computed on it."""
        served = self._served.pop((name, version), None)
        if served is not None:
            async with served.lock:
                pass

    async def restart(self, name: str, version: str) -> None:
        """See `ModelHost`: a thread cannot be killed; it is asked again when it is done."""

    async def describe(self) -> tuple[ModelInfo, ...]:
        """See `Backend`."""
        return tuple(served.executor.info for served in self._served.values())

    async def ready(self) -> frozenset[tuple[str, str]]:
        """See `Backend`."""
        return frozenset(self._served)

    async def run(self, batch: WorkBatch, *, timeout: float) -> list[ItemResult]:
        """See `Backend`. A batch whose time is over before its turn is not computed at all."""
        served = self._served.get((batch.model, batch.version))
        if served is None:
            raise ModelNotFound(f"No model {batch.model} {batch.version} is served.", field="model")
        late = DeadlineExceeded(f"{batch.model} did not answer within {timeout:g} s.")
        deadline = asyncio.get_running_loop().time() + timeout

        async def compute() -> list[ItemResult]:
            async with served.lock:
                if asyncio.get_running_loop().time() >= deadline:
                    raise late
                return await self._in_pool(served.executor.run, batch)

        # A thread cannot be stopped: the task goes on without its caller and holds the lock until it is done.
        task = asyncio.create_task(compute())
        self._running.add(task)
        task.add_done_callback(self._forget)
        try:
            return await asyncio.wait_for(asyncio.shield(task), timeout)
        except TimeoutError:
            raise late from None

    async def close(self) -> None:
        """See `Backend`; waits for the batches that are being computed."""
        self._served.clear()
        for task in self._running:
            task.cancel()
        await asyncio.to_thread(self._pool.shutdown, cancel_futures=True)

    def _forget(self, task: asyncio.Task[list[ItemResult]]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # seen, should nobody be waiting any more

    def _open(self, path: Path) -> Executor:
        try:
            runtime = importlib.import_module("saaa.runtime.executor")
            executor: Executor = runtime.Executor.open(path, threads=self._threads)
            executor.warm_up()
        except ImportError as error:
            raise StartFailed(
                f"The local backend computes with torch, which is not usable here ({error}); "
                "install saaa[model], or use the torchserve backend."
            ) from error
        except RuntimeError as error:
            raise ArchiveError(f"{path}: {error}") from error
        return executor

    async def _in_pool(self, work: Callable[[_T], _R], argument: _T) -> _R:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work, argument)
