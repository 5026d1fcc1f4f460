"""Pictures in and out: safe decoding, the one resize, and where the model's input lies in the image.

Pillow does the work; everything it raises becomes `ImageRejected` with a sentence for the caller.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
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

from saaa.errors import ImageRejected, OptionInvalid
from saaa.image_traps import find_trap, png_exif

__all__ = [
    "MAX_IMAGE_BYTES",
    "MAX_IMAGE_PIXELS",
    "Geometry",
    "ImageHeader",
    "ImageRejected",
    "decode",
    "decode_pillow",
    "encode_png",
    "fit",
    "read_header",
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


@dataclass(frozen=True)
class Geometry:
    """The part of the image that a model's input of size x size pixels covers; x, y, width, height in image
    pixels."""

    x: float
    y: float
    width: float
    height: float
    size: int

    def to_input(self, boxes: ArrayLike) -> NDArray[np.float64]:
        """Maps boxes to the input and clips them to it.

        Args:
            boxes: (N, 4), left, top, right, bottom in pixels of the image.

        Returns:
            (N, 4) in pixels of the input, 0 to size; a box outside the covered part has no area.
        """
        low, scale = self._frame()
        return np.clip((np.asarray(boxes, np.float64).reshape(-1, 4) - low) / scale, 0, self.size)

    def to_image(self, boxes: ArrayLike) -> NDArray[np.float64]:
        """Maps boxes (N, 4), left, top, right, bottom in pixels of the input, back to pixels of the image."""
        low, scale = self._frame()
        return np.asarray(boxes, np.float64).reshape(-1, 4) * scale + low

    def _frame(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        scale = np.array([self.width, self.height] * 2) / self.size
        return np.array([self.x, self.y] * 2), scale


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
    made = _decoded(data, max_pixels, max_bytes)
    return np.array(made) if isinstance(made, Image.Image) else made


def decode_pillow(data: bytes, *, max_pixels: int = MAX_IMAGE_PIXELS, max_bytes: int = MAX_IMAGE_BYTES) -> Image.Image:
    """As `decode`, as a Pillow image in mode RGB: for `fit`, which then has nothing to copy."""
    made = _decoded(data, max_pixels, max_bytes)
    return made if isinstance(made, Image.Image) else Image.fromarray(made)


def read_header(data: bytes, *, max_pixels: int = MAX_IMAGE_PIXELS, max_bytes: int = MAX_IMAGE_BYTES) -> ImageHeader:
    """Reads format and upright size without decoding; what it accepts may still turn out damaged.

    Raises:
        ImageRejected: as `decode`, as far as the header tells.
    """
    with _opened(data, max_pixels, max_bytes) as (image, name):
        width, height = image.size
        # Pillow gives TIFF sizes upright already.
        if name != "TIFF":
            if name == "PNG" and "exif" not in image.info and (exif := png_exif(data)):
                image.info["exif"] = exif
            # Not image.getexif(): for PNG that decodes the picture to look for EXIF behind it.
            if Image.Image.getexif(image).get(0x0112) in (5, 6, 7, 8):
                width, height = height, width
        return ImageHeader(format=name, width=width, height=height)


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
        The input, (size, size, 3) uint8, and the part of the image that it covers.

    Raises:
        OptionInvalid: an unknown mode, a size below 1, a crop fraction outside its range.
    """
    whole = image if isinstance(image, Image.Image) else Image.fromarray(image)
    width, height = whole.size
    geometry = covered(width, height, size, mode=mode, crop_fraction=crop_fraction)
    # Pillow's box takes filter support from outside the box, so this equals resizing the whole and cutting
    # the centre out, without ever making a picture that is much longer than wide.
    box = (
        geometry.x,
        geometry.y,
        min(geometry.x + geometry.width, width),
        min(geometry.y + geometry.height, height),
    )
    resized = whole.resize((size, size), Image.Resampling.BICUBIC, box=box)
    return np.array(resized), geometry


def covered(width: int, height: int, size: int, *, mode: str = "squash", crop_fraction: float = 1.0) -> Geometry:
    """The part that `fit` takes of an image of `width` x `height` pixels; arguments and errors as there."""
    if size < 1:
        raise OptionInvalid("size must be at least 1", field="size")
    if mode == "squash":
        return Geometry(0.0, 0.0, float(width), float(height), size)
    if mode == "crop":
        return _centre(width, height, size, crop_fraction)
    raise OptionInvalid(f'mode is "{mode}"; use "squash" or "crop"', field="mode")


def encode_png(array: NDArray[np.uint8]) -> bytes:
    """Encodes (H, W), (H, W, 3) or (H, W, 4) uint8 as PNG; the same array gives the same bytes."""
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def _centre(width: int, height: int, size: int, crop_fraction: float) -> Geometry:
    if not 0 < crop_fraction <= 1:
        raise OptionInvalid("crop_fraction must be above 0 and at most 1", field="crop_fraction")
    short = round(size / crop_fraction)
    # The longer side is cut to whole pixels, as torchvision's Resize does.
    scaled = [max(short, int(short * side / min(width, height))) for side in (width, height)]
    steps = [side / new for side, new in zip((width, height), scaled, strict=True)]
    x, y = (round((new - size) / 2) * step for new, step in zip(scaled, steps, strict=True))
    return Geometry(x, y, size * steps[0], size * steps[1], size)


def _decoded(data: bytes, max_pixels: int, max_bytes: int) -> Image.Image | NDArray[np.uint8]:
    """What `decode` promises, as whatever it is already; most files are RGB, and need no conversion."""
    with _opened(data, max_pixels, max_bytes) as (image, _):
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
