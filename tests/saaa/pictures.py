"""Pictures to decode: a photo, and files that are written by hand."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image


def photo(width: int = 48, height: int = 32) -> Image.Image:
    """A smooth picture without symmetry."""
    y, x = np.mgrid[:height, :width] / max(width, height)
    return Image.fromarray(np.stack([x * 250, y * 250, 120 + 90 * np.sin(5 * x + 3 * y)], 2).astype(np.uint8))


def save(image: Image.Image, name: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, name, **options)
    return buffer.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *extra: bytes) -> bytes:
    """A PNG written by hand; `rows` come with their filter bytes."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    body = b"".join(extra) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + body


def tiff(tags: list[tuple[int, int, int, int]], content: bytes = b"") -> bytes:
    """A little-endian TIFF of one page; `content` follows the tags."""
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + content


def orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


def noisy(name: str, **options: Any) -> bytes:
    pixels = np.random.default_rng(1).integers(0, 256, (64, 80, 3), np.uint8)
    return save(Image.fromarray(pixels), name, **options)
