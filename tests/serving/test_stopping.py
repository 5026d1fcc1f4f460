"""Stopping: idle, with calls and streams at work, with what hangs, told twice."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from saaa.v1 import analysis_pb2 as pb
from saaa.work import Work
from serving import server as servers
from serving.server import Facade, serve, until_signal
from tests.serving.contract.test_stream import ONE_BY_ONE, Gate, item
from tests.serving.pixel_backend import QUICK, Caller, PixelBackend, calling, photo, refusal

PREDICT = [pb.OUTPUT_PREDICTIONS]
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def stop(facade: Facade) -> float:
    """Stop it; gives the seconds it took."""
    started = asyncio.get_running_loop().time()
    async with asyncio.timeout(30):
        await facade.__aexit__(None, None, None)
    return asyncio.get_running_loop().time() - started


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
    async with calling(backend, leave_s=0.2) as caller:
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


async def test_with_nothing_to_do_it_stops_at_once() -> None:
    backend = PixelBackend()
    async with calling(backend, drain_s=30) as caller:
        await caller.analyze()
        assert await stop(caller.facade) < 5
        assert backend.closed


async def test_new_calls_are_answered_until_those_who_watch_its_health_have_left() -> None:
    async with calling(PixelBackend(), leave_s=1) as caller:
        stub = health_pb2_grpc.HealthStub(caller.channel)
        answered = 0

        async def ask_on() -> None:
            nonlocal answered
            while True:
                assert (await stub.Check(health_pb2.HealthCheckRequest(), timeout=20)).status == NOT_SERVING
                await caller.analyze(outputs=PREDICT)
                answered += 1

        stopping = asyncio.create_task(stop(caller.facade))
        await asyncio.sleep(0)
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await ask_on()
        # Refused with a status that clients send again elsewhere, not cut off by gRPC.
        assert failure.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "stopping" in str(failure.value.details())
        assert answered
        assert await stopping >= 1


async def read_on(call: Any) -> None:
    """Read to its end."""
    while await call.read() is not grpc.aio.EOF:
        pass


async def forever(*first: pb.AnalyzeStreamRequest) -> AsyncIterator[pb.AnalyzeStreamRequest]:
    """Items, and then nothing: the caller goes on."""
    for one in first:
        yield one
    await asyncio.Event().wait()


async def test_an_open_stream_ends_without_using_up_the_time_to_drain() -> None:
    async with calling(PixelBackend(), drain_s=30) as caller:
        stream = caller.stub.AnalyzeStream(forever(item(1)))
        assert (await stream.read()).item_id == "1"
        assert await stop(caller.facade) < 5
        end = await refusal(stream.read())
        assert (end.code, end.reason) == (grpc.StatusCode.UNAVAILABLE, "BACKEND_UNAVAILABLE")
        assert "stopping" in end.text


async def test_who_watches_or_may_still_ask_does_not_use_up_the_time_to_drain() -> None:
    async with calling(PixelBackend(), drain_s=30) as caller:
        watch = health_pb2_grpc.HealthStub(caller.channel).Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        reflection = reflection_pb2_grpc.ServerReflectionStub(caller.channel).ServerReflectionInfo()
        await reflection.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        assert (await reflection.read()).list_services_response.service
        assert await stop(caller.facade) < 5
        for call in (watch, reflection):
            end = await refusal(read_on(call))
            assert end.code is grpc.StatusCode.UNAVAILABLE
            assert "stopping" in end.text


async def test_a_stream_gets_the_answers_to_what_was_read_of_it() -> None:
    backend = Gate()
    async with calling(backend, drain_s=30, predict=ONE_BY_ONE) as caller:
        red, blue = photo((200, 0, 0)), photo((0, 0, 200))
        stream = caller.stub.AnalyzeStream(forever(item("slow", red), item("quick", blue)))
        whole = caller.stub.AnalyzeStream(iter([item("whole", red)]))
        assert (await stream.read()).item_id == "quick"
        predict = caller.facade.analysis.lanes[Work.PREDICT]
        while predict.waiting + predict.in_flight < 2:
            await asyncio.sleep(0.01)
        stopping = asyncio.create_task(stop(caller.facade))
        await asyncio.sleep(0.2)
        assert not stopping.done()
        backend.open.set()
        assert (await stream.read()).response.predictions[0].label == "red"
        assert (await refusal(stream.read())).code is grpc.StatusCode.UNAVAILABLE
        # All of this one was read: nothing is left to ask another service.
        assert (await whole.read()).item_id == "whole"
        assert await whole.read() is grpc.aio.EOF
        assert await whole.code() is grpc.StatusCode.OK
        assert await stopping < 10


async def test_a_stream_that_hangs_is_ended_when_the_time_to_drain_is_over() -> None:
    async with calling(Gate(), drain_s=0.3) as caller:
        stream = caller.stub.AnalyzeStream(forever(item("never", photo((200, 0, 0)))))
        predict = caller.facade.analysis.lanes[Work.PREDICT]
        while not predict.in_flight:
            await asyncio.sleep(0.01)
        assert 0.3 <= await stop(caller.facade) < 5
        with pytest.raises(grpc.aio.AioRpcError):
            await stream.read()


@pytest.mark.parametrize("changes", [{"leave_s": 60}, {"drain_s": 60}])
async def test_cancelled_while_it_waits_it_stops_at_once_and_wholly(changes: dict[str, float]) -> None:
    backend = PixelBackend()
    backend.seconds = 60
    facade = await Facade(backend, replace(QUICK, **changes)).__aenter__()
    async with grpc.aio.insecure_channel(facade.address) as channel:
        running = asyncio.create_task(Caller(facade, channel).analyze(outputs=PREDICT, timeout=90))
        while not backend.batches:
            await asyncio.sleep(0.01)
        stopping = asyncio.create_task(stop(facade))
        await asyncio.sleep(0.2)
        assert not stopping.done()
        stopping.cancel()
        with pytest.raises(asyncio.CancelledError):
            async with asyncio.timeout(10):
                await stopping
        assert backend.closed
        with pytest.raises(grpc.aio.AioRpcError):
            await running


async def test_a_second_signal_ends_the_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "ONE_SIGNAL_S", 0.1)
    backend = PixelBackend()
    facade = Facade(backend, replace(QUICK, leave_s=60))
    for delay in (0.3, 0.35, 0.7):
        asyncio.get_running_loop().call_later(delay, os.kill, os.getpid(), signal.SIGTERM)
    started = asyncio.get_running_loop().time()
    async with asyncio.timeout(20):
        await until_signal(serve(facade))
    assert asyncio.get_running_loop().time() - started >= 0.7
    assert backend.closed


async def test_cancelling_from_outside_is_no_signal() -> None:
    task = asyncio.create_task(until_signal(asyncio.sleep(60)))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
