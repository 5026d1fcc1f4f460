"""Images in pieces: taken in within bounds of size, number and time, and checked against their digest."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable

from saaa.errors import DeadlineExceeded, ImageRejected, OptionInvalid, UploadInvalid
from saaa.v1 import analysis_pb2 as pb
from serving.settings import FacadeSettings
from serving.violations import Violations

MIN_CHUNK, MAX_CHUNK = 64 * 1024, 256 * 1024
"""Bytes of a chunk; the last one may be smaller."""


class Uploads:
    """Takes in uploads, so many at once.

    Args:
        settings: their number and size.
    """

    def __init__(self, settings: FacadeSettings) -> None:
        self._most = settings.limits.max_upload_bytes
        self._places = asyncio.Semaphore(settings.max_uploads)

    @contextlib.asynccontextmanager
    async def take(
        self,
        pieces: AsyncIterator[pb.AnalyzeUploadRequest],
        timeout: float,
        accept: Callable[[], Awaitable[None]],
    ) -> AsyncIterator[tuple[pb.UploadHeader, bytes]]:
        """Read one upload to its end; its place is given back when the context is left, and the image with it.

        Args:
            pieces: the header, then the chunks.
            timeout: seconds until it must be there.
            accept: awaited when the header is right and there is a place; tells the client to send the chunks.

        Yields:
            The header and the image's bytes, of the header's size and digest.

        Raises:
            RequestInvalid, InvalidInput: the header is wrong, or the pieces are not what it says.
            DeadlineExceeded: the upload did not come in time.
        """
        async with contextlib.AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(timeout):
                    first = await anext(pieces, None)
                    if first is None or first.WhichOneof("piece") != "header":
                        raise UploadInvalid("The first message must be the header.", field="header")
                    self._check(first.header)
                    await stack.enter_async_context(self._places)
                    await accept()
                    image = await _collect(pieces, first.header)
            except TimeoutError:
                text = "The deadline passed before the upload was complete; allow more time."
                raise DeadlineExceeded(text) from None
            yield first.header, image

    def _check(self, header: pb.UploadHeader) -> None:
        violations = Violations()
        if not 1 <= header.size_bytes <= self._most:
            text = f"The image has {header.size_bytes} bytes, 1 to {self._most} are taken; send a smaller file."
            violations.add(ImageRejected(text, field="header.size_bytes"))
        violations.check(
            re.fullmatch("[0-9a-f]{64}", header.sha256) is not None,
            "header.sha256",
            "Give the SHA-256 of the image as 64 hexadecimal digits, in small letters.",
        )
        if not header.HasField("request"):
            violations.add(OptionInvalid("Say what is wanted of the image.", field="header.request"))
        elif header.request.image:
            violations.add(OptionInvalid("The image comes in chunks; leave this empty.", field="header.request.image"))
        violations.raise_any()


async def _collect(pieces: AsyncIterator[pb.AnalyzeUploadRequest], header: pb.UploadHeader) -> bytes:
    image = bytearray()
    digest = hashlib.sha256()
    async for piece in pieces:
        if piece.WhichOneof("piece") != "chunk":
            raise UploadInvalid("There is one header; all that follows it are chunks.", field="header")
        left = header.size_bytes - len(image)
        count = len(piece.chunk)
        if count > left:
            raise UploadInvalid(f"More than the {header.size_bytes} bytes of the header came.", field="chunk")
        if count > MAX_CHUNK or count < min(MIN_CHUNK, left) or not count:
            raise UploadInvalid(
                f"A chunk has {count} bytes; send {MIN_CHUNK} to {MAX_CHUNK}, only the last one may be smaller.",
                field="chunk",
            )
        image += piece.chunk
        digest.update(piece.chunk)
    if len(image) < header.size_bytes:
        raise UploadInvalid(f"{len(image)} of {header.size_bytes} bytes came; send all of them.", field="chunk")
    if digest.hexdigest() != header.sha256:
        raise UploadInvalid("The bytes that came have another digest than the header says.", field="header.sha256")
    return bytes(image)
