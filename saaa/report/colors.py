"""Colours: two colour maps, a palette for graph objects, and contrast."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Color = tuple[int, int, int]

PAPER: Color = (255, 255, 255)
INK: Color = (27, 31, 38)
MUTED: Color = (96, 104, 116)
HAIRLINE: Color = (215, 220, 227)
RELATION: Color = (74, 85, 104)
"""Relationship nodes and their arrows: no object has this grey."""

# Okabe and Ito (2008), "Color Universal Design": hues that stay apart under every kind of colour blindness.
# Black is left out (it reads as text); the order puts the most different ones first.
OBJECTS: tuple[Color, ...] = (
    (0, 114, 178),
    (230, 159, 0),
    (0, 158, 115),
    (213, 94, 0),
    (204, 121, 167),
    (86, 180, 233),
    (240, 228, 66),
)

# Ten even steps of "inferno" (Smith, van der Walt and Firing, public domain): perceptually uniform.
_INFERNO = (
    "000004",
    "1b0c42",
    "4b0c6b",
    "781c6d",
    "a52c60",
    "cf4446",
    "ed6925",
    "fb9a06",
    "f7d03c",
    "fcffa4",
)
# ColorBrewer's "RdBu" from blue to red: equal steps away from a neutral middle.
_DIVERGING = (
    "053061", "2166ac", "4393c3", "92c5de", "d1e5f0", "f7f7f7",
    "fddbc7", "f4a582", "d6604d", "b2182b", "67001f",
)  # fmt: skip


def _rgb(code: str) -> Color:
    return (int(code[0:2], 16), int(code[2:4], 16), int(code[4:6], 16))


def _table(codes: tuple[str, ...]) -> NDArray[np.float64]:
    anchors = np.array([_rgb(code) for code in codes], dtype=np.float64)
    places = np.linspace(0, len(codes) - 1, 256)
    channels = [np.interp(places, np.arange(len(codes)), anchors[:, c]) for c in range(3)]
    return np.stack(channels, axis=1)


SEQUENTIAL = _table(_INFERNO)
DIVERGING = _table(_DIVERGING)


def apply(table: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Look up `values` (any shape, in [0, 1]) in a colour table; returns RGB, 0 to 255, shape (..., 3)."""
    return np.asarray(table[np.rint(np.clip(values, 0, 1) * (len(table) - 1)).astype(int)])


def mix(color: Color, other: Color, share: float) -> Color:
    """`share` of `other`, the rest `color`."""
    r, g, b = (round(a + (z - a) * share) for a, z in zip(color, other, strict=True))
    return (r, g, b)


def text_on(color: Color) -> Color:
    """Ink or paper, whichever reads better on `color` (WCAG relative luminance)."""
    linear = [((c / 255 + 0.055) / 1.055) ** 2.4 if c > 10 else c / 255 / 12.92 for c in color]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return INK if luminance > 0.22 else PAPER


def css(color: Color) -> str:
    """ "#rrggbb"."""
    return "#{:02x}{:02x}{:02x}".format(*color)
