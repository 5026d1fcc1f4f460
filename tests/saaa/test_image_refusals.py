"""What is no picture, is damaged or a trap is refused, and nothing else happens; the yardstick of bad images."""

from __future__ import annotations

import csv
import random
import re
import struct
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFile

from saaa.images import MAX_IMAGE_BYTES, ImageRejected, decode, read_header
from tests.saaa.pictures import chunk, noisy, photo, png, save, tiff

PLAIN = {"JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "MPO"}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (None, "as bytes"),
        ("text", "as bytes"),
        (b"\xff\xd8\xff", "not a picture"),
        (b"<html></html>", "not a picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a picture"),
        (b"GIF89a", "not a picture"),
        (b"BM", "not a picture"),
        (b"II*\0", "not a picture"),
        (b"II+\0\x08\0\0\0" + b"\xff" * 8 + bytes(16), "not a picture"),
        (b"RIFF\0\0\0\0WEBPVP8X", "not a picture"),
        (bytes(MAX_IMAGE_BYTES + 1), "bytes; send at most"),
        (png(0, 4, 8, 0, b""), "not a picture"),
        (png(60000, 60000, 8, 0, b"\0"), "too large|pixels; send"),
        (
            tiff([(256, 4, 1, 50000), (257, 4, 1, 50000), (262, 3, 1, 1), (273, 4, 1, 8)]),
            "too large|pixels; send",
        ),
        (
            b"GIF89a" + struct.pack("<HH", 65535, 65535) + bytes(3) + b",\0\0\0\0\1\0\1\0\0\2\2D\1\0;",
            "too large",
        ),
        (b"GIF89a" + struct.pack("<HH", 8, 8) + bytes(3) + b";", "not a picture"),
    ],
)
def test_refuses(data: Any, reason: str) -> None:
    for call in (decode, read_header):
        with pytest.raises(ImageRejected, match=reason) as caught:
            call(data)
        assert "0x" not in caught.value.message


@pytest.mark.parametrize("name", ["ICO", "PPM", "PCX", "TGA", "JPEG2000", "EPS", "AVIF", "ICNS", "SGI", "DDS"])
def test_refuses_other_formats(name: str) -> None:
    try:
        data = save(photo(64, 64), name)
    except (OSError, KeyError):
        pytest.skip(f"this Pillow cannot write {name}")
    with pytest.raises(ImageRejected, match="send JPEG, PNG, WebP, GIF, BMP or TIFF"):
        decode(data)


def test_the_pixel_limit_holds_before_decoding() -> None:
    data = save(photo(), "PNG")
    assert decode(data, max_pixels=48 * 32).shape == (32, 48, 3)
    for call in (decode, read_header):
        with pytest.raises(ImageRejected, match=r"48 x 32 pixels; send at most 1535"):
            call(data, max_pixels=48 * 32 - 1)
    # The header alone is enough to refuse.
    with pytest.raises(ImageRejected, match="send at most 1000"):
        decode(data[:60], max_pixels=1000)


@pytest.mark.parametrize(
    "data",
    [
        noisy("JPEG"),
        noisy("JPEG", progressive=True),
        noisy("PNG"),
        noisy("GIF"),
        noisy("BMP"),
        noisy("WEBP"),
        noisy("TIFF"),
        noisy("TIFF", compression="tiff_lzw"),
    ],
    ids=["jpeg", "progressive", "png", "gif", "bmp", "webp", "tiff", "tiff_lzw"],
)
def test_cut_off_files_are_refused(data: bytes) -> None:
    for share in (0.02, 0.3, 0.6, 0.9):
        with pytest.raises(ImageRejected):
            decode(data[: int(len(data) * share)])


def test_a_permissive_process_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    data = noisy("JPEG")
    with pytest.raises(ImageRejected, match="cut off"):
        decode(data[: len(data) // 2])
    with pytest.raises(ImageRejected, match="send at most"):
        decode(png(60000, 60000, 8, 0, b"\0"))


def test_damaged_checksum_and_metadata() -> None:
    data = save(photo(), "PNG")
    broken = bytearray(data)
    broken[29] ^= 1  # the checksum of IHDR
    with pytest.raises(ImageRejected):
        decode(bytes(broken))
    for name in ("JPEG", "PNG", "WEBP"):
        assert decode(save(photo(), name, icc_profile=b"garbage" * 50)).shape == (32, 48, 3)
        assert decode(save(photo(), name, exif=b"Exif\0\0II*\0\xff\xff\0\0")).shape == (32, 48, 3)


def test_a_damaged_file_fills_no_log(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ImageRejected):
        decode(tiff([(256, 4, 1, 8), (257, 4, 1, 8), (262, 3, 1, 1), (273, 4, 1, 200), (277, 3, 1, 20_995)]))
    assert caplog.records == []


JPEG = save(photo(), "JPEG")
SCAN = (p := save(photo(), "JPEG", progressive=True))[p.rfind(b"\xff\xda") : -2]


@pytest.mark.parametrize(
    "data",
    [
        JPEG[:2] + b"\xff\xe1\x00\x09Exif\0\0x" * 2000 + JPEG[2:],
        JPEG[:2] + b"\xff" * 100_000 + JPEG[2:],
        p[:-2] + SCAN * 100 + b"\xff\xd9",
        png(1, 1, 8, 0, b"\0\0", chunk(b"teSt", b"") * 4100),
        png(1, 1, 8, 0, b"\0\0") + chunk(b"teSt", b"") * 16_400,
        b"GIF89a" + struct.pack("<HH", 8, 8) + bytes(3) + b"!\xfe" + b"\1a" * 100_001 + b"\0,",
        b"GIF89a" + struct.pack("<HH", 8, 8) + bytes(100_100),
        b"BM" + struct.pack("<IHHIIiiHHI", 9, 0, 0, 54, 40, 9000, 9000, 1, 8, 1) + bytes(99),
        tiff([(256, 4, 1, 64), (257, 4, 1, 64), (273, 4, 20_000, 60)], bytes(80_000)),
        b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 10**6) + bytes(99),
    ],
    ids=["segments", "padding", "scans", "chunks before", "chunks", "comment", "junk", "rle", "strips", "tags"],
)
def test_traps_are_refused_before_they_are_opened(data: bytes) -> None:
    with pytest.raises(ImageRejected, match=r"(more than|too much|too large).*; save it"):
        decode(data)


def test_ordinary_multi_scan_files_pass() -> None:
    assert decode(p).shape == (32, 48, 3)
    # Data behind the picture, as phones append films, is no scan.
    assert decode(JPEG + b"\xff\xda\x00\x02" * 5000).shape == (32, 48, 3)


SEEDS = [save(photo(), name) for name in ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF")] + [p]


@given(st.sampled_from(SEEDS), st.integers(0, 2**32 - 1))
def test_flipped_bytes_decode_or_are_refused(data: bytes, seed: int) -> None:
    dice = random.Random(seed)
    broken = bytearray(data)
    for _ in range(dice.randint(1, 8)):
        broken[dice.randrange(len(broken))] = dice.randrange(256)
    try:
        picture = decode(bytes(broken), max_pixels=10**6)
    except ImageRejected as error:
        message = error.message
    else:
        message = "fine"
        assert picture.ndim == 3
        assert 0 < picture.size <= 3 * 10**6
    assert re.fullmatch(r"[\w\s,;()'.-]+", message)


def test_threads_do_not_disturb_each_other() -> None:
    good, bad = noisy("PNG"), noisy("PNG")[:-500]
    wrong: list[str] = []

    def work() -> None:
        for _ in range(20):
            if decode(good).shape != (64, 80, 3):
                wrong.append("good")
            try:
                decode(bad)
                wrong.append("bad")
            except ImageRejected:
                pass

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_yardstick(shared_data: Path) -> None:
    folder = shared_data / "bad-images"
    with (folder / "index.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) > 50
    for row in rows:
        data = (folder / row["file"]).read_bytes()
        if row["expected"] == "rejected":
            with pytest.raises(ImageRejected):
                decode(data)
        elif row["format"] in PLAIN and row["category"] not in ("trailing", "byte_flips"):
            size = int(row["upright_width"]), int(row["upright_height"])
            assert decode(data).shape == (*size[::-1], 3), row["file"]
            header = read_header(data)
            assert (header.width, header.height) == size, row["file"]
