"""A pen that draws one object in unit coordinates on its own transparent, supersampled sprite.

x runs 0..1 from left to right and y 0..1 from top to bottom of the object's nominal box. Flip, shear and taper are
applied to every point, so an object is seen from slightly different sides without any resampling.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from random import Random

import numpy as np
from PIL import Image, ImageDraw

from training.scenes.palette import Rgb, dark, light

SUPERSAMPLING = 3
Point = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Look:
    """How one object appears: its main colour, its attribute words and its own source of variants."""

    colour: Rgb
    words: frozenset[str]
    rng: Random

    @property
    def shade(self) -> Rgb:
        """The darker side of the main colour."""
        return dark(self.colour)

    @property
    def tint(self) -> Rgb:
        """The lighter side of the main colour."""
        return light(self.colour)

    def pick(self, *choices: float) -> float:
        """One of several shape variants."""
        return self.rng.choice(choices)


class Pen:
    """Draws polygons in unit coordinates; every other shape is made of them.

    Args:
        width: nominal width of the object in pixels of the picture.
        height: nominal height in pixels of the picture.
        flip: mirror left and right.
        shear: sideways shift of the top edge, as a fraction of the width.
        taper: how much narrower the top edge is than the bottom edge, as a fraction.
    """

    def __init__(self, width: float, height: float, *, flip: bool, shear: float, taper: float) -> None:
        self.margin = math.ceil(2 + abs(shear) * width)
        self.pixels = (math.ceil(width) + 2 * self.margin, math.ceil(height) + 2 * self.margin)
        self._size = (width, height)
        self._flip, self._shear, self._taper = flip, shear, taper
        full = (self.pixels[0] * SUPERSAMPLING, self.pixels[1] * SUPERSAMPLING)
        self._image = Image.new("RGBA", full, (0, 0, 0, 0))
        self._draw = ImageDraw.Draw(self._image)
        self.line_width = max(1.0, 0.007 * (width + height))

    def _at(self, point: Point) -> Point:
        x, y = point
        if self._flip:
            x = 1.0 - x
        rise = 1.0 - y
        x = 0.5 + (x - 0.5) * (1.0 - self._taper * rise) + self._shear * rise
        return (
            (x * self._size[0] + self.margin) * SUPERSAMPLING,
            (y * self._size[1] + self.margin) * SUPERSAMPLING,
        )

    def poly(self, points: Sequence[Point], fill: Rgb, *, outline: bool = True) -> None:
        """A filled polygon, with a thin darker edge unless told otherwise."""
        placed = [self._at(point) for point in points]
        self._draw.polygon(placed, fill=fill)
        if outline:
            width = round(self.line_width * SUPERSAMPLING * 0.6)
            self._draw.line([*placed, placed[0]], fill=dark(fill, 0.42), width=max(1, width), joint="curve")

    def rect(self, x0: float, y0: float, x1: float, y1: float, fill: Rgb, *, outline: bool = True) -> None:
        """A rectangle."""
        self.poly([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], fill, outline=outline)

    def ellipse(self, x0: float, y0: float, x1: float, y1: float, fill: Rgb, *, outline: bool = True) -> None:
        """An ellipse inscribed in the rectangle."""
        self.poly(ellipse_points(x0, y0, x1, y1), fill, outline=outline)

    def soft(self, x0: float, y0: float, x1: float, y1: float, fill: Rgb, *, bulge: float = 4.0) -> None:
        """A rounded rectangle (superellipse); a larger `bulge` has sharper corners."""
        self.poly(superellipse_points(x0, y0, x1, y1, bulge), fill)

    def line(self, points: Sequence[Point], fill: Rgb, width: float = 1.0) -> None:
        """A polyline `width` times as thick as the object's normal line."""
        pixels = max(1, round(self.line_width * SUPERSAMPLING * width))
        self._draw.line([self._at(point) for point in points], fill=fill, width=pixels, joint="curve")

    def body(self, points: Sequence[Point], look: Look, fill: Rgb | None = None) -> None:
        """A polygon that carries the object's pattern word (striped, dotted, checked) or its wood grain."""
        fill = look.colour if fill is None else fill
        self.poly(points, fill)
        contrast = light(fill, 0.62) if sum(fill) < 480 else dark(fill, 0.45)
        placed = [self._at(point) for point in points]
        xs, ys = [x for x, _ in placed], [y for _, y in placed]
        left, top = math.floor(min(xs)), math.floor(min(ys))
        width, height = math.ceil(max(xs)) - left + 1, math.ceil(max(ys)) - top + 1
        step = max(8, round(min(max(width, height), 150) / look.rng.choice((5, 6, 7))))
        layer = Image.new("L", (width, height), 0)
        draw = ImageDraw.Draw(layer)
        if "striped" in look.words:
            for x in range(-height, width, step):
                slant = height // 3
                draw.line([(x, 0), (x + slant, height)], fill=255, width=max(2, round(step * 0.45)))
        elif "dotted" in look.words:
            radius = step * 0.28
            for row, y in enumerate(range(step // 2, height + step, step)):
                for x in range((row % 2) * step // 2, width + step, step):
                    draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=255)
        elif "wooden" in look.words:
            contrast = dark(fill, 0.18)
            for y in range(step // 3, height, max(4, step // 2)):
                wave = look.rng.randint(-2, 2)
                draw.line([(0, y), (width // 2, y + wave), (width, y)], fill=255, width=2)
        else:
            return
        shape = Image.new("L", (width, height), 0)
        ImageDraw.Draw(shape).polygon([(x - left, y - top) for x, y in placed], fill=255)
        mask = Image.fromarray(np.minimum(np.asarray(layer), np.asarray(shape)))
        self._image.paste(contrast, (left, top), mask)
        edge = max(1, round(self.line_width * SUPERSAMPLING * 0.6))
        self._draw.line([*placed, placed[0]], fill=dark(fill, 0.42), width=edge, joint="curve")

    def sprite(self) -> Image.Image:
        """The drawing at picture resolution, RGBA; its origin lies `margin` pixels outside the nominal box."""
        return self._image.reduce(SUPERSAMPLING)


def ellipse_points(x0: float, y0: float, x1: float, y1: float, count: int = 28) -> list[Point]:
    """Corners of a polygon that stands for an ellipse."""
    return superellipse_points(x0, y0, x1, y1, 2.0, count)


def superellipse_points(x0: float, y0: float, x1: float, y1: float, bulge: float, count: int = 36) -> list[Point]:
    """Corners of a superellipse |x|^n + |y|^n = 1 with n = `bulge`, fitted into the rectangle."""
    return [(x0 + (x1 - x0) * x, y0 + (y1 - y0) * y) for x, y in _unit_superellipse(bulge, count)]


@lru_cache(maxsize=256)
def _unit_superellipse(bulge: float, count: int) -> tuple[Point, ...]:
    points = []
    for k in range(count):
        angle = 2 * math.pi * k / count
        cos, sin = math.cos(angle), math.sin(angle)
        x = math.copysign(abs(cos) ** (2 / bulge), cos)
        y = math.copysign(abs(sin) ** (2 / bulge), sin)
        points.append(((x + 1) / 2, (y + 1) / 2))
    return tuple(points)


def box_points(x0: float, y0: float, x1: float, y1: float) -> list[Point]:
    """Corners of a rectangle."""
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
