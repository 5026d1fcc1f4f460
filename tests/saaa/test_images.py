"""Decoding: every picture kind by hand."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from saaa.images import decode, encode_png, read_header
from tests.saaa.pictures import chunk, orientation, photo, png, save


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


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3), (5, 7, 4)])
def test_png(shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    data = encode_png(array)
    assert data == encode_png(array)
    assert (np.asarray(Image.open(io.BytesIO(data))) == array).all()
