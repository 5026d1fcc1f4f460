"""Starting and stopping."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from saaa.errors import OptionInvalid, StartFailed
from saaa.v1 import analysis_pb2 as pb
from serving.server import Facade, check_free, serve, until_signal
from serving.settings import FacadeSettings, LaneSettings, RequestLimits
from tests.serving.pixel_backend import QUICK, Caller, PixelBackend, calling


async def test_port_in_use_is_one_clear_error_and_the_backend_is_closed() -> None:
    backend = PixelBackend()
    async with calling(PixelBackend()) as caller:
        port = int(caller.facade.address.rpartition(":")[2])
        with pytest.raises(StartFailed, match=f"127.0.0.1:{port}.*--port"):
            async with Facade(backend, FacadeSettings(port=port)):
                pass
        with pytest.raises(StartFailed, match=str(port)):
            check_free(FacadeSettings(port=port))
        # The first one is not disturbed.
        assert (await caller.analyze()).predictions
    assert backend.closed


def test_check_of_the_port_leaves_it_free() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    for _ in range(2):
        check_free(FacadeSettings(port=port))


async def test_stopping_lets_running_calls_finish_and_refuses_new_ones() -> None:
    backend = PixelBackend()
    backend.seconds = 0.5
    async with Facade(backend, QUICK) as facade, grpc.aio.insecure_channel(facade.address) as channel:
        caller = Caller(facade, channel)
        running = asyncio.create_task(caller.analyze(outputs=[pb.OUTPUT_PREDICTIONS]))
        while not backend.batches:
            await asyncio.sleep(0.01)
        stopping = asyncio.create_task(facade.__aexit__(None, None, None))
        await asyncio.sleep(0.05)
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await caller.analyze(timeout=2)
        assert failure.value.code() is grpc.StatusCode.UNAVAILABLE
        assert (await running).predictions
        await stopping
        assert backend.closed


async def test_health_says_not_serving_while_calls_drain() -> None:
    backend = PixelBackend()
    async with calling(backend) as caller:
        stub = health_pb2_grpc.HealthStub(caller.channel)
        watch = stub.Watch(health_pb2.HealthCheckRequest(service=""), timeout=10)
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        stopping = asyncio.create_task(caller.facade.__aexit__(None, None, None))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        watch.cancel()
        await stopping


async def test_calls_that_do_not_finish_in_time_are_ended() -> None:
    backend = PixelBackend()
    backend.seconds = 30
    async with calling(backend, drain_s=0.2) as caller:
        running = asyncio.create_task(caller.analyze(outputs=[pb.OUTPUT_PREDICTIONS], timeout=60))
        while not backend.batches:
            await asyncio.sleep(0.01)
        async with asyncio.timeout(5):
            await caller.facade.__aexit__(None, None, None)
        with pytest.raises(grpc.aio.AioRpcError):
            await running


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_stops_gracefully_and_a_second_one_does_not_hurry(number: signal.Signals) -> None:
    backend = PixelBackend()
    cleaned = False

    async def work() -> None:
        nonlocal cleaned
        try:
            await serve(Facade(backend, QUICK))
        finally:
            os.kill(os.getpid(), number)
            await asyncio.sleep(0.05)
            cleaned = True

    asyncio.get_running_loop().call_later(0.2, os.kill, os.getpid(), number)
    async with asyncio.timeout(10):
        await until_signal(work())
    assert cleaned
    assert backend.closed


async def test_cancelling_from_outside_is_no_signal() -> None:
    task = asyncio.create_task(until_signal(asyncio.sleep(60)))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: FacadeSettings(port=70000), "port"),
        (lambda: FacadeSettings(host=""), "host"),
        (lambda: FacadeSettings(decode_threads=0), "decode_threads"),
        (lambda: FacadeSettings(drain_s=-1), "drain_s"),
        (lambda: FacadeSettings(leave_s=-1), "leave_s"),
        (lambda: FacadeSettings(cache_bytes=-1), "cache_bytes"),
        (lambda: FacadeSettings(max_message_bytes=100), "max_message_bytes"),
        (lambda: LaneSettings(max_batch=0), "max_batch"),
        (lambda: LaneSettings(max_wait_s=0), "max_wait_s"),
        (lambda: RequestLimits(max_targets=0), "max_targets"),
    ],
)
def test_settings_are_checked_when_made(make: object, field: str) -> None:
    with pytest.raises(OptionInvalid, match=field) as wrong:
        make()  # type: ignore[operator]
    assert wrong.value.field == field


def test_serving_runs_without_torch() -> None:
    code = (
        "import sys, serving.cli, serving.server, serving.run, serving.ask;"
        "loaded = {'torch', 'safetensors', 'timm', 'torchvision'} & set(sys.modules); assert not loaded, loaded"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
