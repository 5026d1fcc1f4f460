"""`saaa up` and `saaa serve`: a backend and the facade in front of it, until a signal."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from pathlib import Path

from saaa.errors import OptionInvalid
from serving.backends.base import Backend, ModelHost
from serving.backends.care import Care
from serving.backends.hosting import StoreHost, TorchServeHost
from serving.backends.local import LocalBackend
from serving.backends.process import TorchServeOptions, TorchServeProcess
from serving.backends.reconcile import Reconciler
from serving.backends.torchserve import TorchServeBackend
from serving.ratings.store import check_store
from serving.security.gate import check_security
from serving.server import Facade, check_free, serve, until_signal
from serving.settings import FacadeSettings
from serving.telemetry.logs import set_up_logs


def run_up(models: Path, settings: FacadeSettings, *, torchserve: TorchServeOptions | None) -> int:
    """Serve the archives of a folder until a signal.

    Args:
        models: folder of `.mar` archives.
        settings: of the facade.
        torchserve: how to run TorchServe; None computes in this process instead.

    Raises:
        StartFailed: the folder, an archive, Java, the port, the file of the ratings, of a certificate or of tokens is
            not usable.
    """
    set_up_logs(settings.telemetry)
    if settings.telemetry.traces is not None:
        # The workers inherit it, and tell their part of the traces.
        os.environ.setdefault("OTEL_EXPORTER_OTLP_ENDPOINT", settings.telemetry.traces)
    # Known now rather than after the models have been loaded.
    check_free(settings)
    check_security(settings.security)
    if settings.ratings is not None:
        check_store(settings.ratings)

    async def work() -> None:
        async with contextlib.AsyncExitStack() as stack:
            if torchserve is None:
                local = LocalBackend(models, progress=_tell)
                await stack.enter_async_context(local)
                await _serve(local, local, settings)
            else:
                process = TorchServeProcess(models, options=torchserve, progress=_tell)
                await stack.enter_async_context(process)
                backend = TorchServeBackend(process.inference_address, process.management_address)
                await _serve(backend, TorchServeHost(process), settings)

    asyncio.run(until_signal(work()))
    return 0


def run_serve(
    backend_address: str,
    management_address: str | None,
    settings: FacadeSettings,
    *,
    models: Path | None = None,
    workers: int = 1,
) -> int:
    """Serve in front of a running TorchServe until a signal.

    Args:
        backend_address: HOST:PORT of its gRPC inference API.
        management_address: of its gRPC management API; None is the port after that.
        settings: of the facade.
        models: its model store, where `models.yaml` is to be followed.
        workers: worker processes of a version that is loaded from there, at least 1.

    Raises:
        OptionInvalid: an address is no HOST:PORT, there is no such folder, or a number is out of range.
        StartFailed: the port is not usable.
    """
    set_up_logs(settings.telemetry)
    host, port = _split(backend_address, "backend_address")
    management = management_address or f"{host}:{port + 1}"
    _split(management, "management_address")
    if models is not None and not models.is_dir():
        raise OptionInvalid(f"There is no folder {models}; name TorchServe's model store.", field="models")
    if workers < 1:
        raise OptionInvalid(f"workers is {workers}; give at least 1.", field="workers")

    async def work() -> None:
        backend = TorchServeBackend(backend_address, management)
        if models is None:
            await serve(Facade(Care(backend, settings=settings.care), settings))
        else:
            await _serve(backend, StoreHost(backend, models, workers=workers), settings)

    asyncio.run(until_signal(work()))
    return 0


async def _serve(backend: Backend, host: ModelHost, settings: FacadeSettings) -> None:
    """Serve models that are held here, and follow what is listed of them."""
    care = Care(backend, host, settings.care)
    facade = Facade(care, settings)
    async with Reconciler(care, facade.catalog):
        await serve(facade)


def _split(address: str, name: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65535:
        raise OptionInvalid(f"{name} {address!r} is no HOST:PORT; write for instance 127.0.0.1:7070.", field=name)
    return host, int(port)


def _tell(text: str) -> None:
    print(f"saaa: {text}", file=sys.stderr, flush=True)
