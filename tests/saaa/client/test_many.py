"""Many images on one call, and large ones in pieces, against a real gRPC server on loopback."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from saaa.client import AsyncClient, Client, Item, Outcome, RequestInvalid, RpcFailed
from saaa.v1 import analysis_pb2 as pb
from tests.saaa.client.conftest import Server

MB = 2**20
both = pytest.mark.parametrize("kind", ["sync", "async", "async items"])


async def ask(kind: str, server: Server, items: Iterable[Any], **options: Any) -> list[Outcome]:
    """All outcomes in the order in which they came."""
    if kind == "sync":
        with Client(server.address) as client:
            return list(client.analyze_many(items, timeout=20, **options))

    async def each() -> AsyncIterator[Any]:
        for item in items:
            yield item

    async with AsyncClient(server.address) as client:
        given = each() if kind == "async items" else items
        return [outcome async for outcome in client.analyze_many(given, timeout=20, **options)]


@both
async def test_outcomes_come_as_they_finish_each_with_its_item(kind: str, server: Server, tmp_path: Path) -> None:
    path = tmp_path / "c.jpg"
    path.write_bytes(b"c")
    items = [Item(image=b"a", key=1), Item(image=b"bad", key=2), b"b", path]
    outcomes = await ask(kind, server, items, top_k=3)
    # The server answers the second of two first.
    assert [outcome.item.key for outcome in outcomes] == [2, 1, None, None]
    assert [outcome.analysis and outcome.analysis.request_id for outcome in outcomes] == [None, "a", "c", "b"]
    error = outcomes[0].error
    assert isinstance(error, RpcFailed)
    assert (error.code, error.reason, error.message) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "IMAGE_REJECTED",
        "no picture",
    )
    assert [item.request.top_k for item in server.service.requests] == [3] * 4
    assert len({item.item_id for item in server.service.requests}) == 4


@both
async def test_what_cannot_be_sent_fails_alone(kind: str, server: Server, tmp_path: Path) -> None:
    items = [
        Item(image=tmp_path / "missing.jpg", key="missing"),
        Item(image=b"a", key="good"),
        Item(image=b"b", graph={"objects": 3}, key="graph"),
    ]
    found = {outcome.item.key: outcome for outcome in await ask(kind, server, items)}
    assert isinstance(found["missing"].error, FileNotFoundError)
    assert isinstance(found["graph"].error, RequestInvalid)
    assert found["good"].analysis is not None
    assert found["good"].error is None
    assert len(server.service.requests) == 1


@both
async def test_nothing_asked_nothing_answered(kind: str, server: Server) -> None:
    assert await ask(kind, server, []) == []


@both
async def test_large_images_are_uploaded_after_the_stream(kind: str, server: Server) -> None:
    large = b"L" * (20 * MB + 1)
    server.service.response = pb.AnalyzeResponse(request_id="large")
    outcomes = await ask(kind, server, [Item(image=large, key="L"), Item(image=b"a", key="a")], top_k=2)
    assert [(outcome.item.key, outcome.analysis and outcome.analysis.request_id) for outcome in outcomes] == [
        ("a", "a"),
        ("L", "large"),
    ]
    ((header, chunks),) = server.service.uploads
    assert (header.request.top_k, header.request.image) == (2, b"")
    assert b"".join(chunks) == large


@both
async def test_what_the_items_raise_is_raised_after_what_was_answered(kind: str, server: Server) -> None:
    def items() -> Iterator[bytes]:
        yield b"a"
        raise ZeroDivisionError("mine")

    seen: list[Any] = []
    with pytest.raises(ZeroDivisionError, match="mine"):
        seen += await ask(kind, server, items())
    assert len(server.service.requests) == 1


@both
async def test_a_failed_call_is_one_error(kind: str, server: Server) -> None:
    server.service.code = grpc.StatusCode.PERMISSION_DENIED
    with pytest.raises(RpcFailed) as caught:
        await ask(kind, server, [b"a", b"b"])
    assert (caught.value.code, caught.value.reason) == (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")


@both
async def test_wrong_arguments_are_told_before_anything_is_taken(kind: str, server: Server) -> None:
    def items() -> Iterator[bytes]:
        raise AssertionError("taken")
        yield b""

    client: Any = Client(server.address) if kind == "sync" else AsyncClient(server.address)
    with pytest.raises(TypeError, match="topk"):
        client.analyze_many(items(), timeout=5, topk=1)
    with pytest.raises(TypeError, match="timeout"):
        client.analyze_many(items())
    with pytest.raises(ValueError, match="more than 0"):
        client.analyze_many(items(), timeout=0)
    closed = client.close()
    if closed is not None:
        await closed


def test_leaving_early_ends_the_call(server: Server) -> None:
    taken = 0

    def items() -> Iterator[bytes]:
        nonlocal taken
        for _ in range(100_000):
            taken += 1
            yield b"x" * 4096

    with Client(server.address) as client:
        outcomes = client.analyze_many(items(), timeout=60)
        assert next(iter(outcomes)).analysis is not None
        outcomes.close()  # type: ignore[attr-defined]
    assert taken < 100_000


@pytest.mark.parametrize("size", [20 * MB, 20 * MB + 1, 40 * MB])
def test_one_large_image_is_uploaded_by_itself(server: Server, size: int) -> None:
    image = np.arange(size, dtype=np.uint8).tobytes()
    with Client(server.address) as client:
        client.analyze(image, top_k=2)
    if size <= 20 * MB:
        assert server.service.requests[0].image == image
        return
    ((header, chunks),) = server.service.uploads
    assert (header.size_bytes, header.sha256) == (size, hashlib.sha256(image).hexdigest())
    assert {len(chunk) for chunk in chunks[:-1]} == {256 * 1024}
    assert 0 < len(chunks[-1]) <= 256 * 1024
    assert b"".join(chunks) == image
