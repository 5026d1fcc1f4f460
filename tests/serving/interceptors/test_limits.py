"""What one caller may ask for: by arithmetic with a clock of its own, and over real gRPC."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from saaa.errors import CallerLimited
from saaa.v1 import analysis_pb2 as pb
from serving.interceptors.base import Call, Kind
from serving.interceptors.limits import LimitsInterceptor
from serving.security.scopes import Scope
from serving.security.settings import SecuritySettings
from serving.security.tokens import create
from tests.serving.pixel_backend import Caller, PixelBackend, photo, refusal
from tests.serving.security.secured import bearer, reached, secured

EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def call(caller: str = "a", kind: Kind = "unary", method: str = "/saaa.v1.AnalysisService/Analyze") -> Call:
    context: Any = None
    return Call(method=method, kind=kind, metadata=(), context=context, request_id="1", caller=caller)


async def nothing() -> None:
    """A call's work."""


async def refused(limits: LimitsInterceptor, made: Call) -> float | None:
    """How long the caller is to wait; None where the call goes through."""
    try:
        await limits.around(made, nothing)
    except CallerLimited as error:
        return error.retry_after_s
    return None


async def test_a_burst_then_the_rate_for_each_caller_alone() -> None:
    clock = Clock()
    limits = LimitsInterceptor(SecuritySettings(calls_per_s=2, burst=3), clock=clock)
    assert [await refused(limits, call()) for _ in range(3)] == [None] * 3
    assert await refused(limits, call()) == pytest.approx(0.5)
    assert await refused(limits, call("b")) is None
    clock.now += 0.25
    assert await refused(limits, call()) == pytest.approx(0.25)
    clock.now += 0.25
    assert await refused(limits, call()) is None
    assert await refused(limits, call()) == pytest.approx(0.5)
    clock.now += 1000
    assert [await refused(limits, call()) for _ in range(4)] == [None, None, None, pytest.approx(0.5)]


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    gaps=st.lists(st.integers(0, 60).map(lambda ticks: ticks / 20), min_size=1, max_size=30),
    rate=st.floats(0.1, 50),
    burst=st.integers(1, 8),
)
def test_the_rate_holds_over_any_stretch_and_who_waits_as_told_gets_in(
    gaps: list[float], rate: float, burst: int
) -> None:
    async def run() -> None:
        clock = Clock()
        limits = LimitsInterceptor(SecuritySettings(calls_per_s=rate, burst=burst), clock=clock)
        taken: list[float] = []
        for gap in gaps:
            clock.now += gap
            wait = await refused(limits, call())
            if wait is None:
                taken.append(clock.now)
            else:
                clock.now += wait + 1e-6
                assert await refused(limits, call()) is None
                taken.append(clock.now)
        for first in range(len(taken)):
            for last in range(first, len(taken)):
                assert last - first + 1 <= burst + rate * (taken[last] - taken[first]) + 1e-3

    asyncio.run(run())


async def test_calls_at_once_are_counted_until_they_end_however_they_end() -> None:
    limits = LimitsInterceptor(SecuritySettings(calls_at_once=2))

    async def second() -> None:
        assert await refused(limits, call()) == pytest.approx(0.5)
        assert await refused(limits, call("b")) is None
        raise ZeroDivisionError

    async def first() -> None:
        with contextlib.suppress(ZeroDivisionError):
            await limits.around(call(), second)
        assert await refused(limits, call()) is None

    await limits.around(call(), first)
    assert not any(account.working for account in limits._accounts.values())


async def test_nothing_is_limited_unless_asked_for_and_health_never() -> None:
    limits = LimitsInterceptor(SecuritySettings())
    assert [await refused(limits, call()) for _ in range(100)] == [None] * 100
    limits = LimitsInterceptor(SecuritySettings(calls_per_s=0.001, burst=1))
    checks = [await refused(limits, call(method="/grpc.health.v1.Health/Check")) for _ in range(10)]
    assert checks == [None] * 10
    assert await refused(limits, call()) is None


async def test_memory_is_bounded_by_callers_at_work_or_just_now() -> None:
    clock = Clock()
    limits = LimitsInterceptor(SecuritySettings(calls_per_s=1, burst=1), clock=clock)

    async def stay() -> None:
        for number in range(5000):
            clock.now += 0.01
            await refused(limits, call(f"passer-by {number}"))
        accounts = limits._accounts
        assert "staying" in accounts
        assert len(accounts) <= 2100

    await limits.around(call("staying"), stay)
    # Who was just there is not forgotten: that would give a new burst.
    assert await refused(limits, call("passer-by 4999")) is not None


async def test_items_of_a_stream_are_held_up_rather_than_refused() -> None:
    limits = LimitsInterceptor(SecuritySettings(calls_per_s=20, burst=2))
    stream = call(kind="bidi_stream")

    async def take_six() -> None:
        assert stream.pace is not None
        started = time.monotonic()
        for _ in range(6):
            stream.received += 1
            await stream.pace()
        # Two at once, four at 20 a second.
        assert 0.19 <= time.monotonic() - started < 2
        assert await refused(limits, call()) is not None

    await limits.around(stream, take_six)


async def test_pieces_of_one_upload_are_one_call() -> None:
    limits = LimitsInterceptor(SecuritySettings(calls_per_s=1, burst=2))
    upload = call(kind="client_stream")
    await limits.around(upload, nothing)
    assert upload.pace is None
    assert await refused(limits, call()) is None
    assert await refused(limits, call()) is not None


def analyze(caller: Caller, token: str) -> Any:
    request = pb.AnalyzeRequest(image=photo(), outputs=[pb.OUTPUT_PREDICTIONS])
    return caller.stub.Analyze(request, timeout=20, metadata=bearer(token))


async def test_over_the_wire_the_refusal_names_the_wait_and_others_go_on(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.json"
    one, _ = create(tokens, "one", [Scope.ANALYZE], days=None)
    two, _ = create(tokens, "two", [Scope.ANALYZE], days=None)
    async with secured(tokens=tokens, calls_per_s=0.1, burst=2) as facade, reached(facade) as caller:
        for _ in range(2):
            assert (await analyze(caller, one)).predictions
        limited = await refusal(analyze(caller, one))
        assert (limited.code, limited.reason) == (EXHAUSTED, "CALLER_LIMITED")
        assert limited.retry_s == pytest.approx(10, abs=1.5)
        assert (await analyze(caller, two)).predictions
        health = health_pb2_grpc.HealthStub(caller.channel)
        for _ in range(5):
            await health.Check(health_pb2.HealthCheckRequest(service=""), timeout=5)


async def test_over_the_wire_calls_at_once_without_tokens_are_an_addresses() -> None:
    backend = PixelBackend()
    backend.seconds = 0.5
    async with secured(backend, calls_at_once=1) as facade, reached(facade) as caller, reached(facade) as other:
        first = asyncio.ensure_future(analyze(caller, "none"))
        while not backend.batches:
            await asyncio.sleep(0.01)
        limited = await refusal(analyze(other, "none"))
        assert (limited.code, limited.reason) == (EXHAUSTED, "CALLER_LIMITED")
        assert (await first).predictions
        assert (await analyze(other, "none")).predictions


async def test_more_calls_than_the_facade_takes_are_refused_unread_and_it_recovers() -> None:
    backend = PixelBackend()
    backend.seconds = 0.5
    async with secured(backend, max_calls=2) as facade, reached(facade) as caller:
        running = [asyncio.ensure_future(analyze(caller, "none")) for _ in range(2)]
        while not backend.batches:
            await asyncio.sleep(0.01)
        full = await refusal(analyze(caller, "none"))
        assert (full.code, full.reason, full.retry_s) == (EXHAUSTED, "SERVICE_FULL", 0.5)
        health = health_pb2_grpc.HealthStub(caller.channel)
        await health.Check(health_pb2.HealthCheckRequest(service=""), timeout=5)
        for answer in await asyncio.gather(*running):
            assert answer.predictions
        assert (await analyze(caller, "none")).predictions
