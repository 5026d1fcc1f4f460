"""Load and unload models of a TorchServe of our own while it computes, and kill workers that hang."""

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
        async with self._process.backend() as backend:
            if any((state.name, state.version) == (info.name, info.version) for state in await backend.states()):
                # Left by a load that was given up.
                await backend.unregister(info.name, info.version)
            try:
                await backend.register(
                    link.name, self._process.workers(info), timeout=self._process.options.start_timeout_s
                )
            except SaaaError as error:
                link.unlink(missing_ok=True)
                reason = await asyncio.to_thread(self._process.launched.load_failure)
                raise BackendUnavailable(
                    f"TorchServe cannot load {info.name} {info.version}: {reason or error.message}"
                ) from error
            try:
                if (await backend.identify(info.name, info.version)).digest != info.digest:
                    raise ArchiveError(f"{path} changed while it was loaded.")
            except BaseException:
                with contextlib.suppress(SaaaError):
                    await backend.unregister(info.name, info.version)
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
