"""Uploads over real gRPC: what fits, what does not, and bounded memory."""

from __future__ import annotations

import asyncio
import hashlib
import io
from collections.abc import AsyncIterator, Iterable
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from saaa.errors import InvalidInput
from saaa.v1 import analysis_pb2 as pb
from saaa.v1.analysis_pb2_grpc import AnalysisServiceStub
from serving.contract.upload import MAX_CHUNK, MIN_CHUNK, Uploads
from serving.settings import FacadeSettings, RequestLimits
from tests.serving.pixel_backend import Caller, PixelBackend, calling, photo, refusal

KB = 1024
SMALL = RequestLimits(max_image_bytes=300 * KB)


def large(kilobytes: int = 700) -> bytes:
    """A BMP: red, of about so many KB."""
    buffer = io.BytesIO()
    pixels = np.zeros((kilobytes, 341, 3), np.uint8)
    pixels[..., 0] = 200
    Image.fromarray(pixels).save(buffer, "BMP")
    return buffer.getvalue()


def header(image: bytes, **changes: Any) -> pb.AnalyzeUploadRequest:
    fields: dict[str, Any] = {
        "request": pb.AnalyzeRequest(outputs=[pb.OUTPUT_PREDICTIONS], request_id="mine"),
        "size_bytes": len(image),
        "sha256": hashlib.sha256(image).hexdigest(),
    }
    return pb.AnalyzeUploadRequest(header=pb.UploadHeader(**{**fields, **changes}))


def chunks(image: bytes, size: int = 100 * KB) -> list[pb.AnalyzeUploadRequest]:
    return [pb.AnalyzeUploadRequest(chunk=image[at : at + size]) for at in range(0, len(image), size)]


def upload(caller: Caller, *pieces: pb.AnalyzeUploadRequest, timeout: float = 20) -> Any:
    """Send all pieces at once, without waiting to be let in; grpc.aio would lose the status of what is refused."""

    def blocking() -> pb.AnalyzeUploadResponse:
        with grpc.insecure_channel(caller.facade.address) as channel:
            return AnalysisServiceStub(channel).AnalyzeUpload(iter(pieces), timeout=timeout)

    return asyncio.to_thread(blocking)


async def test_an_image_above_the_messages_limit_is_answered() -> None:
    image = large()
    async with calling(PixelBackend(), limits=SMALL) as caller:
        refused = await refusal(caller.analyze(image))
        assert refused.reason == "IMAGE_REJECTED"
        answer = (await upload(caller, header(image), *chunks(image))).response
        assert answer.request_id == "mine"
        assert answer.predictions[0].label == "red"
        assert answer.provenance.image_sha256 == hashlib.sha256(image).hexdigest()
        # A small one may come in pieces, too: one of them.
        small = photo()
        assert (await upload(caller, header(small), *chunks(small))).response.predictions


async def test_what_decoding_takes_otherwise_is_no_bound_for_uploads() -> None:
    image = large(21 * KB)
    assert len(image) > 20 * 2**20
    async with calling(PixelBackend()) as caller:
        assert (await upload(caller, header(image), *chunks(image, MAX_CHUNK))).response.predictions


WRONG: dict[str, tuple[Any, str, str]] = {
    "no message": (lambda image: [], "UPLOAD_INVALID", "header"),
    "no header": (lambda image: chunks(image), "UPLOAD_INVALID", "header"),
    "empty message": (lambda image: [pb.AnalyzeUploadRequest()], "UPLOAD_INVALID", "header"),
    "two headers": (lambda image: [header(image), header(image)], "UPLOAD_INVALID", "header"),
    "no chunks": (lambda image: [header(image)], "UPLOAD_INVALID", "chunk"),
    "one chunk missing": (lambda image: [header(image), *chunks(image)[:-1]], "UPLOAD_INVALID", "chunk"),
    "one chunk too many": (lambda image: [header(image), *chunks(image), *chunks(b"x")], "UPLOAD_INVALID", "chunk"),
    "chunks out of order": (lambda image: [header(image), *_swapped(image)], "UPLOAD_INVALID", "header.sha256"),
    "tiny chunks": (lambda image: [header(image), *chunks(image, 10 * KB)], "UPLOAD_INVALID", "chunk"),
    "huge chunks": (lambda image: [header(image), *chunks(image, 300 * KB)], "UPLOAD_INVALID", "chunk"),
    "empty chunk": (
        lambda image: [header(image), *chunks(image)[:2], pb.AnalyzeUploadRequest(chunk=b"")],
        "UPLOAD_INVALID",
        "chunk",
    ),
    "no size": (lambda image: [header(image, size_bytes=0)], "IMAGE_REJECTED", "header.size_bytes"),
    "too large": (lambda image: [header(image, size_bytes=65 * 2**20)], "IMAGE_REJECTED", "header.size_bytes"),
    "no digest": (lambda image: [header(image, sha256="abc")], "OPTION_INVALID", "header.sha256"),
    "another digest": (
        lambda image: [header(image, sha256="0" * 64), *chunks(image)],
        "UPLOAD_INVALID",
        "header.sha256",
    ),
    "no request": (lambda image: [header(image, request=None)], "OPTION_INVALID", "header.request"),
    "an image in the request": (
        lambda image: [header(image, request=pb.AnalyzeRequest(image=photo()))],
        "OPTION_INVALID",
        "header.request.image",
    ),
    "no picture": (lambda image: [header(b"x" * 9), *chunks(b"x" * 9)], "IMAGE_REJECTED", "image"),
}


def _swapped(image: bytes) -> list[pb.AnalyzeUploadRequest]:
    first, second, *others = chunks(image)
    # The end of a picture of one colour: its first chunk has the file's header.
    return [second, first, *others]


@pytest.fixture(scope="module")
def image() -> bytes:
    return large()


@pytest.mark.parametrize("case", WRONG)
async def test_what_is_wrong_with_an_upload_is_told(image: bytes, case: str) -> None:
    make, reason, field = WRONG[case]
    async with calling(PixelBackend()) as caller:
        refused = await refusal(upload(caller, *make(image)))
    assert refused.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refused.reason == reason
    assert list(refused.fields) == [field]


async def test_several_faults_of_a_header_are_told_together(image: bytes) -> None:
    async with calling(PixelBackend()) as caller:
        refused = await refusal(upload(caller, header(image, size_bytes=0, sha256="", request=None)))
    assert set(refused.fields) == {"header.size_bytes", "header.sha256", "header.request"}


async def test_a_stalled_upload_ends_at_its_deadline_and_frees_its_place(image: bytes) -> None:
    async def stalled() -> AsyncIterator[pb.AnalyzeUploadRequest]:
        yield header(image)
        await asyncio.sleep(60)

    async with calling(PixelBackend(), max_uploads=1, max_deadline_s=1.5) as caller:
        # Without a deadline of the caller's the service's own ends it.
        refused = await refusal(caller.stub.AnalyzeUpload(stalled()))
        assert refused.code is grpc.StatusCode.DEADLINE_EXCEEDED
        assert (await upload(caller, header(image), *chunks(image))).response.predictions


async def test_more_uploads_than_places_wait_unread(image: bytes) -> None:
    uploads = Uploads(FacadeSettings(max_uploads=1))
    read = [0, 0]
    begun, go, answered = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def pieces(number: int) -> AsyncIterator[pb.AnalyzeUploadRequest]:
        for piece in (header(image), *chunks(image)):
            read[number] += 1
            yield piece
            if number == 0 and read[0] == 3:
                begun.set()
                await go.wait()

    async def take(number: int) -> bytes:
        async with uploads.take(pieces(number), 20, _accept) as (_, taken):
            if number == 0:
                await answered.wait()
            return taken

    first = asyncio.create_task(take(0))
    await begun.wait()
    second = asyncio.create_task(take(1))
    for step in (go, answered):
        # Also while the first is complete and its answer made: the image is in memory until then.
        await asyncio.sleep(0.05)
        assert read[1] == 1
        step.set()
    assert await first == await second == image


async def _accept() -> None:
    pass


async def _pieces(messages: Iterable[pb.AnalyzeUploadRequest]) -> AsyncIterator[pb.AnalyzeUploadRequest]:
    for message in messages:
        yield message


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, MAX_CHUNK + 1), max_size=5), st.integers(1, 4 * MAX_CHUNK))
def test_what_is_taken_is_what_was_cut(cuts: list[int], size: int) -> None:
    """Taken exactly when the chunks, in bounds, make up the size; naive oracle."""
    body = bytes(range(256)) * (size // 256 + 1)
    body = body[:size]
    pieces, at = [header(body)], 0
    for cut in cuts:
        pieces.append(pb.AnalyzeUploadRequest(chunk=body[at : at + cut].ljust(cut, b"?")))
        at += cut
    good = sum(cuts) == size and all(MIN_CHUNK <= cut <= MAX_CHUNK for cut in cuts[:-1])
    good = good and bool(cuts) and 1 <= cuts[-1] <= MAX_CHUNK

    async def take() -> bytes | None:
        try:
            async with Uploads(FacadeSettings()).take(_pieces(pieces), 5, _accept) as (_, image):
                return image
        except InvalidInput:
            return None

    assert asyncio.run(take()) == (body if good else None)
