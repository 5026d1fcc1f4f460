"""Pictures in and out: safe decoding and the one resize.

Pillow does the work; everything it raises becomes `ImageRejected` with a sentence for the caller.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    ImageOps,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from saaa.errors import ImageRejected
from saaa.geometry import Geometry, covered
from saaa.image_traps import find_trap, jpeg_process, png_exif

__all__ = [
    "MAX_IMAGE_BYTES",
    "MAX_IMAGE_PIXELS",
    "Geometry",
    "ImageHeader",
    "ImageRejected",
    "covered",
    "decode",
    "decode_pillow",
    "encode_png",
    "fit",
    "keep_buffers",
    "read_header",
    "take",
]

MAX_IMAGE_BYTES = 20 * 2**20
"""The largest encoded image in bytes, unless a caller says otherwise."""
MAX_IMAGE_PIXELS = 2**30 // 12
"""The largest image in pixels: a quarter GiB as RGB, the size from which Pillow warns of a bomb. Decoding
takes 7 to 16 bytes a pixel at its peak, by format."""

# Naming the plugins' classes registers just these formats, where Image.open alone would load every plugin.
_FORMATS = tuple(
    plugin.format
    for plugin in (
        JpegImagePlugin.JpegImageFile,
        PngImagePlugin.PngImageFile,
        WebPImagePlugin.WebPImageFile,
        GifImagePlugin.GifImageFile,
        BmpImagePlugin.BmpImageFile,
        TiffImagePlugin.TiffImageFile,
    )
)
_STRIP = 2**18
"""Pixels converted at a time, so that wide intermediate modes do not multiply the memory."""
_PLAIN_JPEG = (0xC0, 0xC1, 0xC2)
"""JPEG's processes with Huffman codes: baseline, extended, progressive."""

# Pillow warns of each damaged tag of a caller's file, and logs other faults; one file could fill a log. What is too
# large is refused here.
for _category in (UserWarning, Image.DecompressionBombWarning):
    warnings.filterwarnings("ignore", category=_category, module=r"PIL\.")
logging.getLogger("PIL").setLevel(logging.CRITICAL)


@dataclass(frozen=True, kw_only=True)
class ImageHeader:
    """What an image says of itself before it is decoded."""

    format: str
    """JPEG, PNG, WEBP, GIF, BMP or TIFF."""
    width: int
    """Of the upright image in pixels."""
    height: int
    """Of the upright image in pixels."""
    orientation: int = 1
    """EXIF's, 1 to 8, by which the stored picture is turned upright; 1 also where nothing tells."""
    plain_jpeg: bool = False
    """Whether it is a JPEG in grey or colour, baseline or progressive: one that `decode_pillow` can decode at a reduced
    scale."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the upright image in pixels."""
        return self.width, self.height


def decode(data: bytes, *, max_pixels: int = MAX_IMAGE_PIXELS, max_bytes: int = MAX_IMAGE_BYTES) -> NDArray[np.uint8]:
    """Decodes an image: JPEG (also the first picture of an MPO), PNG, WebP, GIF, BMP or TIFF, first frame or
    page.

    The image is turned upright by its EXIF orientation. Transparent parts are laid over white. Grey values
    of 9 to 16 bits are scaled to 8; values without a fixed white (32-bit and float) are stretched from their
    least to their greatest. Colour profiles are ignored.

    Args:
        data: the file's bytes.
        max_pixels: refuse larger images by their header, before they are decoded.
        max_bytes: refuse larger files.

    Returns:
        (height, width, 3), uint8, RGB, upright, writable.

    Raises:
        ImageRejected: the bytes are no such image, or damaged, cut off or too large.
    """
    made = _decoded(data, 1, max_pixels, max_bytes)
    return np.array(made) if isinstance(made, Image.Image) else made


def decode_pillow(
    data: bytes, *, scale: int = 1, max_pixels: int = MAX_IMAGE_PIXELS, max_bytes: int = MAX_IMAGE_BYTES
) -> Image.Image:
    """As `decode`, as a Pillow image in mode RGB: for `fit`, which then has nothing to copy.

    Args:
        data: the file's bytes.
        scale: 2, 4 or 8 decodes a JPEG whose header says `plain_jpeg` at a half, a quarter or an eighth of its size, by
            an inverse DCT of fewer points: an image of ceil(stored width / scale) by ceil(stored height / scale) pixels
            before it is turned upright, each of them scale x scale stored ones, the last ones reaching beyond the edge.
        max_pixels, max_bytes: as for `decode`; of the image at full size.

    Raises:
        ImageRejected: as `decode`.
    """
    made = _decoded(data, scale, max_pixels, max_bytes)
    return made if isinstance(made, Image.Image) else Image.fromarray(made)


def read_header(data: bytes, *, max_pixels: int = MAX_IMAGE_PIXELS, max_bytes: int = MAX_IMAGE_BYTES) -> ImageHeader:
    """Reads format and upright size without decoding; what it accepts may still turn out damaged.

    Raises:
        ImageRejected: as `decode`, as far as the header tells.
    """
    with _opened(data, max_pixels, max_bytes) as (image, name):
        width, height = image.size
        orientation = 1
        # Pillow gives TIFF sizes upright already.
        if name != "TIFF":
            if name == "PNG" and "exif" not in image.info and (exif := png_exif(data)):
                image.info["exif"] = exif
            # Not image.getexif(): for PNG that decodes the picture to look for EXIF behind it.
            told = Image.Image.getexif(image).get(0x0112)
            orientation = next((turned for turned in range(2, 9) if turned == told), 1)
            if orientation > 4:
                width, height = height, width
        plain = name == "JPEG" and image.mode in ("L", "RGB") and jpeg_process(data) in _PLAIN_JPEG
        return ImageHeader(format=name, width=width, height=height, orientation=orientation, plain_jpeg=plain)


def fit(
    image: NDArray[np.uint8] | Image.Image, size: int, *, mode: str = "squash", crop_fraction: float = 1.0
) -> tuple[NDArray[np.uint8], Geometry]:
    """Resizes an image to a model's input, bicubic and antialiased: the one resize of training, facade and
    handler.

    Args:
        image: (H, W, 3), uint8, or a Pillow image in mode RGB.
        size: width and height of the input in pixels, at least 1.
        mode: "squash" scales both sides to `size`; "crop" scales the shorter side to round(size /
            crop_fraction) and takes the centre.
        crop_fraction: for "crop", in (0, 1].

    Returns:
        The input, (size, size, 3) uint8, writable, and the part of the image that it covers.

    Raises:
        OptionInvalid: an unknown mode, a size below 1, a crop fraction outside its range.
    """
    whole = image if isinstance(image, Image.Image) else Image.fromarray(image)
    geometry = covered(*whole.size, size, mode=mode, crop_fraction=crop_fraction)
    return np.array(take(whole, geometry)), geometry


def take(
    image: Image.Image, geometry: Geometry, *, scale: int = 1, offset: tuple[int, int] = (0, 0)
) -> NDArray[np.uint8]:
    """Resizes a part of an image, bicubic and antialiased.

    Args:
        image: in mode RGB, each pixel of it scale x scale ones of those in which `geometry` counts.
        geometry: which part.
        scale: at least 1.
        offset: how far the image reaches beyond those pixels, at its left and at its top, in 0 to scale - 1 of them.

    Returns:
        (size, size, 3), uint8, read-only; size as the geometry says.
    """
    left, top = geometry.x + offset[0], geometry.y + offset[1]
    # Pillow's box takes filter support from outside the box, so this equals resizing the whole and cutting
    # the centre out, without ever making a picture that is much longer than wide.
    box = (
        left / scale,
        top / scale,
        min((left + geometry.width) / scale, image.width),
        min((top + geometry.height) / scale, image.height),
    )
    return np.asarray(image.resize((geometry.size, geometry.size), Image.Resampling.BICUBIC, box=box))


def keep_buffers(blocks: int) -> None:
    """Lets Pillow keep so many freed blocks of 16 MiB for the next images, where the environment does not say how many
    (PILLOW_BLOCKS_MAX): the system gives and takes back the memory of large images page by page otherwise."""
    if "PILLOW_BLOCKS_MAX" not in os.environ:
        Image.core.set_blocks_max(blocks)  # type: ignore[attr-defined]


def encode_png(array: NDArray[np.uint8]) -> bytes:
    """Encodes (H, W), (H, W, 3) or (H, W, 4) uint8 as PNG; the same array gives the same bytes."""
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def _decoded(data: bytes, scale: int, max_pixels: int, max_bytes: int) -> Image.Image | NDArray[np.uint8]:
    """What `decode` promises, as whatever it is already; most files are RGB, and need no conversion."""
    with _opened(data, max_pixels, max_bytes) as (image, _):
        if scale > 1:
            image.draft(None, (max(1, image.width // scale), max(1, image.height // scale)))
        image.load()
        _check_pixels(image.size, max_pixels)
        bits = _grey_bits(image)
        ImageOps.exif_transpose(image, in_place=True)
        if image.mode == "RGB" and not image.has_transparency_data:
            return image
        return _to_rgb(image, bits)


@contextlib.contextmanager
def _opened(data: bytes, max_pixels: int, max_bytes: int) -> Iterator[tuple[Image.Image, str]]:
    """The image, opened by its header, and its format; what Pillow raises meanwhile becomes `ImageRejected`."""
    if not isinstance(data, bytes | bytearray | memoryview):
        raise ImageRejected("give the image as bytes, the content of an image file")
    if len(data) == 0:
        raise ImageRejected("the image is empty; send the content of an image file")
    if len(data) > max_bytes:
        raise ImageRejected(f"the image has {len(data)} bytes; send at most {max_bytes}")
    data = bytes(data)
    if trap := find_trap(data):
        raise ImageRejected(trap)
    # Somebody else in the process may have asked Pillow to accept cut-off files; here they are refused.
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    name = ""
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            name = "JPEG" if image.format == "MPO" else image.format or ""
            _check_pixels(image.size, max_pixels)
            yield image, name
    except ImageRejected:
        raise
    except Exception as error:
        # Pillow and the libraries below it raise nearly every exception type on damaged files.
        raise ImageRejected(_reason(error, name, max_pixels)) from None


def _reason(error: Exception, name: str, max_pixels: int) -> str:
    """Pillow's texts are meant for programmers; its exception's type says enough for the caller."""
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return f"the image is too large; send at most {max_pixels} pixels"
    if isinstance(error, MemoryError):
        return "the image needs too much memory; send a smaller one"
    if not name:
        return (
            "the bytes are not a picture in an accepted format, or its header is damaged; "
            "send JPEG, PNG, WebP, GIF, BMP or TIFF"
        )
    what = "is cut off" if "truncated" in str(error) or isinstance(error, EOFError) else "is damaged"
    return f"the {name} data {what}; send the complete file"


def _check_pixels(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise ImageRejected("the image has no pixels; send one with at least 1 x 1")
    if width * height > max_pixels:
        raise ImageRejected(f"the image has {width} x {height} pixels; send at most {max_pixels} pixels")


def _grey_bits(image: Image.Image) -> int:
    """Significant bits of a 16-bit grey image: a TIFF may hold fewer."""
    tags: Any = getattr(image, "tag_v2", {})
    bits = tags.get(258, (16,))[0]
    return int(bits) if 8 < bits < 16 else 16


def _to_rgb(image: Image.Image, bits: int) -> NDArray[np.uint8]:
    width, height = image.size
    rows = max(1, _STRIP // width)
    white = None if image.mode not in ("I", "F") else _range(image)
    rgb: NDArray[np.uint8] = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, rows):
        strip = image if rows >= height else image.crop((0, top, width, min(top + rows, height)))
        rgb[top : top + rows] = _strip_to_rgb(strip, bits, white)
    return rgb


def _strip_to_rgb(strip: Image.Image, bits: int, white: tuple[float, float] | None) -> NDArray[Any]:
    if strip.mode.startswith("I;16"):
        values = np.asarray(strip).astype(np.uint32)
        top = 2**bits - 1
        grey = (np.minimum(values, top) * 255 + top // 2) // top
        transparent = strip.info.get("transparency")
        if isinstance(transparent, int):
            grey[values == transparent] = 255
        return np.asarray(grey[..., None])
    if white is not None:
        low, high = white
        values64 = np.nan_to_num(np.asarray(strip, np.float64), nan=low, posinf=high, neginf=low)
        return np.rint((values64 - low) / max(high - low, 1e-300) * 255)[..., None]
    if strip.has_transparency_data:
        alpha = strip.convert("RGBA")
        page = Image.new("RGB", strip.size, "white")
        page.paste(alpha, mask=alpha.getchannel("A"))
        return np.asarray(page)
    return np.asarray(strip if strip.mode == "RGB" else strip.convert("RGB"))


def _range(image: Image.Image) -> tuple[float, float]:
    values = np.asarray(image)
    finite = values[np.isfinite(values)]
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
