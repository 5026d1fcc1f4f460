"""Load and unload models of a TorchServe while it computes; of one of our own, also kill workers that hang."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from pathlib import Path

from saaa.errors import ArchiveError, BackendUnavailable, ModelNotFound, SaaaError
from saaa.work import ModelInfo
from serving.backends import guard
from serving.backends.process import TorchServeProcess
from serving.backends.torchserve import TorchServeBackend

_log = logging.getLogger(__name__)


class TorchServeHost:
    """`ModelHost` of a TorchServe of our own.

    Args:
        process: which runs.
    """

    def __init__(self, process: TorchServeProcess) -> None:
        self._process = process

    @property
    def folder(self) -> Path:
        """The folder of archives."""
        return self._process.models_dir

    def loaded(self) -> dict[tuple[str, str], str]:
        """See `ModelHost`."""
        return {(info.name, info.version): info.digest for _, info in self._process.models}

    async def load(self, path: Path, info: ModelInfo) -> None:
        """See `ModelHost`."""
        link = self._process.launched.link(path, f"{info.digest}.mar")
        timeout = self._process.options.start_timeout_s
        try:
            async with self._process.backend() as backend:
                await _load(backend, link.name, info, workers=self._process.workers(info), timeout=timeout)
        except BackendUnavailable as error:
            link.unlink(missing_ok=True)
            reason = await asyncio.to_thread(self._process.launched.load_failure)
            if not reason:
                raise
            raise BackendUnavailable(f"TorchServe cannot load {info.name} {info.version}: {reason}") from error
        except BaseException:
            link.unlink(missing_ok=True)
            raise
        self._process.models.append((path, info))

    async def unload(self, name: str, version: str) -> None:
        """See `ModelHost`."""
        async with self._process.backend() as backend:
            with contextlib.suppress(ModelNotFound):
                await backend.unregister(name, version)
        for path, info in tuple(self._process.models):
            if (info.name, info.version) == (name, version):
                self._process.models.remove((path, info))
                (self._process.launched.folder / "store" / f"{info.digest}.mar").unlink(missing_ok=True)

    async def restart(self, name: str, version: str) -> None:
        """See `ModelHost`. TorchServe starts a worker again as soon as it is gone; one that is just being started is
        left alone."""
        async with self._process.backend() as backend:
            try:
                states = await backend.states()
            except SaaaError:
                return
        told = {pid for state in states if (state.name, state.version) == (name, version) for pid in state.pids}
        ours = set(await asyncio.to_thread(guard.processes, self._process.launched.folder)) - {self._process.pid}
        for pid in told & ours:
            _log.error("killing the worker %d of %s %s, which does not answer", pid, name, version)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


class StoreHost:
    """`ModelHost` of a TorchServe that somebody else runs. Its model store is the folder of archives, and it allows
    models to be managed (`enable_model_api`); several facades on one TorchServe agree, as they follow one file.

    Args:
        backend: talks to it.
        folder: the archives.
        workers: worker processes of what is loaded, at least 1.
        load_timeout_s: seconds that loading one version may take.
    """

    def __init__(
        self, backend: TorchServeBackend, folder: Path, *, workers: int = 1, load_timeout_s: float = 120.0
    ) -> None:
        self._backend = backend
        self._folder = folder
        self._workers = workers
        self._load_timeout_s = load_timeout_s

    @property
    def folder(self) -> Path:
        """The folder of archives."""
        return self._folder

    def loaded(self) -> dict[tuple[str, str], str]:
        """See `ModelHost`; as TorchServe last said."""
        return dict(self._backend.registered)

    async def load(self, path: Path, info: ModelInfo) -> None:
        """See `ModelHost`."""
        await _load(self._backend, path.name, info, workers=self._workers, timeout=self._load_timeout_s)
        await self._backend.describe()

    async def unload(self, name: str, version: str) -> None:
        """See `ModelHost`."""
        with contextlib.suppress(ModelNotFound):
            await self._backend.unregister(name, version)
        await self._backend.states()

    async def restart(self, name: str, version: str) -> None:
        """See `ModelHost`. Its processes are out of reach: whoever runs it has to see to them."""
        _log.error("a worker of %s %s does not answer and cannot be killed from here", name, version)


async def _load(backend: TorchServeBackend, archive: str, info: ModelInfo, *, workers: int, timeout: float) -> None:
    """Register an archive of the model store and see that it is the one that was checked; raises as `load`."""
    if any((state.name, state.version) == (info.name, info.version) for state in await backend.states()):
        # Left by a load that was given up.
        await backend.unregister(info.name, info.version)
    try:
        await backend.register(archive, workers, timeout=timeout)
    except SaaaError as error:
        raise BackendUnavailable(f"TorchServe cannot load {info.name} {info.version}: {error.message}") from error
    try:
        if (await backend.identify(info.name, info.version)).digest != info.digest:
            raise ArchiveError(f"{archive} changed while it was loaded.")
    except BaseException:
        with contextlib.suppress(SaaaError):
            await backend.unregister(info.name, info.version)
        raise
