"""Images that do not fit into one message: sent in pieces."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from saaa.v1 import analysis_pb2 as pb

UPLOAD_ABOVE_BYTES = 20 * 2**20
"""Larger images are uploaded: what a service takes in one message unless it is told otherwise."""
CHUNK_BYTES = 256 * 1024


def must_upload(request: pb.AnalyzeRequest) -> bool:
    """Whether the request's image is too large for one message."""
    return len(request.image) > UPLOAD_ABOVE_BYTES


def upload_pieces(request: pb.AnalyzeRequest) -> Iterator[pb.AnalyzeUploadRequest]:
    """The header, then the image in chunks; the request's image is taken out of it."""
    image = request.image
    request.ClearField("image")
    digest = hashlib.sha256(image).hexdigest()
    header = pb.UploadHeader(request=request, size_bytes=len(image), sha256=digest)
    yield pb.AnalyzeUploadRequest(header=header)
    for place in range(0, len(image), CHUNK_BYTES):
        yield pb.AnalyzeUploadRequest(chunk=image[place : place + CHUNK_BYTES])
