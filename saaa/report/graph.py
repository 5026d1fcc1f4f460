"""The scene graph drawn on its picture, with each caption word tied to the graph's nodes."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from saaa.client.results import Analysis, Graph
from saaa.report import colors
from saaa.report.matrix import MARGIN, draw_matrices
from saaa.report.nodes import NodeStyle, object_styles
from saaa.report.place import Rect, Room, around
from saaa.report.text import drawable, font, shorten, width, wrap

PICTURE = 760
"""Longer side of the picture in the drawing, pixels."""
_SIDE = 340
"""Width of the list beside the picture."""
_NARROWEST = 1100
"""The drawing is at least so wide, so that captions beside tall pictures need not break."""
_TAG, _SMALL = 16, 14
"""Text sizes of names and of what goes with them."""
_SMOOTH = 3
"""Arrows are drawn so many times larger and scaled down: Pillow's lines have no anti-aliasing."""


def draw_graph(image: NDArray[np.uint8], analysis: Analysis) -> Image.Image:
    """Draw the graph of `analysis` on its image, and its captions' words against the graph's nodes.

    Args:
        image: the upright picture, uint8 (height, width, 3) RGB.
        analysis: an analysis with a graph.

    Returns:
        An RGB picture: boxes with names and attributes, arrows with the relationships' names; beside it a
        list of both, complete even where the picture has no room for a label; below it a word-by-node table
        for each caption.

    Raises:
        ValueError: the analysis has no graph.
    """
    if analysis.graph is None:
        raise ValueError("the analysis has no graph; ask for captions or send a graph")
    scale = PICTURE / max(image.shape[:2])
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    picture = annotate(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS), analysis.graph, scale)
    side = _list(analysis)
    total = max(MARGIN + size[0] + MARGIN + _SIDE + MARGIN, _NARROWEST)
    tables = draw_matrices(analysis, total)
    below = max(size[1], side.height) + 2 * MARGIN
    height = below + sum(table.height + MARGIN for table in tables)
    canvas = Image.new("RGB", (total, height), colors.PAPER)
    canvas.paste(picture, (MARGIN, MARGIN))
    canvas.paste(side, (2 * MARGIN + size[0], MARGIN))
    for table in tables:
        canvas.paste(table, (0, below))
        below += table.height + MARGIN
    return canvas


def annotate(photo: Image.Image, graph: Graph, scale: float) -> Image.Image:
    """Draw a graph on its picture: boxes with names and attributes, arrows with the relationships' names.

    Args:
        photo: RGB; it may be drawn on.
        graph: boxes in pixels of the image.
        scale: pixels of the photo per pixel of the image.
    """
    styles = object_styles(graph)
    frame = Rect(0, 0, photo.width, photo.height)
    boxes = {
        thing.id: Rect(
            thing.x * scale,
            thing.y * scale,
            (thing.x + thing.width) * scale,
            (thing.y + thing.height) * scale,
        )
        for thing in graph.objects
    }
    draw = ImageDraw.Draw(photo)
    # Large boxes first, so that small ones inside them stay on top.
    for key in sorted(boxes, key=lambda key: -boxes[key].area):
        _outline(draw, boxes[key], styles[key].color)
    paths = _paths(graph, boxes)
    photo = _with_arrows(photo, graph, paths, styles)
    draw = ImageDraw.Draw(photo)
    room = Room(frame)
    for path in paths.values():
        # Both ends stay free, so that the direction can be read.
        for x, y in (path[0], path[-1]):
            room.take(Rect(x - 8, y - 8, x + 8, y + 8))
        room.spare(path)
    for thing in sorted(graph.objects, key=lambda thing: boxes[thing.id].area):
        _tag(draw, room, boxes[thing.id], styles[thing.id], ", ".join(thing.attributes))
    for link in graph.relationships:
        if link.id in paths:
            _arrow_label(draw, room, link.name, paths[link.id])
    return photo


def _outline(draw: ImageDraw.ImageDraw, box: Rect, color: colors.Color) -> None:
    left, top, right, bottom = (round(edge) for edge in box)
    right, bottom = max(left + 4, right - 1), max(top + 4, bottom - 1)
    draw.rectangle((left - 1, top - 1, right + 1, bottom + 1), outline=colors.PAPER, width=5)
    draw.rectangle((left, top, right, bottom), outline=color, width=3)


def _tag(draw: ImageDraw.ImageDraw, room: Room, box: Rect, style: NodeStyle, attributes: str) -> None:
    """Number, name and attributes at the box; less of it where there is less room."""
    name = shorten(style.title, _TAG, 220)
    detail = shorten(attributes, _SMALL, 220)
    full = f"{style.badge} {name}"
    for head, under in ((full, detail), (full, ""), (style.badge, "")):
        wide = max(width(head, _TAG), width(under, _SMALL)) + 12
        high = 22 + (19 if under else 0)
        last = head == style.badge
        rect = room.place(around(box, wide, high), force=last)
        if rect is None:
            continue
        left, top, right, bottom = (round(edge) for edge in rect)
        draw.rectangle((left, top, right, bottom), fill=colors.PAPER, outline=style.color)
        draw.rectangle((left, top, right, top + 22), fill=style.color)
        draw.text((left + 6, top + 11), head, colors.text_on(style.color), font(_TAG), anchor="lm")
        if under:
            draw.text((left + 6, top + 32), under, colors.INK, font(_SMALL), anchor="lm")
        return


def _paths(graph: Graph, boxes: dict[int, Rect]) -> dict[int, list[tuple[float, float]]]:
    """A curve from subject to object for each relationship; several between one pair bend apart."""
    paths: dict[int, list[tuple[float, float]]] = {}
    seen: Counter[frozenset[int]] = Counter()
    for link in graph.relationships:
        if link.subject_id not in boxes or link.object_id not in boxes:
            continue
        start, end = (np.array(boxes[key].center) for key in (link.subject_id, link.object_id))
        if np.hypot(*(end - start)) < 40:
            # Boxes around the same place: start from a corner, or there would be nothing to draw.
            box = boxes[link.subject_id]
            start = np.array((box.left + (box.right - box.left) / 5, box.bottom - (box.bottom - box.top) / 5))
        pair = frozenset((link.subject_id, link.object_id))
        bend = 0.12 + 0.14 * seen[pair]
        seen[pair] += 1
        across = np.array((start[1] - end[1], end[0] - start[0]))
        control = (start + end) / 2 + bend * across
        t = np.linspace(0, 1, 49)[:, None]
        curve = (1 - t) ** 2 * start + 2 * t * (1 - t) * control + t**2 * end
        # The arrow stops short of the dot in the object's middle, where others may start.
        short = np.hypot(*(curve - end).T) > min(12, np.hypot(*(end - start)) / 4)
        paths[link.id] = [(float(x), float(y)) for x, y in curve[short]]
    return paths


def _with_arrows(
    photo: Image.Image,
    graph: Graph,
    paths: dict[int, list[tuple[float, float]]],
    styles: dict[int, NodeStyle],
) -> Image.Image:
    layer = Image.new("RGBA", (photo.width * _SMOOTH, photo.height * _SMOOTH), (*colors.PAPER, 0))
    draw = ImageDraw.Draw(layer)
    # First all light casings, then all arrows: no casing cuts through another arrow's head.
    for color, wide, grow in ((colors.PAPER, 7, 2.5), (colors.RELATION, 3, 0.0)):
        for path in paths.values():
            large = [(x * _SMOOTH, y * _SMOOTH) for x, y in path]
            draw.line(large[:-2], fill=color, width=wide * _SMOOTH, joint="curve")
            draw.polygon(_head(large, grow * _SMOOTH), fill=color)
    for link in graph.relationships:
        if link.id in paths:
            x, y = paths[link.id][0]
            for color, radius in ((colors.PAPER, 7), (styles[link.subject_id].color, 5)):
                draw.circle((x * _SMOOTH, y * _SMOOTH), radius * _SMOOTH, fill=color)
    layer = layer.resize(photo.size, Image.Resampling.BOX)
    return Image.alpha_composite(photo.convert("RGBA"), layer).convert("RGB")


def _head(path: list[tuple[float, float]], grow: float) -> list[tuple[float, float]]:
    (x0, y0), (x1, y1) = path[-min(4, len(path))], path[-1]
    angle = math.atan2(y1 - y0, x1 - x0)
    length, half = 15 * _SMOOTH + 2 * grow, 7 * _SMOOTH + grow
    tip = (x1 + grow * math.cos(angle), y1 + grow * math.sin(angle))
    back = (tip[0] - length * math.cos(angle), tip[1] - length * math.sin(angle))
    across = (-half * math.sin(angle), half * math.cos(angle))
    return [tip, (back[0] + across[0], back[1] + across[1]), (back[0] - across[0], back[1] - across[1])]


def _arrow_label(draw: ImageDraw.ImageDraw, room: Room, name: str, path: list[tuple[float, float]]) -> None:
    """The relationship's name on its arrow or near it, where there is room; the list has it anyway."""
    text = shorten(name, _SMALL, 160)
    wide, high = width(text, _SMALL) + 12, 20
    middle = len(path) // 2
    steps = sorted(range(len(path) // 8, len(path) * 7 // 8), key=lambda i: abs(i - middle))
    candidates = (
        Rect(x - wide / 2, y + shift - high / 2, x + wide / 2, y + shift + high / 2)
        for shift in (0, -20, 20)
        for x, y in (path[i] for i in steps)
    )
    rect = room.place(candidates)
    if rect is None:
        return
    draw.rounded_rectangle(rect, radius=5, fill=colors.PAPER, outline=colors.RELATION)
    draw.text(rect.center, text, colors.INK, font(_SMALL), anchor="mm")


def _list(analysis: Analysis) -> Image.Image:
    """Everything the graph says, in words."""
    graph = analysis.graph
    assert graph is not None
    styles = object_styles(graph)
    source = {"request": "given with the request", "proposed": "proposed by the service"}
    rows: list[tuple[int, list[tuple[str, NodeStyle | None, int]]]] = [
        (30, [("Scene graph", None, 22)]),
        (30, [(source.get(analysis.graph_source, ""), None, _SMALL)]),
    ]
    for thing in graph.objects:
        style = styles[thing.id]
        rows.append((26, [(style.badge, style, _TAG), (thing.name, None, _TAG)]))
        if thing.attributes:
            lines = wrap(", ".join(thing.attributes), _SMALL, _SIDE - 36)
            rows += [(20, [("", None, _SMALL), (line, None, _SMALL)]) for line in lines]
    if graph.relationships:
        rows.append((25, []))
    for link in graph.relationships:
        ends = [styles[key] for key in (link.subject_id, link.object_id) if key in styles]
        if len(ends) == 2:
            first, second = ([(end.badge, end, _TAG), (shorten(end.title, _TAG, 100), None, _TAG)] for end in ends)
            rows.append((28, [*first, (shorten(link.name, _SMALL, 90), None, _SMALL), *second]))
    canvas = Image.new("RGB", (_SIDE, sum(height for height, _ in rows)), colors.PAPER)
    draw = ImageDraw.Draw(canvas)
    top = 0
    for height, parts in rows:
        if not parts:
            draw.line((0, top + 12, _SIDE, top + 12), colors.HAIRLINE)
        _row(draw, top, height, parts)
        top += height
    return canvas


def _row(draw: ImageDraw.ImageDraw, top: int, height: int, parts: list[tuple[str, NodeStyle | None, int]]) -> None:
    left = 0
    middle = top + height / 2
    for text, style, size in parts:
        if style is not None:
            wide = max(22, width(text, _SMALL) + 10)
            draw.rounded_rectangle((left, middle - 10, left + wide, middle + 10), radius=4, fill=style.color)
            ink = colors.text_on(style.color)
            draw.text((left + wide / 2, middle), text, ink, font(_SMALL), anchor="mm")
            left += wide + 8
        elif not text:
            left += 30
        else:
            shown = shorten(drawable(text), size, _SIDE - left - 32)
            color = colors.MUTED if size == _SMALL else colors.INK
            draw.text((left, middle), shown, color, font(size), anchor="lm")
            left += width(shown, size) + 8
