"""Named finishes (colours and materials) of the world's objects, and small colour arithmetic on RGB triples 0..255."""

from __future__ import annotations

from random import Random

Rgb = tuple[int, int, int]

FINISHES: dict[str, Rgb] = {
    "red": (204, 52, 48),
    "orange": (238, 138, 44),
    "yellow": (244, 204, 66),
    "green": (82, 156, 84),
    "blue": (58, 104, 190),
    "purple": (132, 84, 170),
    "pink": (238, 150, 176),
    "brown": (128, 84, 52),
    "black": (46, 46, 52),
    "white": (240, 238, 232),
    "gray": (142, 146, 152),
    "wooden": (186, 134, 82),
    "wicker": (206, 164, 104),
    "golden": (214, 172, 70),
}

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white", "gray", "black")
BRIGHT = ("red", "orange", "yellow", "green", "blue", "purple", "pink")


def finish_rgb(name: str, rng: Random) -> Rgb:
    """The base colour of a finish, moved a little (at most 14 levels a channel, and in brightness) by `rng`."""
    lift = rng.uniform(-10, 10)
    return clip(tuple(channel + lift + rng.uniform(-8, 8) for channel in FINISHES[name]))


def clip(rgb: tuple[float, ...]) -> Rgb:
    """Rounds and limits a colour to 0..255."""
    red, green, blue = (max(0, min(255, round(channel))) for channel in rgb)
    return red, green, blue


def mix(a: Rgb, b: Rgb, amount: float) -> Rgb:
    """The colour `amount` (0..1) of the way from `a` to `b`."""
    return clip(tuple(x + (y - x) * amount for x, y in zip(a, b, strict=True)))


def dark(rgb: Rgb, amount: float = 0.3) -> Rgb:
    """A darker shade, still of the same hue."""
    return mix(rgb, (16, 14, 24), amount)


def light(rgb: Rgb, amount: float = 0.3) -> Rgb:
    """A lighter tint of the same hue."""
    return mix(rgb, (255, 255, 250), amount)
