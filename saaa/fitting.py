"""An encoded image on its way to the models: decoded when it is needed, no larger than is needed, each scale once.

A camera's JPEG has many times the pixels of a model's input. libjpeg can decode it at a half, a quarter or an eighth of
its size by an inverse DCT of fewer points, in a part of the time and memory. The pixels differ slightly from those of
the whole picture resized, so a model's archive must allow it: `decode_scales` and `decode_margin` say which scales were
measured to leave its answers as they are (`saaa.runtime.reduction`). What a model sees depends on the image and
its archive alone, never on what else is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image

from saaa.geometry import Geometry, covered
from saaa.images import MAX_IMAGE_BYTES, MAX_IMAGE_PIXELS, ImageHeader, decode_pillow, read_header, take


class Input(Protocol):
    """How a model takes an image: `saaa.work.ModelInfo` says it, and `saaa.models.preprocessing.Preprocessing`."""

    @property
    def input_size(self) -> int:
        """Width and height of the input in pixels."""

    @property
    def resize(self) -> str:
        """A mode of `saaa.images.fit`."""

    @property
    def crop_fraction(self) -> float:
        """For "crop"."""

    @property
    def decode_scales(self) -> tuple[int, ...]:
        """By what JPEGs may be reduced, of `saaa.work.DECODE_SCALES`."""

    @property
    def decode_margin(self) -> float:
        """The least pixels that must be left for each of the input's, along both sides."""


class Picture:
    """An image, still encoded. Not thread-safe.

    Args:
        data: the file's bytes.
        header: as `read_header` gave it; None reads it.
        max_pixels, max_bytes: as for `saaa.images.decode`.

    Raises:
        ImageRejected: as `read_header`.
    """

    def __init__(
        self,
        data: bytes,
        header: ImageHeader | None = None,
        *,
        max_pixels: int = MAX_IMAGE_PIXELS,
        max_bytes: int = MAX_IMAGE_BYTES,
    ) -> None:
        self._data = data
        self._limits = (max_pixels, max_bytes)
        self.header = header or read_header(data, max_pixels=max_pixels, max_bytes=max_bytes)
        self._decoded: dict[int, Image] = {}

    def fit(self, model: Input) -> tuple[NDArray[np.uint8], Geometry]:
        """Make a model's input, as `saaa.images.fit` does, from the smallest scale that the model allows.

        Returns:
            The input, (size, size, 3), uint8, read-only, and the part of the whole upright image that it covers.

        Raises:
            ImageRejected: as `saaa.images.decode`.
            OptionInvalid: as `saaa.images.fit`.
        """
        geometry = covered(*self.header.size, model.input_size, mode=model.resize, crop_fraction=model.crop_fraction)
        scale = allowed_scale(self.header, geometry, model.decode_scales, model.decode_margin)
        image = self._at(scale)
        return take(image, geometry, scale=scale, offset=self._offset(image, scale)), geometry

    def _at(self, scale: int) -> Image:
        if scale not in self._decoded:
            max_pixels, max_bytes = self._limits
            self._decoded[scale] = decode_pillow(self._data, scale=scale, max_pixels=max_pixels, max_bytes=max_bytes)
        return self._decoded[scale]

    def _offset(self, image: Image, scale: int) -> tuple[int, int]:
        """How far a reduced image reaches beyond the whole one at left and top: the stored picture does so at right and
        bottom, which are elsewhere once it is turned upright."""
        header = self.header
        mirrored = header.orientation in (2, 3, 6, 7), header.orientation in (3, 4, 7, 8)
        beyond = image.width * scale - header.width, image.height * scale - header.height
        return beyond[0] * mirrored[0], beyond[1] * mirrored[1]


def allowed_scale(header: ImageHeader, geometry: Geometry, scales: Iterable[int], margin: float) -> int:
    """By what an image is reduced while it is decoded.

    Args:
        header: only plain JPEGs can be reduced.
        geometry: the part of the image that becomes the input.
        scales, margin: as `Input` has them.

    Returns:
        The largest of the scales that leaves the margin; 1 where there is none.
    """
    if not header.plain_jpeg:
        return 1
    spare = min(geometry.width, geometry.height) / (geometry.size * margin)
    return max((scale for scale in scales if scale <= spare), default=1)
