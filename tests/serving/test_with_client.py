"""The clients against the facade: streams and uploads from end to end."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
import numpy as np
import pytest

from saaa.client import AsyncClient, Client, Item, RpcFailed
from saaa.images import decode
from serving.settings import RequestLimits
from tests.serving.pixel_backend import PixelBackend, calling, photo

MB = 2**20
COLOURS = {"red": (200, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 200)}


@pytest.fixture
async def address() -> AsyncIterator[str]:
    limits = RequestLimits(max_upload_bytes=21 * MB, max_stream_in_flight=4)
    async with calling(PixelBackend(), limits=limits) as caller:
        yield caller.facade.address


def padded(size: int) -> bytes:
    """A picture of so many bytes."""
    picture = photo()
    return picture + b"\xff" * (size - len(picture))


def many(address: str, items: list[Item], **options: Any) -> list[Any]:
    with Client(address) as client:
        return list(client.analyze_many(items, timeout=30, **options))


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_many_images_are_answered_each_under_its_item(address: str, kind: str) -> None:
    items = [Item(image=photo(COLOURS[name]), key=(name, n)) for n in range(20) for name in COLOURS]
    items.append(Item(image=b"no picture", key=("bad", 0)))
    if kind == "sync":
        outcomes = await asyncio.to_thread(many, address, items, outputs=["predictions"])
    else:
        async with AsyncClient(address) as client:
            stream = client.analyze_many(items, timeout=30, outputs=["predictions"])
            outcomes = [outcome async for outcome in stream]
    assert {outcome.item.key for outcome in outcomes} == {item.key for item in items}
    for outcome in outcomes:
        name, _ = outcome.item.key
        if name == "bad":
            assert outcome.error.reason == "IMAGE_REJECTED"
            assert outcome.error.violations[0].field == "image"
        else:
            assert outcome.analysis.predictions[0].label == name


async def test_limits_of_streams_and_uploads_are_published(address: str) -> None:
    async with AsyncClient(address) as client:
        limits = (await client.model("colours")).limits
    assert (limits.max_upload_bytes, limits.max_stream_in_flight) == (21 * MB, 4)
    assert (limits.max_message_bytes, limits.max_top_k, limits.max_request_id) == (32 * MB, 1000, 128)
    assert (limits.max_steps, limits.max_masks, limits.max_words) == (64, 8000, 50)


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_a_large_image_is_uploaded_and_a_larger_one_refused(address: str, kind: str) -> None:
    image = padded(20 * MB + 1)

    async def ask(image: bytes) -> Any:
        if kind == "async":
            async with AsyncClient(address) as client:
                return await client.analyze(image, outputs=["predictions"])

        def blocking() -> Any:
            with Client(address) as client:
                return client.analyze(image, outputs=["predictions"])

        return await asyncio.to_thread(blocking)

    analysis = await ask(image)
    assert analysis.predictions[0].label == "red"
    assert analysis.provenance.image_sha256 == hashlib.sha256(image).hexdigest()
    for _ in range(2):
        # Refused at the header; the blocking client is still sending chunks.
        with pytest.raises(RpcFailed) as caught:
            await ask(padded(24 * MB))
        assert caught.value.code is grpc.StatusCode.INVALID_ARGUMENT
        assert caught.value.violations[0].field == "header.size_bytes"


async def test_an_overlay_is_drawn_of_what_came(address: str) -> None:
    image = photo()
    async with AsyncClient(address) as client:
        (attribution,) = (await client.analyze(image, outputs=["attributions"])).attributions
    drawn = attribution.overlay(image)
    assert (drawn.shape, drawn.dtype) == ((220, 440, 3), np.uint8)
    # The bright square, 20..40 x 10..20 of 80 x 40, is where the map is: it differs from the rest.
    inside, outside = drawn[60:100, 120:210].mean((0, 1)), drawn[160:, 300:].mean((0, 1))
    assert np.abs(inside - outside).max() > 40
    np.testing.assert_array_equal(drawn, attribution.overlay(decode(image)))
