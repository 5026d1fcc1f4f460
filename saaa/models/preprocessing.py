"""How an image becomes a network's input; the same for every model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from saaa.errors import OptionInvalid
from saaa.work import DECODE_SCALES

RESIZE_MODES = ("squash", "crop")
MIN_INPUT_SIZE, MAX_INPUT_SIZE = 16, 1024


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """Size and normalisation of the input.

    Raises:
        OptionInvalid: an option is outside its range.
    """

    input_size: int
    """Width and height of the input in pixels, 16 to 1024."""
    resize: str = "squash"
    """How an image becomes the input: a mode of `saaa.images.fit`."""
    crop_fraction: float = 1.0
    """For "crop": input_size / length of the shorter side after resizing, in (0, 1]."""
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    """Subtracted from each channel of an image in [0, 1]; also what a "neutral" pixel is for attribution."""
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    """Each channel is divided by this; positive."""
    decode_scales: tuple[int, ...] = ()
    """By what JPEGs may be reduced while they are decoded; see `saaa.fitting`."""
    decode_margin: float = 1.0
    """How many pixels must be left for each of the input's then, at least 1."""

    def __post_init__(self) -> None:
        if not MIN_INPUT_SIZE <= self.input_size <= MAX_INPUT_SIZE:
            raise OptionInvalid(
                f"input_size is {self.input_size}; choose {MIN_INPUT_SIZE} to {MAX_INPUT_SIZE} pixels.",
                field="input_size",
            )
        if self.resize not in RESIZE_MODES:
            raise OptionInvalid(f"resize is {self.resize!r}; choose one of {RESIZE_MODES}.", field="resize")
        if not 0 < self.crop_fraction <= 1:
            raise OptionInvalid(
                f"crop_fraction is {self.crop_fraction}; choose a number above 0 and at most 1.",
                field="crop_fraction",
            )
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise OptionInvalid("mean and std need 3 numbers each, and those of std must be positive.", field="std")
        if not set(self.decode_scales) <= set(DECODE_SCALES) or not self.decode_margin >= 1:
            raise OptionInvalid(
                f"decode_scales are {self.decode_scales}, decode_margin is {self.decode_margin}; choose scales of "
                f"{DECODE_SCALES} and a margin of at least 1.",
                field="decode_scales",
            )

    def describe(self) -> dict[str, Any]:
        """The part "preprocessing" of an archive's config.json; `described` reads it."""
        reduced = {"decode_scales": list(self.decode_scales), "decode_margin": self.decode_margin}
        return {
            "input_size": self.input_size,
            "resize": self.resize,
            "crop_fraction": self.crop_fraction,
            "mean": list(self.mean),
            "std": list(self.std),
            **(reduced if self.decode_scales else {}),
        }


def described(part: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `Preprocessing` from what `describe` gave; raises KeyError or TypeError where that is wrong."""
    return {
        "input_size": part["input_size"],
        "resize": part["resize"],
        "crop_fraction": part["crop_fraction"],
        "mean": tuple(part["mean"]),
        "std": tuple(part["std"]),
        # Most archives decode at full size, and say nothing.
        "decode_scales": tuple(part.get("decode_scales", ())),
        "decode_margin": part.get("decode_margin", 1.0),
    }


def check_pixels(pixels: Tensor, size: int) -> None:
    """Take only uint8 pixels of shape (B, size, size, 3), as `saaa.images.fit` makes them.

    Raises:
        OptionInvalid: another shape or type.
    """
    if pixels.dtype != torch.uint8 or pixels.ndim != 4 or tuple(pixels.shape[1:]) != (size, size, 3):
        raise OptionInvalid(
            f"The model takes uint8 pixels of shape (images, {size}, {size}, 3), "
            f"not {pixels.dtype} of shape {tuple(pixels.shape)}.",
            field="pixels",
        )
