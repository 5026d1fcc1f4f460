"""Decoding, fitting and geometry: every picture kind by hand, damaged files, the yardstick of bad images."""

from __future__ import annotations

import csv
import io
import random
import re
import struct
import threading
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageFile

from saaa.errors import OptionInvalid
from saaa.images import (
    MAX_IMAGE_BYTES,
    Geometry,
    ImageRejected,
    decode,
    decode_pillow,
    encode_png,
    fit,
    read_header,
)

PLAIN = {"JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "MPO"}


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


@pytest.mark.parametrize("name", ["PNG", "BMP", "TIFF", "WEBP", "GIF", "JPEG"])
def test_formats(name: str) -> None:
    options: dict[str, Any] = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95, "subsampling": 0}}.get(name, {})
    data = save(photo(), name, **options)
    for given_as in (data, bytearray(data), memoryview(data)):
        picture = decode(given_as)  # type: ignore[arg-type]
    assert picture.dtype == np.uint8
    assert picture.flags.writeable
    assert picture.flags.c_contiguous
    slack = {"JPEG": 12, "GIF": 40}.get(name, 0)
    assert np.abs(picture.astype(int) - np.asarray(photo())).max() <= slack
    header = read_header(data)
    assert (header.format, header.width, header.height) == (name, 48, 32)


def corners(name: str, value: int) -> bytes:
    """A picture that is upright red, green / blue, white, stored turned as EXIF orientation `value` says."""
    upright = np.zeros((32, 64, 3), np.uint8)
    upright[:16, :32, 0] = upright[:16, 32:, 1] = upright[16:, :32, 2] = 255
    upright[16:, 32:] = 255
    # What a viewer does for each value, undone; rows and columns swap from 5 on.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(upright, -1),
    }[value]
    return save(Image.fromarray(np.ascontiguousarray(stored)), name, exif=orientation(value))


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("value", range(1, 9))
def test_orientation(name: str, value: int) -> None:
    data = corners(name, value)
    picture = decode(data)
    assert picture.shape == (32, 64, 3)
    assert [picture[y, x].argmax() for y, x in ((4, 4), (4, 60), (28, 4))] == [0, 1, 2]
    assert picture[28, 60].min() > 200
    header = read_header(data)
    assert (header.width, header.height) == (64, 32)


def test_png_orientation_behind_the_picture() -> None:
    data = save(photo(), "PNG")
    exif = chunk(b"eXIf", orientation(6).tobytes()[6:])
    data = data[:-12] + exif + data[-12:]
    assert decode(data).shape == (48, 32, 3)
    assert (read_header(data).width, read_header(data).height) == (32, 48)


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    values = np.array([[0, 256, 32768, 65535]], np.uint16)
    expected = [0, 1, 128, 255]
    rows = b"\0" + values.astype(">u2").tobytes()
    assert decode(png(4, 1, 16, 0, rows))[0, :, 0].tolist() == expected
    assert decode(save(Image.fromarray(values), "TIFF"))[0, :, 0].tolist() == expected
    colour = b"\0" + np.repeat(values.astype(">u2").ravel(), 3).tobytes()
    assert np.abs(decode(png(4, 1, 16, 2, colour))[0, :, 1].astype(int) - expected).max() <= 1


def test_values_without_a_white_are_stretched() -> None:
    values = np.array([[-1.0, 0.0, 1.0, np.nan]], np.float32)
    assert decode(save(Image.fromarray(values), "TIFF"))[0, :, 0].tolist() == [0, 128, 255, 0]
    assert decode(save(Image.fromarray(np.full((1, 2), 7.0, np.float32)), "TIFF")).max() == 0
    wide = Image.fromarray(np.array([[0, 10**9]], np.int32))
    assert decode(save(wide, "TIFF"))[0, :, 2].tolist() == [0, 255]


def test_transparency_lies_over_white() -> None:
    rgba = Image.fromarray(np.array([[[200, 100, 0, 255], [200, 100, 0, 0], [200, 100, 0, 51]]], np.uint8))
    expected = [[200, 100, 0], [255, 255, 255], [244, 224, 204]]
    assert decode(save(rgba, "PNG"))[0].tolist() == expected
    assert decode(save(rgba, "TIFF"))[0].tolist() == expected
    la = Image.fromarray(np.array([[[10, 255], [10, 0]]], np.uint8), "LA")
    assert decode(save(la, "PNG"))[0, :, 0].tolist() == [10, 255]
    palette = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    palette.putpalette([9, 8, 7, 1, 2, 3])
    assert decode(save(palette, "PNG", transparency=1))[0].tolist() == [[9, 8, 7], [255, 255, 255]]
    assert decode(save(palette, "GIF", transparency=0))[0].tolist() == [[255, 255, 255], [1, 2, 3]]
    grey = png(2, 1, 8, 0, b"\0\x05\x06", chunk(b"tRNS", b"\0\x06"))
    assert decode(grey)[0, :, 0].tolist() == [5, 255]
    deep = png(2, 1, 16, 0, b"\0\x05\x05\x06\x06", chunk(b"tRNS", b"\x06\x06"))
    assert decode(deep)[0, :, 0].tolist() == [5, 255]


def test_one_bit_and_cmyk() -> None:
    assert decode(png(3, 1, 1, 0, b"\0\xa0"))[0, :, 0].tolist() == [255, 0, 255]
    cyan = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    for name in ("JPEG", "TIFF"):
        red, green, blue = decode(save(cyan, name))[8, 8].tolist()
        assert red < 10
        assert min(green, blue) > 245


@pytest.mark.parametrize("name", ["GIF", "PNG", "WEBP", "TIFF", "MPO"])
def test_animations_and_pages_give_their_first(name: str) -> None:
    frames = [Image.new("RGB", (20, 10), colour) for colour in ("red", "lime", "blue")]
    data = save(frames[0], name, save_all=True, append_images=frames[1:])
    assert decode(data)[5, 10].argmax() == 0
    assert decode(data)[5, 10].max() > 250
    assert read_header(data).format == ("JPEG" if name == "MPO" else name)


def test_wide_strips_join() -> None:
    """Pictures of several strips are converted strip by strip."""
    grey = np.random.default_rng(0).integers(0, 65536, (700, 1000), np.uint16)
    expected = (grey.astype(np.uint32) * 255 + 32767) // 65535
    assert (decode(save(Image.fromarray(grey), "TIFF"))[..., 1] == expected).all()


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


def noisy(name: str, **options: Any) -> bytes:
    pixels = np.random.default_rng(1).integers(0, 256, (64, 80, 3), np.uint8)
    return save(Image.fromarray(pixels), name, **options)


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


def naive_bicubic(line: NDArray[np.float64], low: float, high: float, size: int) -> NDArray[np.float64]:
    """Keys' kernel (a = -0.5), widened by the scale when shrinking, over the samples of one line."""
    step = (high - low) / size
    reach = max(step, 1.0)
    out = np.zeros((size, *line.shape[1:]))
    for i in range(size):
        centre = low + (i + 0.5) * step
        total = 0.0
        for j in range(len(line)):
            t = abs(j + 0.5 - centre) / reach
            if t < 1:
                weight = 1.5 * t**3 - 2.5 * t**2 + 1
            elif t < 2:
                weight = -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
            else:
                continue
            out[i] += weight * line[j]
            total += weight
        out[i] /= total
    return out


@pytest.mark.parametrize(("mode", "fraction"), [("squash", 1.0), ("crop", 1.0), ("crop", 0.875)])
@pytest.mark.parametrize("shape", [(40, 64), (64, 40), (9, 9)])
def test_fit_is_antialiased_bicubic(mode: str, fraction: float, shape: tuple[int, int]) -> None:
    image = np.random.default_rng(3).integers(0, 256, (*shape, 3), np.uint8)
    fitted, g = fit(image, 16, mode=mode, crop_fraction=fraction)
    assert fitted.shape == (16, 16, 3)
    across = naive_bicubic(image.astype(float).swapaxes(0, 1), g.x, g.x + g.width, 16)
    across = np.clip(np.rint(across), 0, 255)  # as Pillow rounds between its passes
    expected = naive_bicubic(across.swapaxes(0, 1), g.y, g.y + g.height, 16)
    assert np.abs(np.clip(expected, 0, 255) - fitted).max() <= 1.5


@pytest.mark.parametrize("mode", ["squash", "crop"])
@pytest.mark.parametrize(
    "data",
    [
        save(photo(), "JPEG", exif=orientation(6)),
        save(photo(), "PNG"),
        save(photo(), "PNG", transparency=(10, 20, 30)),
        save(photo().convert("RGBA"), "WEBP"),
        save(photo().convert("P"), "GIF"),
        save(photo().convert("CMYK"), "TIFF"),
        png(4, 1, 16, 0, b"\0" + bytes(range(8))),
    ],
)
def test_a_picture_is_what_decode_gives(data: bytes, mode: str) -> None:
    array, pillow = decode(data), decode_pillow(data)
    assert pillow.mode == "RGB"
    assert (np.asarray(pillow) == array).all()
    fitted, geometry = fit(pillow, 24, mode=mode)
    expected, same = fit(array, 24, mode=mode)
    assert (fitted == expected).all()
    assert geometry == same


def test_crop_takes_the_centre_of_the_scaled_picture() -> None:
    image = np.asarray(photo(300, 200))
    fitted, geometry = fit(image, 112, mode="crop", crop_fraction=0.875)
    # 112 / 0.875 = 128: the picture becomes 192 x 128, the cut starts at (40, 8).
    whole = np.asarray(Image.fromarray(image).resize((192, 128), Image.Resampling.BICUBIC))
    assert np.abs(whole[8:120, 40:152].astype(int) - fitted).max() <= 1
    assert (geometry.x, geometry.y) == (62.5, 12.5)
    assert (geometry.width, geometry.height) == (175, 175)


def test_fit_of_extreme_shapes_stays_small() -> None:
    for shape in ((1, 50_000, 3), (50_000, 1, 3), (1, 1, 3)):
        fitted, _ = fit(np.full(shape, 77, np.uint8), 224, mode="crop")
        assert (fitted == 77).all()


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"mode": "stretch"}, "mode"),
        ({"mode": "crop", "crop_fraction": 0.0}, "crop_fraction"),
        ({"mode": "crop", "crop_fraction": 1.1}, "crop_fraction"),
        ({"size": 0}, "size"),
    ],
)
def test_fit_refuses(options: dict[str, Any], field: str) -> None:
    with pytest.raises(OptionInvalid) as caught:
        fit(np.zeros((4, 4, 3), np.uint8), **({"size": 8} | options))
    assert caught.value.field == field


@given(
    st.integers(1, 300),
    st.integers(1, 300),
    st.integers(1, 99),
    st.sampled_from(["squash", "crop"]),
    st.floats(0.1, 1),
    st.data(),
)
def test_geometry_maps_both_ways(
    width: int, height: int, size: int, mode: str, fraction: float, data: st.DataObject
) -> None:
    _, g = fit(np.zeros((height, width, 3), np.uint8), size, mode=mode, crop_fraction=fraction)
    assert -1e-6 <= g.x <= g.x + g.width <= width + 1e-6
    assert -1e-6 <= g.y <= g.y + g.height <= height + 1e-6
    unit = st.floats(0, 1)
    box = np.sort(np.array([[data.draw(unit) for _ in range(2)] for _ in range(2)]), 0).reshape(1, 4)
    inside = box * size
    np.testing.assert_allclose(g.to_input(g.to_image(inside)), inside, atol=1e-6 * size)
    seen = g.to_input(box * [width, height, width, height])
    assert (seen >= 0).all()
    assert (seen <= size).all()
    assert (seen[:, 2:] >= seen[:, :2]).all()


def test_geometry_by_hand() -> None:
    g = Geometry(100, 50, 400, 200, 100)
    boxes = [[100, 50, 500, 250], [200, 100, 300, 150], [0, 0, 50, 40], [0, 0, 1000, 1000]]
    assert g.to_input(boxes).tolist() == [[0, 0, 100, 100], [25, 25, 50, 50], [0, 0, 0, 0], [0, 0, 100, 100]]
    assert g.to_image([[0, 0, 100, 100], [25, 25, 50, 50]]).tolist() == boxes[:2]
    assert g.to_input(np.zeros((0, 4))).shape == (0, 4)


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3), (5, 7, 4)])
def test_png(shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    data = encode_png(array)
    assert data == encode_png(array)
    assert (np.asarray(Image.open(io.BytesIO(data))) == array).all()
