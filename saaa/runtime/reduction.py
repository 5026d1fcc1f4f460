"""At archive time: may JPEGs be decoded at a reduced scale? Measured by the gate of `saaa.runtime.parity`.

By what an image is reduced follows from its size, the scales that are allowed, and a margin: how many pixels must be
left for each of the input's. The archive allows the smallest of `MARGINS` at which the model answers as it does at full
size, and with it the scales at which enough images could be measured.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saaa.archive import Archive
from saaa.runtime.base import ClassifierRuntime
from saaa.runtime.parity import Reference, measure

MARGINS = (1.0, 2.0, 4.0)
"""Tried in this order: a smaller one is faster to decode with."""
CARD_KEY = "reduced_decoding"
"""Part of the card."""


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """The same images as a model sees them, decoded in two ways: uint8 (images, S, S, 3) each, at least one image."""

    whole: NDArray[np.uint8]
    reduced: NDArray[np.uint8]


Sample = Callable[[float], Mapping[int, Pairs]]
"""Images for each scale that is chosen with a margin; without those scales for which there are too few."""


def allow_scales(archive: Archive, runtime: ClassifierRuntime, sample: Sample, methods: tuple[str, ...]) -> Archive:
    """Measure, and let the archive's "preprocessing" allow what passed: "decode_scales" and "decode_margin".

    The card's "reduced_decoding" tells what was measured, in order: "margin", "scale", and the figures of `Parity` with
    "refused", null where it passed; and under "refused", why nothing is allowed, null where something is.

    Args:
        archive: of a classifier that decodes at full size.
        runtime: the reference of this archive.
        sample: gives the images.
        methods: the attribution methods whose maps are compared, at least one.
    """
    figures: list[dict[str, Any]] = []
    for margin in MARGINS:
        passed = []
        for scale, pairs in sorted(sample(margin).items()):
            reference = Reference.make(runtime, pairs.whole, methods)
            parity = measure(replace(reference, pixels=pairs.reduced), runtime)
            figures.append({"margin": margin, "scale": scale, **parity.describe()})
            if parity.refusal():
                break
            passed.append(scale)
        else:
            if passed:
                return _with(archive, figures, None, {"decode_scales": passed, "decode_margin": margin})
    return _with(archive, figures, _reason(figures), {})


def _reason(figures: list[dict[str, Any]]) -> str:
    if not figures:
        return "too few validation images are large enough"
    last = figures[-1]
    return f"1/{last['scale']} with {last['margin']:g} pixels for each of the input's: {last['refused']}"


def _with(archive: Archive, figures: list[dict[str, Any]], refused: str | None, allowed: dict[str, Any]) -> Archive:
    return replace(
        archive,
        config={**archive.config, "preprocessing": {**archive.config["preprocessing"], **allowed}},
        card={**archive.card, CARD_KEY: {"measured": figures, "refused": refused}},
    )
