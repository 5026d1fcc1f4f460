"""Validation images as JPEGs that may be decoded at a reduced scale, for `saaa.runtime.reduction`."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from PIL import Image

from saaa.fitting import Picture, allowed_scale
from saaa.geometry import covered
from saaa.images import ImageHeader, decode, read_header
from saaa.models.classifier import ClassifierConfig
from saaa.runtime.reduction import Pairs
from saaa.work import DECODE_SCALES
from training.egdd.data import Images
from training.egdd.faithfulness import spread_evenly
from training.progress import progress

FEWEST = 20
"""A scale at which fewer images can be measured is not allowed."""
QUALITY = 90
"""Of JPEGs made of other files; their chroma is subsampled, as cameras do."""


class Reducible:
    """Those images of a set that a margin lets be reduced. What is no plain JPEG is made one, at its own size.

    Args:
        images: the set.
        model: says how it takes an image.
        most: images for each scale, at most, spread evenly over the set.
    """

    def __init__(self, images: Images, model: ClassifierConfig, *, most: int) -> None:
        self._images = images
        self._model = model
        self._most = most
        self._headers = [self._header(i) for i in progress(range(len(images)), "find large images", unit="image")]

    def sample(self, margin: float) -> Mapping[int, Pairs]:
        """See `saaa.runtime.reduction.Sample`."""
        fitting: dict[int, list[int]] = {scale: [] for scale in DECODE_SCALES}
        for i, header in enumerate(self._headers):
            if (scale := self._scale(header, margin)) > 1:
                fitting[scale].append(i)
        enough = min(FEWEST, self._most)
        return {scale: self._pairs(found, scale) for scale, found in fitting.items() if len(found) >= enough}

    def _header(self, index: int) -> ImageHeader:
        """As of a plain JPEG."""
        header = read_header(self._images.listing.read(index))
        return ImageHeader(format="JPEG", width=header.width, height=header.height, plain_jpeg=True)

    def _scale(self, header: ImageHeader, margin: float) -> int:
        model = self._model
        geometry = covered(*header.size, model.input_size, mode=model.resize, crop_fraction=model.crop_fraction)
        return allowed_scale(header, geometry, DECODE_SCALES, margin)

    def _pairs(self, found: list[int], scale: int) -> Pairs:
        ways = [replace(self._model, decode_scales=scales, decode_margin=1.0) for scales in ((), (scale,))]
        seen = []
        for place in spread_evenly(len(found), self._most):
            picture = Picture(_as_plain_jpeg(self._images.listing.read(found[place])))
            seen.append([picture.fit(way)[0] for way in ways])
        whole, reduced = map(np.stack, zip(*seen, strict=True))
        return Pairs(whole=whole, reduced=reduced)


def _as_plain_jpeg(data: bytes) -> bytes:
    if read_header(data).plain_jpeg:
        return data
    buffer = io.BytesIO()
    Image.fromarray(decode(data)).save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()
