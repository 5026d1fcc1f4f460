"""How the smaller, movable objects are drawn (see `pen.Pen`)."""

from __future__ import annotations

import math

from training.scenes.palette import FINISHES, dark, finish_rgb, light
from training.scenes.pen import Look, Pen, ellipse_points, superellipse_points

WHITE = (246, 245, 240)
STEEL = (168, 174, 182)
INK = (36, 36, 44)
LEAF = (70, 142, 72)
SOIL = (92, 62, 44)


def lamp(pen: Pen, look: Look) -> None:
    glow = (255, 240, 176)
    if "tall" in look.words:
        pen.line([(0.5, 0.25), (0.5, 0.95)], dark(STEEL), 3)
        pen.ellipse(0.22, 0.92, 0.78, 1.0, dark(STEEL, 0.5))
        pen.body([(0.26, 0.0), (0.74, 0.0), (1.0, 0.3), (0.0, 0.3)], look)
        pen.ellipse(0.06, 0.27, 0.94, 0.33, glow)
    else:
        pen.soft(0.3, 0.52, 0.7, 0.98, look.shade, bulge=2.4)
        pen.rect(0.22, 0.93, 0.78, 1.0, look.shade)
        pen.rect(0.46, 0.44, 0.54, 0.56, STEEL)
        pen.body([(0.26, 0.0), (0.74, 0.0), (1.0, 0.46), (0.0, 0.46)], look)
        pen.ellipse(0.06, 0.42, 0.94, 0.5, glow)


def plant(pen: Pen, look: Look) -> None:
    green = finish_rgb("green", look.rng)
    spiky = "spiky" in look.words
    count = 9 if spiky else 13
    for k in range(count):
        angle = math.pi * (0.08 + 0.84 * k / (count - 1))
        reach = 0.5 if spiky else look.rng.uniform(0.34, 0.46)
        tip = (0.5 + reach * math.cos(angle), 0.62 - 0.62 * math.sin(angle) * look.rng.uniform(0.85, 1.0))
        shade = dark(green, 0.25) if k % 2 else light(green, 0.15)
        if spiky:
            side = 0.055
            pen.poly([(0.5 - side, 0.66), tip, (0.5 + side, 0.66)], shade)
        else:
            pen.line([(0.5, 0.68), tip], dark(LEAF), 1.5)
            x, y, r = max(0.13, min(0.87, tip[0])), max(0.1, tip[1]), look.rng.uniform(0.1, 0.14)
            pen.ellipse(x - r, y - r * 0.75, x + r, y + r * 0.75, shade)
    if not spiky:
        pen.ellipse(0.26, 0.26, 0.74, 0.6, green)
        for x, y in ((0.36, 0.36), (0.56, 0.4), (0.46, 0.5)):
            pen.ellipse(x - 0.09, y - 0.06, x + 0.09, y + 0.06, light(green, 0.2))
    pot = finish_rgb(look.rng.choice(("orange", "white", "blue", "brown", "yellow")), look.rng)
    pen.poly([(0.24, 0.68), (0.76, 0.68), (0.67, 1.0), (0.33, 1.0)], pot)
    pen.rect(0.2, 0.63, 0.8, 0.72, light(pot, 0.2))


def basket(pen: Pen, look: Look) -> None:
    pen.line([*ellipse_points(0.2, 0.02, 0.8, 0.75)[14:28], (0.8, 0.38)], look.shade, 4)
    pen.poly([(0.02, 0.38), (0.98, 0.38), (0.86, 1.0), (0.14, 1.0)], look.colour)
    for row in range(4):
        y = 0.46 + 0.14 * row
        for k in range(8):
            x = 0.12 + 0.1 * k + (0.05 if row % 2 else 0.0)
            pen.rect(x, y, x + 0.05, y + 0.08, look.shade, outline=False)
    pen.soft(0.0, 0.34, 1.0, 0.46, look.tint, bulge=3)


def ball(pen: Pen, look: Look) -> None:
    pen.body(ellipse_points(0.0, 0.0, 1.0, 1.0, 40), look)
    if look.words & {"striped", "dotted"}:
        return
    pen.poly([(0.5, 0.02), (0.68, 0.12), (0.72, 0.5), (0.64, 0.9), (0.5, 0.98), (0.44, 0.5)], WHITE)
    pen.poly([(0.04, 0.36), (0.2, 0.14), (0.3, 0.5), (0.22, 0.84), (0.06, 0.66)], light(look.colour, 0.55))
    pen.ellipse(0.4, 0.02, 0.58, 0.14, light(look.colour, 0.8))


def cat(pen: Pen, look: Look) -> None:
    pen.line([(0.78, 0.88), (0.96, 0.76), (0.93, 0.5), (0.99, 0.36)], look.shade, 6)
    pen.soft(0.3, 0.42, 0.84, 1.0, look.colour, bulge=2.5)
    for x in (0.34, 0.52):
        pen.soft(x, 0.74, x + 0.14, 1.0, look.tint, bulge=3)
    pen.poly([(0.1, 0.28), (0.13, 0.0), (0.32, 0.14)], look.colour)
    pen.poly([(0.62, 0.28), (0.59, 0.0), (0.4, 0.14)], look.colour)
    pen.ellipse(0.06, 0.1, 0.66, 0.6, look.colour)
    for x in (0.23, 0.49):
        pen.ellipse(x - 0.06, 0.26, x + 0.06, 0.38, (236, 220, 90))
        pen.ellipse(x - 0.02, 0.26, x + 0.02, 0.38, INK, outline=False)
    pen.poly([(0.32, 0.41), (0.4, 0.41), (0.36, 0.47)], (232, 132, 140))
    for y in (0.42, 0.5):
        pen.line([(0.02, y), (0.24, 0.45)], light(look.colour, 0.7), 0.7)
        pen.line([(0.7, y), (0.48, 0.45)], light(look.colour, 0.7), 0.7)


def guitar(pen: Pen, look: Look) -> None:
    neck = (92, 60, 40)
    pen.rect(0.44, 0.08, 0.56, 0.6, neck)
    pen.poly([(0.38, 0.0), (0.62, 0.0), (0.57, 0.12), (0.43, 0.12)], dark(neck, 0.3))
    pen.soft(0.1, 0.66, 0.9, 1.0, look.colour, bulge=2.3)
    pen.soft(0.2, 0.48, 0.8, 0.76, look.colour, bulge=2.3)
    pen.soft(0.2, 0.62, 0.8, 0.88, look.colour, bulge=2.0)
    pen.ellipse(0.36, 0.63, 0.64, 0.75, INK)
    pen.rect(0.32, 0.86, 0.68, 0.9, dark(neck, 0.3))
    for x in (0.47, 0.53):
        pen.line([(x, 0.1), (x, 0.88)], (226, 220, 200), 0.7)


def pot(pen: Pen, look: Look) -> None:
    for x0, x1 in ((-0.0, 0.16), (0.84, 1.0)):
        pen.rect(x0, 0.42, x1, 0.54, INK)
    pen.body(superellipse_points(0.1, 0.16, 0.9, 1.0, 6), look)
    pen.rect(0.1, 0.3, 0.9, 0.4, look.tint)
    pen.poly([(0.08, 0.32), (0.2, 0.18), (0.8, 0.18), (0.92, 0.32)], light(STEEL, 0.2))
    pen.ellipse(0.42, 0.0, 0.58, 0.22, INK)
    pen.line([(0.22, 0.5), (0.22, 0.85)], light(look.colour, 0.7), 2)


def laptop(pen: Pen, look: Look) -> None:
    pen.rect(0.12, 0.0, 0.88, 0.68, dark(look.colour, 0.2))
    screen = finish_rgb(look.rng.choice(("blue", "green", "purple", "white")), look.rng)
    screen = light(screen, 0.35)
    pen.rect(0.17, 0.06, 0.83, 0.61, screen)
    for row, width in enumerate((0.5, 0.34, 0.44)):
        y = 0.16 + 0.14 * row
        pen.line([(0.23, y), (0.23 + width * look.rng.uniform(0.7, 1.0), y)], dark(screen, 0.7), 2)
    pen.poly([(0.12, 0.68), (0.88, 0.68), (1.0, 0.92), (0.0, 0.92)], light(look.colour, 0.2))
    pen.poly([(0.18, 0.72), (0.82, 0.72), (0.87, 0.82), (0.13, 0.82)], INK)
    pen.rect(0.0, 0.92, 1.0, 1.0, look.shade)


def bowl(pen: Pen, look: Look) -> None:
    fruits = (("red", 0.28), ("orange", 0.5), ("green", 0.72), ("yellow", 0.4), ("red", 0.61))
    for k, (name, x) in enumerate(fruits):
        y = 0.14 if k > 2 else 0.28
        pen.ellipse(x - 0.13, y - 0.12, x + 0.13, y + 0.24, finish_rgb(name, look.rng))
    pen.body([(0.0, 0.42), (1.0, 0.42), (0.93, 0.66), (0.72, 0.9), (0.28, 0.9), (0.07, 0.66)], look)
    pen.rect(0.3, 0.88, 0.7, 1.0, look.shade)
    pen.rect(0.0, 0.38, 1.0, 0.46, look.tint)


def vase(pen: Pen, look: Look) -> None:
    petals = finish_rgb(look.rng.choice(("red", "yellow", "pink", "purple", "orange")), look.rng)
    for x, y in ((0.2, 0.16), (0.5, 0.1), (0.8, 0.18)):
        pen.line([(0.5, 0.55), (x, y)], LEAF, 2.5)
        for k in range(5):
            angle = 2 * math.pi * k / 5
            px, py = x + 0.1 * math.cos(angle), y + 0.06 * math.sin(angle)
            pen.ellipse(px - 0.09, py - 0.05, px + 0.09, py + 0.05, petals)
        pen.ellipse(x - 0.06, y - 0.035, x + 0.06, y + 0.035, FINISHES["yellow"])
    outline = [
        (0.34, 0.46),
        (0.66, 0.46),
        (0.6, 0.56),
        (0.82, 0.74),
        (0.78, 0.9),
        (0.64, 1.0),
        (0.36, 1.0),
        (0.22, 0.9),
        (0.18, 0.74),
        (0.4, 0.56),
    ]
    pen.body(outline, look)


def teddy(pen: Pen, look: Look) -> None:
    for x0, x1 in ((0.02, 0.32), (0.68, 0.98)):
        pen.ellipse(x0, 0.52, x1, 0.76, look.shade)
        pen.ellipse(x0 + 0.02, 0.78, x1 - 0.02, 1.0, look.shade)
        pen.ellipse(x0 + 0.09, 0.84, x1 - 0.09, 0.96, look.tint)
    pen.ellipse(0.2, 0.44, 0.8, 0.98, look.colour)
    pen.ellipse(0.32, 0.56, 0.68, 0.88, look.tint)
    for x in (0.24, 0.76):
        pen.ellipse(x - 0.14, 0.0, x + 0.14, 0.2, look.colour)
        pen.ellipse(x - 0.07, 0.05, x + 0.07, 0.15, light(look.colour, 0.55))
    pen.ellipse(0.17, 0.06, 0.83, 0.54, look.colour)
    pen.ellipse(0.35, 0.3, 0.65, 0.5, look.tint)
    for x in (0.36, 0.64):
        pen.ellipse(x - 0.045, 0.2, x + 0.045, 0.28, INK, outline=False)
    pen.ellipse(0.44, 0.32, 0.56, 0.4, INK, outline=False)


def pillow(pen: Pen, look: Look) -> None:
    pen.body(
        [
            (0.0, 0.08),
            (0.25, 0.14),
            (0.5, 0.06),
            (0.75, 0.14),
            (1.0, 0.04),
            (0.95, 0.5),
            (1.0, 0.94),
            (0.7, 0.9),
            (0.5, 1.0),
            (0.3, 0.9),
            (0.0, 1.0),
            (0.05, 0.5),
        ],
        look,
    )
    pen.line([(0.12, 0.2), (0.3, 0.34)], look.shade, 1.2)
    pen.line([(0.88, 0.2), (0.7, 0.34)], look.shade, 1.2)
    pen.line([(0.14, 0.84), (0.3, 0.7)], look.shade, 1.2)


def globe(pen: Pen, look: Look) -> None:
    pen.line(ellipse_points(0.0, 0.0, 1.0, 0.84)[0:22], FINISHES["golden"], 3.5)
    pen.rect(0.46, 0.8, 0.54, 0.94, FINISHES["golden"])
    pen.soft(0.2, 0.9, 0.8, 1.0, (110, 72, 46), bulge=3)
    pen.ellipse(0.08, 0.06, 0.92, 0.78, (74, 140, 214))
    land = (104, 176, 88)
    pen.poly([(0.2, 0.26), (0.34, 0.14), (0.48, 0.18), (0.44, 0.34), (0.34, 0.4), (0.3, 0.56), (0.22, 0.44)], land)
    pen.poly([(0.56, 0.28), (0.72, 0.2), (0.84, 0.36), (0.74, 0.42), (0.7, 0.62), (0.58, 0.5)], land)
    pen.ellipse(0.4, 0.62, 0.56, 0.72, land)
