"""The empty room: wall, floor, skirting board, patterns; and the light and noise over the finished picture."""

from __future__ import annotations

from functools import lru_cache
from random import Random

import numpy as np
from PIL import Image, ImageDraw

from training.scenes.palette import Rgb, clip, dark, light
from training.scenes.scene import Room

WALL_PATTERNS = ("plain", "stripes", "dots", "tiles", "panels", "diamonds")
FLOOR_PATTERNS = ("plain", "planks", "tiles", "checks")
SUPERSAMPLING = 2

WALLS: tuple[Rgb, ...] = (
    (226, 214, 190), (190, 208, 218), (204, 216, 188), (232, 200, 186), (214, 204, 222), (236, 228, 206),
    (176, 196, 190), (196, 188, 180), (168, 182, 206), (92, 158, 160), (222, 176, 96), (212, 138, 118),
    (112, 132, 176), (136, 160, 110), (176, 134, 168),
)  # fmt: skip
WALL_COLOURS = (
    "beige", "blue", "green", "pink", "purple", "cream", "green", "gray", "blue", "teal", "yellow", "orange", "blue",
    "green", "purple",
)  # fmt: skip
"""What people may call each of `WALLS`."""
FLOORS: tuple[Rgb, ...] = (
    (176, 138, 98), (148, 108, 76), (190, 182, 170), (134, 138, 146), (206, 186, 152), (120, 128, 112),
    (164, 122, 112), (208, 204, 196), (110, 92, 84), (150, 160, 176),
)  # fmt: skip


def sample_room(rng: Random) -> Room:
    """A random room; nothing in it depends on the class."""

    def vary(rgb: Rgb) -> Rgb:
        return clip(tuple(channel + rng.uniform(-14, 14) for channel in rgb))

    warmth = rng.uniform(-0.06, 0.06)
    return Room(
        wall=vary(rng.choice(WALLS)),
        floor=vary(rng.choice(FLOORS)),
        wall_pattern=rng.choice(WALL_PATTERNS),
        floor_pattern=rng.choice(FLOOR_PATTERNS),
        horizon=rng.uniform(0.52, 0.6),
        light=rng.uniform(0.92, 1.08),
        falloff=rng.uniform(0.05, 0.32),
        light_x=rng.random(),
        tint=(1 + warmth, 1 + rng.uniform(-0.02, 0.02), 1 - warmth),
        noise=rng.uniform(1.5, 5.0),
        seed=rng.getrandbits(48),
    )


@lru_cache(maxsize=2)
def draw_room(room: Room, size: int) -> Image.Image:
    """The empty room as an RGB picture of `size` x `size` pixels; it is kept, so copy it before drawing on it."""
    rng = Random(room.seed)
    full = size * SUPERSAMPLING
    horizon = round(room.horizon * full)
    picture = Image.new("RGB", (full, full), room.wall)
    draw = ImageDraw.Draw(picture)
    _draw_wall(draw, room, full, horizon, rng)
    draw.rectangle([0, horizon, full, full], fill=room.floor)
    _draw_floor(draw, room, full, horizon, rng)
    skirting = light(room.wall, 0.5) if rng.random() < 0.6 else dark(room.wall, 0.45)
    draw.rectangle([0, horizon - full // 45, full, horizon], fill=skirting)
    draw.line([(0, horizon + 1), (full, horizon + 1)], fill=dark(room.floor, 0.4), width=2)
    return picture.reduce(SUPERSAMPLING)


def _draw_wall(draw: ImageDraw.ImageDraw, room: Room, full: int, horizon: int, rng: Random) -> None:
    other = light(room.wall, 0.3) if rng.random() < 0.5 else dark(room.wall, 0.12)
    step = rng.randint(full // 14, full // 8)
    shift = rng.randrange(step)
    if room.wall_pattern == "stripes":
        for x in range(-shift, full, step):
            draw.rectangle([x, 0, x + step // 2, horizon], fill=other)
    elif room.wall_pattern == "dots":
        radius = step // 6
        for row, y in enumerate(range(0, horizon, step)):
            for x in range((row % 2) * step // 2 - shift, full, step):
                draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=other)
    elif room.wall_pattern == "tiles":
        for x in range(-shift, full, step):
            draw.line([(x, 0), (x, horizon)], fill=other, width=2)
        for y in range(horizon, 0, -step):
            draw.line([(0, y), (full, y)], fill=other, width=2)
    elif room.wall_pattern == "panels":
        top = horizon - rng.randint(full // 7, full // 5)
        draw.rectangle([0, top, full, horizon], fill=other)
        for x in range(-shift, full, step):
            draw.line([(x, top), (x, horizon)], fill=dark(other, 0.2), width=2)
        draw.rectangle([0, top - full // 60, full, top], fill=light(other, 0.4))
    elif room.wall_pattern == "diamonds":
        for x in range(-horizon - shift, full + horizon, step):
            draw.line([(x, 0), (x + horizon, horizon)], fill=other, width=2)
            draw.line([(x, horizon), (x + horizon, 0)], fill=other, width=2)


def _draw_floor(draw: ImageDraw.ImageDraw, room: Room, full: int, horizon: int, rng: Random) -> None:
    other = dark(room.floor, 0.16) if rng.random() < 0.6 else light(room.floor, 0.22)
    centre = full * rng.uniform(0.35, 0.65)
    rows = [horizon + (full - horizon) * (k / 6) ** 1.5 for k in range(7)]
    step = full / rng.randint(7, 10)

    def at(k: float, y: float) -> tuple[float, float]:
        spread = 1 + 1.1 * (y - horizon) / (full - horizon)
        return centre + k * step * spread, y

    columns = range(-16, 17)
    if room.floor_pattern == "checks":
        for row in range(6):
            for k in columns:
                if (k + row) % 2:
                    corners = [at(k, rows[row]), at(k + 1, rows[row]), at(k + 1, rows[row + 1]), at(k, rows[row + 1])]
                    draw.polygon(corners, fill=other)
    elif room.floor_pattern == "tiles":
        for y in rows:
            draw.line([(0, y), (full, y)], fill=other, width=2)
        for k in columns:
            draw.line([at(k, horizon), at(k, full)], fill=other, width=2)
    elif room.floor_pattern == "planks":
        for row in range(6):
            draw.line([(0, rows[row]), (full, rows[row])], fill=other, width=2)
            for k in columns:
                if rng.random() < 0.4:
                    draw.line([at(k, rows[row]), at(k, rows[row + 1])], fill=other, width=2)


def light_up(picture: np.ndarray, room: Room) -> np.ndarray:
    """Light, colour cast and noise over a picture (H, W, 3) of levels 0..255; returns uint8.

    Every pixel changes by itself: the light does not depend on the objects, so removing one changes nothing elsewhere.
    """
    factors, noise = _light_and_noise(room, picture.shape[0], picture.shape[1])
    lit = picture * factors
    lit += noise
    np.clip(np.rint(lit, out=lit), 0, 255, out=lit)
    return np.asarray(lit, dtype=np.uint8)


@lru_cache(maxsize=2)
def _light_and_noise(room: Room, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Factors (H, W, 3) and additions (H, W, 1), float32; kept, since verifying the evidence draws a room again."""
    x = np.abs(np.linspace(0, 1, width, dtype=np.float32) - np.float32(room.light_x))
    y = np.linspace(0, 1, height, dtype=np.float32)
    shade = np.float32(room.light) * (1 - np.float32(room.falloff) * (0.7 * x[None, :] + 0.3 * y[:, None]))
    factors = shade[..., None] * np.array(room.tint, dtype=np.float32)
    noise = np.random.default_rng(room.seed).standard_normal((height, width, 1), dtype=np.float32)
    return factors, np.float32(room.noise) * noise
