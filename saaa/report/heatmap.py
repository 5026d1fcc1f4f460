"""A heat map over its picture: image, map and blend beside each other, with a colour bar."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from saaa.client.attributions import Attribution, Region
from saaa.report import colors
from saaa.report.attributions import faithfulness_note, target_note
from saaa.report.text import font, shorten

PANEL = 440
"""Longer side of one panel, pixels."""
_MARGIN, _GAP, _HEADER, _FOOTER, _BAR = 24, 16, 84, 30, 16
_TICK_ROOM = 76
_ROBUST_CELLS = 4096
"""Above so many cells a map is pixel-fine and spiky: its scale then ends at the 99.5th percentile."""
_UNSEEN: colors.Color = (226, 230, 236)


@dataclass(frozen=True)
class Scale:
    """How values become places in a colour table."""

    low: float
    high: float
    signed: bool
    clipped: bool
    """Whether values beyond `low` or `high` exist."""

    @classmethod
    def of(cls, grid: NDArray[np.float32]) -> Scale:
        """The scale for a map: symmetric around 0 when it has real negative values, else least to most."""
        values = np.nan_to_num(grid.astype(np.float64))
        robust = values.size > _ROBUST_CELLS
        reach = float(np.percentile(np.abs(values), 99.5) if robust else np.abs(values).max())
        peak = reach or float(np.abs(values).max())
        if values.min() < -0.01 * peak:
            return cls(-peak, peak, signed=True, clipped=bool(np.abs(values).max() > peak))
        top = float(np.percentile(values, 99.5)) if robust else float(values.max())
        low, top = float(values.min()), top or float(values.max())
        return cls(low, top, signed=False, clipped=bool(values.max() > top))

    @classmethod
    def shared(cls, grids: Sequence[NDArray[np.float32]]) -> Scale:
        """One scale for several maps, at least one, that reaches as far as the scale of each."""
        own = [cls.of(grid) for grid in grids]
        low, high = min(scale.low for scale in own), max(scale.high for scale in own)
        signed = any(scale.signed for scale in own)
        if signed:
            high = max(abs(low), abs(high))
            low = -high
        beyond = any(bool((grid > high).any() or (grid < low).any()) for grid in grids)
        return cls(low, high, signed=signed, clipped=beyond)

    def place(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """`values` as places in [0, 1]; a constant map lies at 0."""
        span = self.high - self.low
        return np.asarray(np.clip((values - self.low) / span, 0, 1)) if span > 0 else np.zeros_like(values)

    @property
    def table(self) -> NDArray[np.float64]:
        return colors.DIVERGING if self.signed else colors.SEQUENTIAL


def spread(grid: NDArray[np.float32], region: Region, size: tuple[int, int], scale: float) -> NDArray[np.float64]:
    """Interpolate a map bilinearly onto the pixels of a picture.

    Args:
        grid: (rows, columns), covering `region` evenly; a value belongs to its cell's centre.
        region: in pixels of the original image.
        size: (width, height) of the picture.
        scale: picture pixels per image pixel.

    Returns:
        (height, width); NaN outside `region`.
    """
    width, height = size
    rows = _weights(grid.shape[0], region.y * scale, region.height * scale, height)
    columns = _weights(grid.shape[1], region.x * scale, region.width * scale, width)
    return np.asarray(rows @ np.nan_to_num(grid.astype(np.float64)) @ columns.T)


def _weights(cells: int, start: float, length: float, pixels: int) -> NDArray[np.float64]:
    """(pixels, cells): the share of each cell in each pixel; rows outside the span are NaN."""
    centres = np.arange(pixels) + 0.5
    places = np.clip((centres - start) / length * cells - 0.5, 0, cells - 1)
    weights: NDArray[np.float64] = np.maximum(0.0, 1 - np.abs(places[:, None] - np.arange(cells)[None, :]))
    weights[(centres < start) | (centres > start + length)] = np.nan
    return weights


def draw_attribution(image: NDArray[np.uint8], attribution: Attribution) -> Image.Image:
    """Draw one attribution.

    Args:
        image: the upright picture, uint8 (height, width, 3) RGB.
        attribution: its map.

    Returns:
        An RGB picture of three panels (image, map, both blended) and a colour bar; the panels' longer side is
        `PANEL` pixels whatever the image's size.
    """
    levels = Scale.of(attribution.grid)
    photo, heat, places, seen = _laid(image, attribution, levels)
    (width, height), scale = photo.size, PANEL / max(image.shape[:2])
    panels = (photo, _map_panel(heat, seen), _blend_panel(photo, heat, places, seen, levels.signed))

    bar_height = max(height, 120)
    total = 2 * _MARGIN + 3 * width + 3 * _GAP + _BAR + _TICK_ROOM
    canvas = Image.new("RGB", (total, _HEADER + bar_height + _FOOTER + _MARGIN), colors.PAPER)
    draw = ImageDraw.Draw(canvas)
    _header(draw, attribution, total)
    rows, columns = attribution.grid.shape
    titles = ("image", f"map, {columns} x {rows} cells", "map on image")
    for i, (panel, title) in enumerate(zip(panels, titles, strict=True)):
        left = _MARGIN + i * (width + _GAP)
        canvas.paste(panel, (left, _HEADER))
        if i:
            _outline(draw, attribution.region, scale, (left, _HEADER), (width, height), seen)
        draw.text((left, _HEADER + height + 7), shorten(title, 15, width), colors.MUTED, font(15))
    _color_bar(canvas, levels, _MARGIN + 3 * (width + _GAP), bar_height)
    return canvas


def draw_overlay(image: NDArray[np.uint8], attribution: Attribution, levels: Scale) -> Image.Image:
    """Draw a map over its picture in the colours of a given scale, so that maps can be compared.

    Args:
        image: the upright picture, uint8 (height, width, 3) RGB.
        attribution: its map.
        levels: the scale.

    Returns:
        An RGB picture whose longer side is `PANEL` pixels.
    """
    photo, heat, places, seen = _laid(image, attribution, levels)
    panel = _blend_panel(photo, heat, places, seen, levels.signed)
    _outline(ImageDraw.Draw(panel), attribution.region, PANEL / max(image.shape[:2]), (0, 0), panel.size, seen)
    return panel


def _laid(
    image: NDArray[np.uint8], attribution: Attribution, levels: Scale
) -> tuple[Image.Image, NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """The picture in a panel's size; there, the map's colours, their places in the table, and what the model saw."""
    scale = PANEL / max(image.shape[:2])
    width, height = (max(1, round(side * scale)) for side in (image.shape[1], image.shape[0]))
    photo = Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS)
    values = spread(attribution.grid, attribution.region, (width, height), scale)
    seen = ~np.isnan(values)
    places = levels.place(np.where(seen, values, levels.low))
    return photo, colors.apply(levels.table, places), places, seen


def _map_panel(heat: NDArray[np.float64], seen: NDArray[np.bool_]) -> Image.Image:
    # Stripes, not a colour: what the model never saw has no value.
    across = np.add.outer(np.arange(seen.shape[0]), np.arange(seen.shape[1])) // 6 % 2
    stripes = np.where(across[..., None] == 0, np.array(_UNSEEN), np.array(colors.PAPER))
    return _picture(np.where(seen[..., None], heat, stripes))


def _blend_panel(
    photo: Image.Image,
    heat: NDArray[np.float64],
    places: NDArray[np.float64],
    seen: NDArray[np.bool_],
    signed: bool,
) -> Image.Image:
    pixels = np.asarray(photo, dtype=np.float64)
    grey = np.asarray(photo.convert("L"), dtype=np.float64)[..., None]
    # Half the photograph's own colour stays: things are recognisable and the map's colours readable.
    base = 0.5 * pixels + 0.5 * grey
    strength = np.abs(2 * places - 1) if signed else places
    opacity = ((0.12 if signed else 0.3) + (0.64 if signed else 0.44) * strength)[..., None]
    blend = base * (1 - opacity) + heat * opacity
    faded = 0.35 * grey + 0.65 * np.array(_UNSEEN)
    return _picture(np.where(seen[..., None], blend, faded))


def _picture(pixels: NDArray[np.float64]) -> Image.Image:
    return Image.fromarray(np.rint(np.clip(pixels, 0, 255)).astype(np.uint8))


def _header(draw: ImageDraw.ImageDraw, attribution: Attribution, total: int) -> None:
    title = shorten(attribution.label, 26, total - 2 * _MARGIN - 120)
    draw.text((_MARGIN, 16), title, colors.INK, font(26))
    after = _MARGIN + int(font(26).getlength(title)) + 14
    draw.text((after, 16), target_note(attribution), colors.MUTED, font(26))
    notes = [f"method {attribution.method}", faithfulness_note(attribution)]
    draw.text((_MARGIN, 52), shorten(" · ".join(notes), 16, total - 2 * _MARGIN), colors.MUTED, font(16))


def _outline(
    draw: ImageDraw.ImageDraw,
    region: Region,
    scale: float,
    origin: tuple[int, int],
    size: tuple[int, int],
    seen: NDArray[np.bool_],
) -> None:
    """Frame the covered region when it is not the whole picture."""
    if seen.all():
        return
    left, top = max(0, region.x * scale), max(0, region.y * scale)
    right = min(size[0], (region.x + region.width) * scale) - 1
    bottom = min(size[1], (region.y + region.height) * scale) - 1
    box = (origin[0] + left, origin[1] + top, origin[0] + max(left, right), origin[1] + max(top, bottom))
    draw.rectangle(box, outline=colors.INK)


def _color_bar(canvas: Image.Image, levels: Scale, left: int, height: int) -> None:
    draw = ImageDraw.Draw(canvas)
    column = colors.apply(levels.table, np.linspace(1, 0, height))
    canvas.paste(_picture(np.repeat(column[:, None], _BAR, axis=1)), (left, _HEADER))
    draw.rectangle((left, _HEADER, left + _BAR - 1, _HEADER + height - 1), outline=colors.HAIRLINE)
    flat = levels.high <= levels.low
    ticks = np.array([levels.low]) if flat else np.linspace(levels.low, levels.high, 5)
    for i, value in enumerate(ticks):
        y = _HEADER + height - 1 - i * (height - 1) / 4
        beyond = levels.clipped and (i == 4 or (levels.signed and i == 0))
        label = ("" if not beyond else ">" if i else "<") + _number(float(value), levels)
        draw.line((left + _BAR, y, left + _BAR + 4, y), colors.MUTED)
        draw.text((left + _BAR + 9, y), label, colors.INK, font(14), anchor="lm")
    words = "for / against" if levels.signed else "relevance"
    draw.text((left, _HEADER - 14), words, colors.MUTED, font(14), anchor="ls")


def _number(value: float, levels: Scale) -> str:
    peak = max(abs(levels.low), abs(levels.high))
    if value == 0 or abs(value) < 1e-9 * peak:
        return "0"
    return f"{value:.3g}" if peak < 1e-2 or peak >= 1e4 else f"{value:.3f}" if peak < 1 else f"{value:.2f}"
