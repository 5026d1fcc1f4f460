"""Images that do not fit into one message: sent in pieces."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import chain

from saaa.v1 import analysis_pb2 as pb

UPLOAD_ABOVE_BYTES = 20 * 2**20
"""Larger images are uploaded: what a service takes in one message unless it is told otherwise."""
CHUNK_BYTES = 256 * 1024


def must_upload(request: pb.AnalyzeRequest) -> bool:
    """Whether the request's image is too large for one message."""
    return len(request.image) > UPLOAD_ABOVE_BYTES


def upload_pieces(request: pb.AnalyzeRequest) -> Iterator[pb.AnalyzeUploadRequest]:
    """The header, then the image in chunks; the request's image is taken out of it.

    The digest is made here, and not when the pieces are taken: on a thread that has the time.
    """
    image = request.image
    request.ClearField("image")
    header = pb.UploadHeader(request=request, size_bytes=len(image), sha256=hashlib.sha256(image).hexdigest())
    return chain([pb.AnalyzeUploadRequest(header=header)], _chunks(image))


def _chunks(image: bytes) -> Iterator[pb.AnalyzeUploadRequest]:
    for place in range(0, len(image), CHUNK_BYTES):
        yield pb.AnalyzeUploadRequest(chunk=image[place : place + CHUNK_BYTES])
