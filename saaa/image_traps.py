"""Image files built to cost far more than their size, found before anything is decoded.

A decoder may spend time on each block of a file or memory on what a header claims, long before pixels are
known. Each check walks one format's structure and bounds what could be multiplied. The walks are lenient:
what they cannot follow is left to the decoder, which refuses damaged files itself.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

MAX_SCANS = 64
"""JPEG scans; each costs a pass over the whole picture. Encoders write about 10."""
MAX_BLOCKS = 4096
"""Blocks of a PNG or GIF before its picture; each costs the decoder a step in Python as soon as the file is opened. A
colour profile of half a MiB makes 2000 of them in a GIF."""
MAX_CHUNKS = 2**14
"""Chunks of a PNG; encoders write 8 KiB or more to each."""
MAX_SEGMENTS = 1000
"""Segments of a JPEG; a colour profile and long EXIF data need a few hundred."""
MAX_TAGS = 1000
"""Tags of a TIFF page; some dozens are usual."""
MAX_STRIPS = 2**14
"""Strips or tiles of a TIFF page; one a row is the most that writers make."""
MAX_RLE_PIXELS = 2**20
"""Pixels of a run-length-encoded BMP, which is decoded in Python."""

_PADDING = 2**16
_MARKER = re.compile(rb"\xff[\x02-\xcf\xd9-\xfe]")


def find_trap(data: bytes) -> str:
    """Looks for a structure that makes a small file dear to open.

    Returns:
        Why the image must not be opened, in a sentence for the caller; empty when nothing speaks against it.
    """
    try:
        if data.startswith(b"\xff\xd8\xff"):
            return _jpeg(data)
        if data.startswith(b"\x89PNG\r\n\x1a\n"):
            return _png(data)
        if data.startswith((b"GIF87a", b"GIF89a")):
            return _gif(data)
        if data.startswith(b"BM"):
            return _bmp(data)
        if data.startswith((b"II", b"MM")):
            return _tiff(data)
    except (struct.error, IndexError, OverflowError):
        # The file ends inside its own header, or a BigTIFF points beyond what any file can hold.
        pass
    return ""


def png_exif(data: bytes) -> bytes:
    """The content of a PNG's first eXIf chunk, wherever it stands; empty when there is none."""
    for kind, start, length in _png_chunks(data):
        if kind == b"eXIf":
            return data[start : start + length]
    return b""


def jpeg_process(data: bytes) -> int:
    """Which of JPEG's processes made the file, by its frame's marker, such as 0xC2 for the progressive one; 0 when
    there is no frame."""
    place = 2
    while found := _MARKER.search(data, place):
        marker = data[found.start() + 1]
        # Between them are Huffman tables, a reserved code and arithmetic conditions.
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return marker
        length = data[found.end() : found.end() + 2]
        place = found.end() + int.from_bytes(length)
    return 0


def _jpeg(data: bytes) -> str:
    place, segments, scans, in_scan = 2, 0, 0, False
    while found := _MARKER.search(data, place):
        if found.start() - place > _PADDING and not in_scan:
            return "the JPEG has too much padding between its segments; save it again and send that"
        marker = data[found.start() + 1]
        if marker == 0xD9:
            break
        in_scan = marker == 0xDA
        scans += in_scan
        segments += 1
        if scans > MAX_SCANS or segments > MAX_SEGMENTS:
            return (
                f"the JPEG has more than {MAX_SCANS} scans or {MAX_SEGMENTS} segments; "
                "save it again as an ordinary JPEG and send that"
            )
        (length,) = struct.unpack_from(">H", data, found.end())
        place = found.end() + length
    return ""


def _png(data: bytes) -> str:
    before = True
    for count, (kind, _, _) in enumerate(_png_chunks(data)):
        before = before and kind != b"IDAT"
        if count > (MAX_BLOCKS if before else MAX_CHUNKS):
            return (
                f"the PNG has more than {MAX_BLOCKS} chunks before its picture, or {MAX_CHUNKS} in all; "
                "save it again and send that"
            )
    return ""


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and length of each chunk's content."""
    place = 8
    while place + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        yield kind, place + 8, length
        place += length + 12


def _gif(data: bytes) -> str:
    # Only what stands before the first picture is read.
    flags = data[10]
    place = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    blocks = 0
    while data[place] not in b",;":
        if data[place] == 0x21:
            place += 2
            while size := data[place]:
                place += size + 1
                blocks += 1
                if blocks > MAX_BLOCKS:
                    break
        place += 1
        blocks += 1
        if blocks > MAX_BLOCKS:
            return f"the GIF has more than {MAX_BLOCKS} blocks before its picture; save it again"
    return ""


def _bmp(data: bytes) -> str:
    header, width, height = struct.unpack_from("<Iii", data, 14)
    if header < 40 or struct.unpack_from("<I", data, 30)[0] not in (1, 2):
        return ""
    pixels = abs(width * height)
    # Two bytes a pixel is the worst that an encoder can do.
    if pixels > MAX_RLE_PIXELS or len(data) > 4 * pixels + 2**16:
        return "the run-length-encoded BMP is too large; save it without compression"
    return ""


def _tiff(data: bytes) -> str:
    order = "<" if data.startswith(b"II") else ">"
    big = 43 in data[2:4]
    (place,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
    (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, place)
    if count > MAX_TAGS:
        return f"the TIFF has more than {MAX_TAGS} tags; save it again and send that"
    place += 8 if big else 2
    for _ in range(count):
        tag, _, number = struct.unpack_from(order + ("HHQ" if big else "HHI"), data, place)
        # 273 and 324 are the offsets of strips and tiles.
        if tag in (273, 324) and number > MAX_STRIPS:
            return f"the TIFF has more than {MAX_STRIPS} strips or tiles; save it again and send that"
        place += 20 if big else 12
    return ""
