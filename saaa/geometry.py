"""Where the model's input lies in the image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from saaa.errors import OptionInvalid


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


def covered(width: int, height: int, size: int, *, mode: str = "squash", crop_fraction: float = 1.0) -> Geometry:
    """The part that `saaa.images.fit` takes of an image of `width` x `height` pixels; arguments and errors as there."""
    if size < 1:
        raise OptionInvalid("size must be at least 1", field="size")
    if mode == "squash":
        return Geometry(0.0, 0.0, float(width), float(height), size)
    if mode == "crop":
        return _centre(width, height, size, crop_fraction)
    raise OptionInvalid(f'mode is "{mode}"; use "squash" or "crop"', field="mode")


def _centre(width: int, height: int, size: int, crop_fraction: float) -> Geometry:
    if not 0 < crop_fraction <= 1:
        raise OptionInvalid("crop_fraction must be above 0 and at most 1", field="crop_fraction")
    short = round(size / crop_fraction)
    # The longer side is cut to whole pixels, as torchvision's Resize does.
    scaled = [max(short, int(short * side / min(width, height))) for side in (width, height)]
    steps = [side / new for side, new in zip((width, height), scaled, strict=True)]
    x, y = (round((new - size) / 2) * step for new, step in zip(scaled, steps, strict=True))
    return Geometry(x, y, size * steps[0], size * steps[1], size)
