"""How the objects that hang on the wall are drawn (see `pen.Pen`)."""

from __future__ import annotations

import math

from training.scenes.palette import FINISHES, dark, finish_rgb, light
from training.scenes.pen import Look, Pen, box_points, ellipse_points, superellipse_points

WHITE = (246, 245, 240)
INK = (34, 34, 42)
WOOD = FINISHES["wooden"]


def board(pen: Pen, look: Look) -> None:
    black = "black" in look.words
    pen.rect(0.0, 0.0, 1.0, 0.94, WOOD if black else (176, 182, 190))
    pen.rect(0.03, 0.06, 0.97, 0.88, look.colour)
    chalk = (232, 236, 226) if black else finish_rgb(look.rng.choice(("red", "blue", "green")), look.rng)
    for row in range(3):
        y = 0.2 + 0.17 * row
        points = []
        for k in range(14):
            x = 0.1 + 0.03 * k
            points.append((x, y + (0.03 if k % 2 else -0.03) * look.rng.random()))
        pen.line(points[: look.rng.randint(7, 14)], chalk, 1.2)
    kind = look.pick(0, 1, 2)
    if kind == 0:
        pen.line([(0.6, 0.72), (0.75, 0.22), (0.9, 0.72), (0.6, 0.72)], chalk, 1.4)
    elif kind == 1:
        pen.line([(0.6, 0.2), (0.6, 0.72), (0.92, 0.72)], chalk, 1.4)
        pen.line([(0.62, 0.66), (0.72, 0.5), (0.8, 0.56), (0.9, 0.28)], chalk, 1.8)
    else:
        ring = ellipse_points(0.62, 0.22, 0.88, 0.74)
        pen.line([*ring, ring[0]], chalk, 1.4)
    pen.rect(0.06, 0.92, 0.94, 1.0, dark(WOOD, 0.3) if black else (140, 146, 154))
    pen.rect(0.2, 0.88, 0.3, 0.94, (226, 120, 90))


def painting(pen: Pen, look: Look) -> None:
    frame = finish_rgb(look.rng.choice(("golden", "golden", "brown", "red")), look.rng)
    pen.rect(0.0, 0.0, 1.0, 1.0, frame)
    pen.rect(0.05, 0.06, 0.95, 0.94, dark(frame, 0.35))
    pen.rect(0.1, 0.11, 0.9, 0.89, (250, 244, 226))
    if "floral" in look.words:
        pen.rect(0.1, 0.11, 0.9, 0.89, light(finish_rgb(look.rng.choice(("pink", "yellow", "blue")), look.rng), 0.6))
        petals = finish_rgb(look.rng.choice(("red", "purple", "orange", "pink")), look.rng)
        pen.line([(0.5, 0.5), (0.5, 0.86)], (70, 142, 72), 3)
        for k in range(6):
            angle = math.pi * k / 3
            x, y = 0.5 + 0.16 * math.cos(angle), 0.4 + 0.16 * math.sin(angle)
            pen.ellipse(x - 0.11, y - 0.11, x + 0.11, y + 0.11, petals)
        pen.ellipse(0.41, 0.31, 0.59, 0.49, FINISHES["yellow"])
    elif "scenic" in look.words:
        pen.rect(0.1, 0.11, 0.9, 0.89, (150, 200, 236))
        pen.ellipse(0.62, 0.18, 0.8, 0.36, (252, 214, 90))
        pen.poly([(0.1, 0.7), (0.32, 0.3), (0.55, 0.7)], (112, 120, 150))
        pen.poly([(0.4, 0.7), (0.66, 0.4), (0.9, 0.7)], (92, 100, 130))
        pen.rect(0.1, 0.66, 0.9, 0.89, (96, 164, 90))
    else:
        names = ["red", "yellow", "blue", "black", "orange", "green"]
        look.rng.shuffle(names)
        split_x, split_y = look.rng.uniform(0.3, 0.6), look.rng.uniform(0.35, 0.6)
        areas = ((0.1, 0.11, split_x, split_y), (split_x, 0.11, 0.9, split_y), (0.1, split_y, split_x, 0.89))
        for name, area in zip(names, areas, strict=False):
            pen.rect(*area, finish_rgb(name, look.rng))
        pen.ellipse(split_x + 0.03, split_y + 0.02, 0.87, 0.85, finish_rgb(names[3], look.rng))


def window(pen: Pen, look: Look) -> None:
    night = "dark" in look.words
    pen.rect(0.1, 0.06, 0.9, 0.9, WHITE)
    pen.rect(0.15, 0.11, 0.85, 0.86, (34, 44, 88) if night else (148, 206, 244))
    if night:
        pen.ellipse(0.58, 0.18, 0.76, 0.34, (244, 240, 206))
        for x, y in ((0.25, 0.25), (0.35, 0.6), (0.7, 0.65), (0.42, 0.2)):
            pen.ellipse(x - 0.015, y - 0.015, x + 0.015, y + 0.015, WHITE, outline=False)
    else:
        pen.ellipse(0.24, 0.2, 0.48, 0.34, WHITE, outline=False)
        pen.ellipse(0.36, 0.24, 0.6, 0.36, WHITE, outline=False)
        pen.ellipse(0.66, 0.16, 0.8, 0.3, (255, 222, 96), outline=False)
        pen.poly([(0.15, 0.86), (0.15, 0.72), (0.4, 0.64), (0.65, 0.74), (0.85, 0.68), (0.85, 0.86)], (110, 176, 96))
    pen.rect(0.475, 0.08, 0.525, 0.88, WHITE)
    pen.rect(0.12, 0.46, 0.88, 0.51, WHITE)
    curtain = finish_rgb(look.rng.choice(("red", "orange", "green", "blue", "purple", "pink")), look.rng)
    if look.pick(0, 1):
        for x0, x1, fold in ((0.0, 0.22, 0.12), (0.78, 1.0, 0.88)):
            pen.poly([(x0, 0.02), (x1, 0.02), (fold + (x1 - fold) * 0.6, 0.92), (x0, 0.92)], curtain)
            pen.line([(fold, 0.04), (fold, 0.9)], dark(curtain, 0.25), 1.4)
    pen.line([(0.0, 0.03), (1.0, 0.03)], dark(WOOD, 0.4), 3)
    pen.rect(0.04, 0.9, 0.96, 1.0, (222, 222, 216))


def mirror(pen: Pen, look: Look) -> None:
    glass = (196, 220, 232)
    if "square" in look.words:
        outer, inner = box_points(0.0, 0.0, 1.0, 1.0), box_points(0.1, 0.09, 0.9, 0.91)
    else:
        outer, inner = ellipse_points(0.0, 0.0, 1.0, 1.0, 40), ellipse_points(0.1, 0.08, 0.9, 0.92, 40)
    pen.poly(outer, look.colour)
    pen.poly(inner, glass)
    pen.poly([(0.3, 0.6), (0.62, 0.2), (0.72, 0.26), (0.36, 0.72)], WHITE, outline=False)
    pen.poly([(0.44, 0.76), (0.74, 0.38), (0.77, 0.43), (0.5, 0.8)], WHITE, outline=False)


def clock(pen: Pen, look: Look) -> None:
    if "square" in look.words:
        pen.poly(superellipse_points(0.0, 0.0, 1.0, 1.0, 10), look.colour)
        pen.poly(superellipse_points(0.12, 0.12, 0.88, 0.88, 10), WHITE)
    else:
        pen.ellipse(0.0, 0.0, 1.0, 1.0, look.colour)
        pen.ellipse(0.12, 0.12, 0.88, 0.88, WHITE)
    for k in range(12):
        angle = math.pi * k / 6
        cos, sin = math.cos(angle), math.sin(angle)
        pen.line([(0.5 + 0.28 * cos, 0.5 + 0.28 * sin), (0.5 + 0.34 * cos, 0.5 + 0.34 * sin)], INK, 2)
    hour = look.rng.uniform(0, 12)
    for turn, reach, width in ((hour / 12, 0.19, 5.0), (hour % 1, 0.28, 3.5)):
        angle = 2 * math.pi * turn - math.pi / 2
        pen.line([(0.5, 0.5), (0.5 + reach * math.cos(angle), 0.5 + reach * math.sin(angle))], INK, width)


def television(pen: Pen, look: Look) -> None:
    pen.poly([(0.28, 0.9), (0.36, 0.9), (0.3, 1.0), (0.2, 1.0)], look.shade)
    pen.poly([(0.64, 0.9), (0.72, 0.9), (0.8, 1.0), (0.7, 1.0)], look.shade)
    pen.rect(0.0, 0.0, 1.0, 0.92, look.colour)
    pen.rect(0.05, 0.08, 0.95, 0.82, (26, 32, 52))
    show = look.pick(0, 1, 2)
    if show == 0:
        bars = ("white", "yellow", "blue", "green", "pink", "red")
        for k, name in enumerate(bars):
            pen.rect(0.05 + 0.15 * k, 0.08, 0.2 + 0.15 * k, 0.82, FINISHES[name], outline=False)
    elif show == 1:
        pen.rect(0.05, 0.08, 0.95, 0.82, (60, 120, 210))
        pen.poly([(0.38, 0.25), (0.38, 0.65), (0.68, 0.45)], WHITE)
    else:
        pen.poly([(0.05, 0.62), (0.4, 0.08), (0.62, 0.08), (0.1, 0.82), (0.05, 0.82)], (84, 104, 140), outline=False)
        pen.poly([(0.5, 0.82), (0.86, 0.08), (0.93, 0.08), (0.6, 0.82)], (66, 84, 120), outline=False)
    pen.ellipse(0.9, 0.845, 0.935, 0.89, (230, 70, 60), outline=False)
