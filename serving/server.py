"""The gRPC server: everything put together, started and stopped."""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from saaa.errors import StartFailed
from saaa.v1 import analysis_pb2_grpc, feedback_pb2_grpc
from serving.analysis.analysis import Analysis
from serving.backends.base import Backend
from serving.backends.health import ALIVE, NOT_SERVING, SERVING, Probe
from serving.contract.feedback import FEEDBACK_NAME, FeedbackService
from serving.contract.inference import INFERENCE_NAME, InferenceService
from serving.contract.oip import open_inference_pb2_grpc
from serving.contract.reflection import add_reflection
from serving.contract.service import SERVICE_NAME, AnalysisService
from serving.interceptors.authentication import AuthenticationInterceptor
from serving.interceptors.base import Chain
from serving.interceptors.errors import ErrorInterceptor
from serving.interceptors.limits import LimitsInterceptor
from serving.interceptors.stopping import StoppingInterceptor
from serving.models.catalog import Catalog
from serving.ratings.store import RatingStore
from serving.security.gate import Gate
from serving.security.tls import server_credentials
from serving.settings import FacadeSettings
from serving.telemetry.endpoint import cannot_serve_metrics
from serving.telemetry.telemetry import Telemetry

ONE_SIGNAL_S = 1.0
"""Signals of so many seconds count as one."""
REFUSING_S = 0.1
"""Seconds for which new calls are refused before gRPC takes none: it ends those that come at that very moment with
CANCELLED, which nobody sends again."""


class Facade:
    """The service on one port, in front of one backend; an async context manager.

    Leaving it says NOT_SERVING, answers as before for `leave_s`, then refuses new calls, reads streams no further,
    lets what is at work finish for `drain_s`, and closes the backend. Cancelled meanwhile, it does not wait any longer.

    Args:
        backend: runs the models; closed with the facade.
        settings: where to listen and all bounds.
    """

    def __init__(self, backend: Backend, settings: FacadeSettings | None = None) -> None:
        self._backend = backend
        self._settings = settings or FacadeSettings()
        self._catalog = Catalog()
        self._health = health.aio.HealthServicer()
        self._probe = Probe(backend, self._catalog, self._health, (SERVICE_NAME, INFERENCE_NAME), self._settings)
        self._telemetry = Telemetry(self._settings.telemetry, self._catalog, backend.name)
        observer = self._telemetry.observer
        self._analysis = Analysis(backend, self._catalog, self._settings, self._probe.poke, observer)
        self._ratings: RatingStore | None = None
        self._server: grpc.aio.Server | None = None
        self._health_server: grpc.aio.Server | None = None
        self._stopping: asyncio.Future[None] | None = None
        self._probing: asyncio.Task[None] | None = None
        self._port = 0
        self._health_port: int | None = None

    @property
    def address(self) -> str:
        """host:port that it listens on."""
        return _join(self._settings.host, self._port)

    @property
    def metrics_address(self) -> str | None:
        """host:port where Prometheus reads metrics; None without them."""
        return self._telemetry.metrics_address

    @property
    def health_address(self) -> str | None:
        """host:port where health is answered in plain text; None without it."""
        return None if self._health_port is None else _join(self._settings.health_host, self._health_port)

    @property
    def catalog(self) -> Catalog:
        """The served models."""
        return self._catalog

    @property
    def analysis(self) -> Analysis:
        """The data plane."""
        return self._analysis

    @property
    def backend_name(self) -> str:
        """What computes."""
        return self._backend.name

    async def __aenter__(self) -> Self:
        """Look at the backend once, then listen.

        Raises:
            StartFailed: the address cannot be listened on, or the file of the ratings, of a certificate or of tokens
                cannot be used.
        """
        try:
            gate = Gate(self._settings.security)
            if self._settings.ratings is not None:
                self._ratings = await asyncio.to_thread(RatingStore, self._settings.ratings)
            for name in ("", SERVICE_NAME, INFERENCE_NAME):
                await self._health.set(name, NOT_SERVING)
            # Ratings need no model: the service is as well as its store.
            await self._health.set(FEEDBACK_NAME, SERVING if self._ratings else NOT_SERVING)
            await self._health.set(ALIVE, SERVING)
            await self._telemetry.start(gate)
            await self._start_health()
            self._server = self._make_server(gate)
            self._port = _listen(self._server, self._settings)
            await self._probe.look()
            await self._server.start()
        except BaseException:
            await _to_the_end(self._close())
            raise
        self._probing = asyncio.create_task(self._probe.run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._health.enter_graceful_shutdown()
            await asyncio.sleep(self._settings.leave_s)
            if self._stopping is not None and not self._stopping.done():
                self._stopping.set_result(None)
            await asyncio.sleep(min(REFUSING_S, self._settings.leave_s))
            if self._server is not None:
                await self._server.stop(self._settings.drain_s)
        finally:
            await _to_the_end(self._close())

    async def _close(self) -> None:
        if self._server is not None:
            await self._server.stop(None)
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.gather(self._probing, return_exceptions=True)
        await self._analysis.close()
        if self._ratings is not None:
            await self._ratings.close()
        await self._telemetry.close()
        await self._backend.close()
        if self._health_server is not None:
            await self._health_server.stop(None)

    async def _start_health(self) -> None:
        """Answer probes from now on: a facade that still looks at its backend is alive, and not ready."""
        settings = self._settings
        if settings.health_port is None:
            return
        self._health_server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._health_server)
        try:
            self._health_port = self._health_server.add_insecure_port(_join(settings.health_host, settings.health_port))
        except RuntimeError:
            raise _cannot_listen(settings.health_host, settings.health_port, "health_") from None
        await self._health_server.start()

    def _make_server(self, gate: Gate) -> grpc.aio.Server:
        most = self._settings.max_message_bytes
        security = self._settings.security
        self._stopping = asyncio.get_running_loop().create_future()
        interceptors = (
            *self._telemetry.interceptors,
            ErrorInterceptor(),
            StoppingInterceptor(self._stopping),
            AuthenticationInterceptor(gate),
            LimitsInterceptor(security),
        )
        server = grpc.aio.server(
            interceptors=[Chain(interceptors, self._settings.default_deadline_s)],
            options=[
                ("grpc.max_receive_message_length", most),
                ("grpc.max_send_message_length", most),
                # Without this a second server would silently share the port.
                ("grpc.so_reuseport", 0),
                # Connections that never say what they want, or whose other end is gone, are not kept for hours.
                ("grpc.server_handshake_timeout_ms", 10_000),
                ("grpc.keepalive_time_ms", 60_000),
                ("grpc.keepalive_timeout_ms", 20_000),
                ("grpc.keepalive_permit_without_calls", 1),
            ],
        )
        service = AnalysisService(self._analysis, self._catalog, self._settings, self._stopping)
        analysis_pb2_grpc.add_AnalysisServiceServicer_to_server(service, server)  # type: ignore[no-untyped-call]
        feedback = FeedbackService(self._ratings, self._settings, self._telemetry.observer)
        feedback_pb2_grpc.add_FeedbackServiceServicer_to_server(feedback, server)  # type: ignore[no-untyped-call]
        inference = InferenceService(self._analysis, self._catalog, self._settings)
        open_inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(inference, server)  # type: ignore[no-untyped-call]
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        if self._settings.reflection:
            health_name = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
            add_reflection((SERVICE_NAME, FEEDBACK_NAME, INFERENCE_NAME, health_name), server)
        return server


async def _to_the_end(work: Coroutine[Any, Any, None]) -> None:
    """Wait until it is done, and only then be cancelled."""
    task = asyncio.create_task(work)
    cancelled = False
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            cancelled = True
    if cancelled:
        raise asyncio.CancelledError


async def serve(facade: Facade) -> None:
    """Serve until cancelled; says on standard output where and what it serves.

    Raises:
        StartFailed: the facade cannot start.
    """
    async with facade:
        models = len(facade.catalog.models)
        ready = f"{models} model{'' if models == 1 else 's'}" if models else "not reached yet"
        print(f"serving on {facade.address} ({facade.backend_name}, {ready})", flush=True)
        if facade.metrics_address:
            print(f"metrics on http://{facade.metrics_address}/metrics", flush=True)
        # What is here now stays: the collector need not walk through it again and again while callers wait.
        gc.collect()
        gc.freeze()
        await asyncio.Event().wait()


async def until_signal(work: Coroutine[Any, Any, None]) -> None:
    """Run until SIGTERM or SIGINT, which cancel the work: it may take its time to clean up.

    Each further signal cancels what it waits for then. Those within `ONE_SIGNAL_S` of another count as the same one: a
    Ctrl-C may come both from the terminal and from a parent process.
    """
    loop = asyncio.get_running_loop()
    task = loop.create_task(work)
    stopped: float | None = None

    def stop() -> None:
        nonlocal stopped
        before, stopped = stopped, loop.time()
        if before is None or stopped - before > ONE_SIGNAL_S:
            task.cancel()

    numbers = (signal.SIGTERM, signal.SIGINT)
    for number in numbers:
        loop.add_signal_handler(number, stop)
    try:
        await task
    except asyncio.CancelledError:
        if stopped is None:
            raise
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


def check_free(settings: FacadeSettings) -> None:
    """Raises `StartFailed` when an address cannot be listened on: for those who have dear work to do first."""
    if not _is_free(settings.host, settings.port):
        raise _cannot_listen(settings.host, settings.port)
    if settings.health_port is not None and not _is_free(settings.health_host, settings.health_port):
        raise _cannot_listen(settings.health_host, settings.health_port, "health_")
    telemetry = settings.telemetry
    if telemetry.metrics_port is not None and not _is_free(telemetry.metrics_host, telemetry.metrics_port):
        raise cannot_serve_metrics(telemetry.metrics_host, telemetry.metrics_port)


def _is_free(host: str, port: int) -> bool:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            # An address with a listener can be bound on some systems, but not listened on.
            probe.listen(1)
    except OSError:
        return False
    return True


def _listen(server: grpc.aio.Server, settings: FacadeSettings) -> int:
    address = _join(settings.host, settings.port)
    try:
        credentials = server_credentials(settings.security)
        port = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    except RuntimeError:
        port = 0
    if not port:
        raise _cannot_listen(settings.host, settings.port)
    return port


def _cannot_listen(host: str, port: int, which: str = "") -> StartFailed:
    return StartFailed(
        f"Cannot listen on {_join(host, port)}: the port is in use or the address is not this machine's. Choose "
        f"another with --{which}port (0 picks a free one) or --{which}host."
    )


def _join(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
