"""How the floor-standing objects are drawn: one function an object kind, in unit coordinates (see `pen.Pen`)."""

from __future__ import annotations

from training.scenes.palette import FINISHES, dark, finish_rgb, light, mix
from training.scenes.pen import Look, Pen, box_points, ellipse_points, superellipse_points

WHITE = (246, 245, 240)
STEEL = (168, 174, 182)
INK = (40, 40, 48)
WOOD = FINISHES["wooden"]
GLASS = (70, 86, 104)


def stove(pen: Pen, look: Look) -> None:
    pen.rect(0.02, 0.0, 0.98, 0.16, look.shade)
    for x in (0.2, 0.4, 0.6, 0.8):
        pen.ellipse(x - 0.05, 0.03, x + 0.05, 0.12, WHITE if sum(look.colour) < 400 else INK)
    pen.body(box_points(0.0, 0.2, 1.0, 1.0), look)
    pen.poly([(0.04, 0.13), (0.96, 0.13), (1.0, 0.25), (0.0, 0.25)], INK)
    for x in (0.24, 0.76):
        pen.ellipse(x - 0.15, 0.14, x + 0.15, 0.235, (196, 70, 48))
        pen.ellipse(x - 0.08, 0.16, x + 0.08, 0.215, INK)
    pen.line([(0.15, 0.36), (0.85, 0.36)], STEEL, 3)
    if look.pick(0, 1):
        pen.rect(0.14, 0.44, 0.86, 0.78, GLASS)
        pen.line([(0.2, 0.72), (0.45, 0.48)], light(GLASS, 0.5), 1.5)
    else:
        pen.soft(0.12, 0.44, 0.88, 0.8, GLASS)
        for y in (0.56, 0.67):
            pen.line([(0.18, y), (0.82, y)], light(GLASS, 0.3))
    pen.rect(0.0, 0.86, 1.0, 0.97, look.shade)


def fridge(pen: Pen, look: Look) -> None:
    pen.rect(0.1, 0.95, 0.25, 1.0, INK)
    pen.rect(0.75, 0.95, 0.9, 1.0, INK)
    pen.body(superellipse_points(0.0, 0.0, 1.0, 0.97, 9), look)
    split = look.pick(0.3, 0.36, 0.62)
    pen.line([(0.0, split), (1.0, split)], look.shade, 2.2)
    pen.line([(0.86, split - 0.18), (0.86, split - 0.04)], dark(STEEL), 3)
    pen.line([(0.86, split + 0.05), (0.86, split + 0.2)], dark(STEEL), 3)
    if look.pick(0, 1):
        pen.rect(0.2, split + 0.07, 0.5, split + 0.22, INK)
        pen.rect(0.26, split + 0.1, 0.44, split + 0.18, (150, 205, 235))
    else:
        for x, y, name in ((0.2, 0.1, "red"), (0.42, 0.16, "yellow"), (0.25, 0.2, "blue")):
            pen.rect(x, split + y, x + 0.14, split + y + 0.07, FINISHES[name])


def bed(pen: Pen, look: Look) -> None:
    frame = WOOD if look.pick(0, 1) else dark(WOOD, 0.45)
    for x in (0.04, 0.9):
        pen.rect(x, 0.75, x + 0.06, 1.0, dark(frame))
    if look.pick(0, 1):
        pen.soft(0.0, 0.0, 0.1, 0.95, frame)
    else:
        pen.rect(0.0, 0.04, 0.09, 0.95, frame)
        pen.ellipse(-0.01, 0.0, 0.1, 0.1, light(frame))
    pen.soft(0.05, 0.4, 0.96, 0.8, WHITE, bulge=8)
    blanket = [(0.38, 0.36), (0.9, 0.37), (0.97, 0.45), (0.97, 0.84), (0.42, 0.84), (0.35, 0.6)]
    pen.body(blanket, look)
    pen.poly([(0.38, 0.36), (0.47, 0.36), (0.5, 0.84), (0.42, 0.84), (0.35, 0.6)], look.tint)
    pen.rect(0.04, 0.8, 0.97, 0.88, frame)
    pen.rect(0.92, 0.3, 1.0, 0.95, frame)


def crib(pen: Pen, look: Look) -> None:
    for x in (0.03, 0.91):
        pen.rect(x, 0.0, x + 0.06, 0.95, look.colour)
        pen.ellipse(x - 0.01, 0.9, x + 0.07, 1.0, INK)
    pen.rect(0.07, 0.5, 0.93, 0.72, WHITE)
    pen.rect(0.07, 0.42, 0.93, 0.56, finish_rgb(look.rng.choice(("pink", "yellow", "blue")), look.rng))
    bars = int(look.pick(6, 7, 8))
    for k in range(bars):
        x = 0.12 + 0.76 * k / (bars - 1)
        pen.rect(x - 0.018, 0.12, x + 0.018, 0.76, look.tint)
    pen.rect(0.0, 0.08, 1.0, 0.17, look.colour)
    pen.rect(0.0, 0.72, 1.0, 0.84, look.colour)


def bathtub(pen: Pen, look: Look) -> None:
    pen.line([(0.9, 0.3), (0.9, 0.04), (0.8, 0.04), (0.8, 0.14)], dark(STEEL, 0.1), 4)
    pen.ellipse(0.86, 0.1, 0.97, 0.2, STEEL)
    for x in (0.14, 0.76):
        pen.poly([(x, 0.84), (x + 0.1, 0.84), (x + 0.07, 1.0), (x + 0.02, 1.0)], FINISHES["golden"])
    pen.body([(0.02, 0.3), (0.98, 0.3), (0.95, 0.6), (0.84, 0.9), (0.16, 0.9), (0.05, 0.6)], look)
    pen.ellipse(0.0, 0.2, 1.0, 0.42, look.tint)
    pen.ellipse(0.06, 0.24, 0.94, 0.39, (150, 208, 230))
    if look.pick(0, 1, 1):
        for k in range(7):
            x, r = 0.16 + 0.1 * k, look.rng.uniform(0.035, 0.06)
            pen.ellipse(x - r, 0.25 - r, x + r, 0.25 + 2 * r, WHITE)


def washer(pen: Pen, look: Look) -> None:
    pen.rect(0.08, 0.95, 0.22, 1.0, INK)
    pen.rect(0.78, 0.95, 0.92, 1.0, INK)
    pen.body(superellipse_points(0.0, 0.0, 1.0, 0.97, 12), look)
    pen.rect(0.03, 0.04, 0.97, 0.2, look.shade)
    pen.rect(0.08, 0.07, 0.4, 0.17, WHITE)
    for x in (0.55, 0.7, 0.85):
        pen.ellipse(x - 0.045, 0.075, x + 0.045, 0.165, STEEL)
    pen.ellipse(0.17, 0.27, 0.83, 0.91, STEEL)
    pen.ellipse(0.25, 0.35, 0.75, 0.83, (62, 96, 132))
    pen.ellipse(0.3, 0.58, 0.7, 0.82, finish_rgb(look.rng.choice(("red", "yellow", "pink", "green")), look.rng))
    pen.ellipse(0.33, 0.4, 0.48, 0.53, (180, 214, 236), outline=False)


def sofa(pen: Pen, look: Look) -> None:
    for x in (0.08, 0.86):
        pen.rect(x, 0.86, x + 0.06, 1.0, dark(WOOD, 0.5))
    bulge = look.pick(5, 9)
    pen.body(superellipse_points(0.08, 0.0, 0.92, 0.7, bulge), look)
    seats = int(look.pick(2, 3))
    for k in range(seats):
        x0, x1 = 0.13 + 0.74 * k / seats, 0.13 + 0.74 * (k + 1) / seats
        pen.soft(x0, 0.46, x1, 0.74, look.tint, bulge=5)
    pen.rect(0.1, 0.7, 0.9, 0.9, look.shade)
    for x0, x1 in ((0.0, 0.17), (0.83, 1.0)):
        pen.body(superellipse_points(x0, 0.3, x1, 0.92, bulge), look)


def table(pen: Pen, look: Look) -> None:
    leg = look.shade
    style = look.pick(0, 1, 2)
    if style == 0:
        for x0, x1 in ((0.05, 0.12), (0.88, 0.95)):
            pen.rect(x0, 0.2, x1, 1.0, leg)
        for x0, x1 in ((0.2, 0.25), (0.75, 0.8)):
            pen.rect(x0, 0.2, x1, 0.84, dark(leg, 0.2))
    elif style == 1:
        for x in (0.14, 0.76):
            pen.poly(
                [
                    (x, 0.2),
                    (x + 0.1, 0.2),
                    (x + 0.18, 1.0),
                    (x + 0.11, 1.0),
                    (x + 0.05, 0.4),
                    (x - 0.01, 1.0),
                    (x - 0.08, 1.0),
                ],
                leg,
            )
    else:
        for x0, x1, lean in ((0.1, 0.17, -0.06), (0.83, 0.9, 0.06)):
            pen.poly([(x0, 0.2), (x1, 0.2), (x1 + lean, 1.0), (x0 + lean, 1.0)], leg)
        pen.rect(0.1, 0.62, 0.9, 0.68, leg)
    pen.body([(0.08, 0.0), (0.92, 0.0), (1.0, 0.19), (0.0, 0.19)], look)
    pen.rect(0.0, 0.19, 1.0, 0.28, look.shade)


def chair(pen: Pen, look: Look) -> None:
    for x in (0.2, 0.72):
        pen.rect(x, 0.6, x + 0.08, 0.9, look.shade)
    style = look.pick(0, 1)
    if style == 0:
        for x in (0.12, 0.8):
            pen.rect(x, 0.0, x + 0.08, 0.6, look.colour)
        for y in (0.04, 0.2, 0.36):
            pen.rect(0.14, y, 0.86, y + 0.09, look.tint)
    else:
        pen.soft(0.12, 0.0, 0.88, 0.42, look.colour, bulge=4)
        pen.rect(0.24, 0.4, 0.32, 0.6, look.shade)
        pen.rect(0.68, 0.4, 0.76, 0.6, look.shade)
    pen.poly([(0.12, 0.52), (0.88, 0.52), (1.0, 0.64), (0.0, 0.64)], look.colour)
    pen.rect(0.0, 0.64, 1.0, 0.7, look.shade)
    for x in (0.02, 0.88):
        pen.rect(x, 0.7, x + 0.1, 1.0, look.colour)


def piano(pen: Pen, look: Look) -> None:
    pen.rect(0.03, 0.06, 0.97, 0.97, look.colour)
    pen.rect(0.0, 0.0, 1.0, 0.08, look.tint)
    pen.rect(0.3, 0.16, 0.7, 0.4, WHITE)
    for y in (0.22, 0.27, 0.32):
        pen.line([(0.34, y), (0.48, y)], INK)
        pen.line([(0.52, y), (0.66, y)], INK)
    pen.line([(0.5, 0.16), (0.5, 0.4)], INK)
    pen.rect(0.0, 0.44, 1.0, 0.5, look.shade)
    pen.rect(0.02, 0.5, 0.98, 0.63, (252, 252, 248))
    keys = 14
    for k in range(1, keys):
        x = 0.02 + 0.96 * k / keys
        pen.line([(x, 0.5), (x, 0.63)], (110, 110, 116), 0.7)
        if k % 7 not in (3, 0):
            pen.rect(x - 0.02, 0.5, x + 0.02, 0.58, (12, 12, 16), outline=False)
    pen.rect(0.0, 0.63, 1.0, 0.68, look.shade)
    for x in (0.02, 0.9):
        pen.rect(x, 0.68, x + 0.08, 1.0, look.tint)
    for x in (0.42, 0.5, 0.58):
        pen.rect(x - 0.02, 0.9, x + 0.02, 0.97, FINISHES["golden"])


def easel(pen: Pen, look: Look) -> None:
    pen.line([(0.5, 0.02), (0.5, 0.86)], look.shade, 4)
    pen.line([(0.46, 0.02), (0.08, 1.0)], look.colour, 6)
    pen.line([(0.54, 0.02), (0.92, 1.0)], look.colour, 6)
    pen.rect(0.4, 0.0, 0.6, 0.05, look.colour)
    pen.rect(0.1, 0.64, 0.9, 0.71, look.tint)
    pen.line([(0.24, 0.84), (0.76, 0.84)], look.colour, 3)


def bookshelf(pen: Pen, look: Look) -> None:
    pen.body(box_points(0.0, 0.0, 1.0, 1.0), look)
    rows = int(look.pick(3, 4))
    for row in range(rows):
        y0, y1 = 0.05 + 0.92 * row / rows, 0.05 + 0.92 * (row + 1) / rows - 0.04
        pen.rect(0.07, y0, 0.93, y1, dark(look.colour, 0.6))
        x = 0.08
        while x < 0.88:
            width = look.rng.uniform(0.06, 0.12)
            top = y0 + (y1 - y0) * look.rng.uniform(0.08, 0.35)
            if look.rng.random() < 0.88:
                name = look.rng.choice(("red", "orange", "yellow", "green", "blue", "purple", "white", "pink"))
                pen.rect(x, top, min(x + width, 0.92), y1, finish_rgb(name, look.rng))
            x += width


def cabinet(pen: Pen, look: Look) -> None:
    for x in (0.06, 0.84):
        pen.rect(x, 0.9, x + 0.1, 1.0, look.shade)
    pen.body(box_points(0.02, 0.08, 0.98, 0.93), look)
    pen.poly([(0.05, 0.0), (0.95, 0.0), (1.0, 0.1), (0.0, 0.1)], look.tint)
    knob = FINISHES["golden"] if look.pick(0, 1) else INK
    if look.pick(0, 1):
        for row in range(3):
            y = 0.15 + 0.255 * row
            pen.rect(0.08, y, 0.92, y + 0.21, mix(look.colour, look.tint, 0.5))
            for x in (0.3, 0.7):
                pen.ellipse(x - 0.04, y + 0.07, x + 0.04, y + 0.15, knob)
    else:
        for x0, x1, x in ((0.08, 0.485, 0.42), (0.515, 0.92, 0.58)):
            pen.rect(x0, 0.16, x1, 0.87, mix(look.colour, look.tint, 0.5))
            pen.rect(x0 + 0.07, 0.24, x1 - 0.07, 0.79, look.colour)
            pen.ellipse(x - 0.03, 0.46, x + 0.03, 0.55, knob)


def rug(pen: Pen, look: Look) -> None:
    if "round" in look.words:
        pen.body(ellipse_points(0.0, 0.0, 1.0, 1.0), look)
        pen.poly(ellipse_points(0.18, 0.18, 0.82, 0.82), look.tint)
        pen.poly(ellipse_points(0.3, 0.3, 0.7, 0.7), look.shade)
    else:
        for k in range(15):
            x = 0.02 + 0.96 * k / 14
            pen.line([(x, 0.9), (x, 1.0)], light(look.colour, 0.6), 1.4)
            pen.line([(0.15 + 0.7 * k / 14, 0.0), (0.15 + 0.7 * k / 14, 0.12)], light(look.colour, 0.6), 1.2)
        pen.body([(0.14, 0.06), (0.86, 0.06), (1.0, 0.94), (0.0, 0.94)], look)
        pen.line([(0.2, 0.2), (0.8, 0.2), (0.89, 0.8), (0.11, 0.8), (0.2, 0.2)], light(look.colour, 0.6), 2)
