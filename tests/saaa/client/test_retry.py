"""What is sent again, and what is not, against a real gRPC server on loopback."""

from __future__ import annotations

import time

import grpc
import pytest

from saaa.client import AsyncClient, Client, RpcFailed
from tests.saaa.client.conftest import Server

DOWN = grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("size", [10, 3 * 2**20])
def test_an_outage_is_outlasted(server: Server, size: int) -> None:
    server.service.failures = [DOWN, DOWN]
    with Client(server.address) as client:
        client.analyze(bytes(size))
    # Each attempt is the same request, above gRPC's own bound for keeping it, too.
    assert [len(request.image) for request in server.service.requests] == [size] * 3


async def test_the_asynchronous_client_does_so_too(server: Server) -> None:
    server.service.failures = [DOWN]
    async with AsyncClient(server.address) as client:
        await client.models()
    assert len(server.service.requests) == 2


def test_three_attempts_are_all(server: Server) -> None:
    server.service.failures = [DOWN] * 5
    with Client(server.address) as client, pytest.raises(RpcFailed) as caught:
        client.models()
    assert caught.value.code is DOWN
    assert len(server.service.requests) == 3


@pytest.mark.parametrize(
    "code",
    [
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.INVALID_ARGUMENT,
    ],
)
def test_nothing_else_is_sent_again(server: Server, code: grpc.StatusCode) -> None:
    server.service.failures = [code]
    with Client(server.address) as client, pytest.raises(RpcFailed) as caught:
        client.models()
    assert caught.value.code is code
    assert len(server.service.requests) == 1


def test_streams_are_not_sent_again(server: Server) -> None:
    server.service.failures = [DOWN]
    with Client(server.address) as client, pytest.raises(RpcFailed):
        list(client.analyze_many([b"a"], timeout=10))
    # A second call would have been answered.
    assert server.service.failures == []


def test_the_servers_delay_is_kept(server: Server) -> None:
    server.service.failures = [DOWN]
    server.service.trailing = (("grpc-retry-pushback-ms", "700"),)
    with Client(server.address) as client:
        start = time.monotonic()
        client.models()
        assert time.monotonic() - start >= 0.7
    assert len(server.service.requests) == 2


def test_the_server_may_forbid_another_attempt(server: Server) -> None:
    server.service.failures = [DOWN]
    server.service.trailing = (("grpc-retry-pushback-ms", "-1"),)
    with Client(server.address) as client, pytest.raises(RpcFailed):
        client.models()
    assert len(server.service.requests) == 1


def test_a_service_that_fails_for_good_is_not_asked_thrice_as_often(server: Server) -> None:
    server.service.failures = [DOWN] * 100
    # So that the test is quick.
    server.service.trailing = (("grpc-retry-pushback-ms", "1"),)
    with Client(server.address) as client:
        for _ in range(20):
            with pytest.raises(RpcFailed):
                client.models()
    # Five tokens are spent on failures, then each call is one attempt.
    assert 20 < len(server.service.requests) <= 26


def test_the_deadline_holds_for_all_attempts_together(server: Server) -> None:
    server.service.failures = [DOWN] * 5
    server.service.trailing = (("grpc-retry-pushback-ms", "5000"),)
    with Client(server.address) as client:
        start = time.monotonic()
        with pytest.raises(RpcFailed):
            client.models(timeout=0.5)
        # The server asked for a delay of five.
        assert time.monotonic() - start < 4
