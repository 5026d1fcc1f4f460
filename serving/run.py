"""`saaa up` and `saaa serve`: a backend and the facade in front of it, until a signal."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Literal

from saaa.errors import OptionInvalid
from serving.backends.local import LocalBackend
from serving.backends.process import TorchServeProcess
from serving.backends.torchserve import TorchServeBackend
from serving.server import Facade, serve, until_signal
from serving.settings import FacadeSettings


def run_up(
    models: Path, backend: Literal["torchserve", "local"], settings: FacadeSettings, *, workers: int = 1
) -> int:
    """Serve the archives of a folder until a signal.

    Raises:
        StartFailed: the folder, an archive, Java or the port is not usable.
    """
    work = (
        _up_torchserve(models, settings, workers) if backend == "torchserve" else _up_local(models, settings)
    )
    asyncio.run(until_signal(work))
    return 0


def run_serve(backend_address: str, management_address: str | None, settings: FacadeSettings) -> int:
    """Serve in front of a running TorchServe until a signal."""
    management = management_address or _next_port(backend_address)

    async def work() -> None:
        await serve(Facade(TorchServeBackend(backend_address, management), settings))

    asyncio.run(until_signal(work()))
    return 0


async def _up_torchserve(models: Path, settings: FacadeSettings, workers: int) -> None:
    async with TorchServeProcess(models) as process:
        backend = TorchServeBackend(process.inference_address, process.management_address)
        await serve(Facade(backend, settings))


async def _up_local(models: Path, settings: FacadeSettings) -> None:
    async with LocalBackend(models, progress=_tell) as backend:
        await serve(Facade(backend, settings))


def _next_port(address: str) -> str:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise OptionInvalid(
            f"{address!r} is no HOST:PORT; write for instance 127.0.0.1:7070.", field="backend_address"
        )
    return f"{host}:{int(port) + 1}"


def _tell(text: str) -> None:
    print(f"saaa: {text}", file=sys.stderr, flush=True)
