"""Boxes that people draw in Label Studio, as a graph in the published region format."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from saaa.annotations.content import ARTICLES, clean, read_content, split
from saaa.role_graph import NodeKind

BOX, NAME, ATTRIBUTES, RELATIONSHIPS = "object_box", "object_name", "object_attributes", "relationships"
"""The controls of task 2 in the labeling configuration."""


def read_drawing(result: Sequence[Any], size: tuple[Any, Any] = (None, None)) -> dict[str, Any] | None:
    """What was drawn, unchecked; None where the result draws nothing.

    A box and what is said of it share an id. Boxes are in percent of the image; those that reach outside are cut.
    Relationships are lines "(object, relationship, object)" that name two boxes; others are left out.

    Args:
        result: Label Studio's, of one annotation.
        size: (width, height) of the image in pixels; by default that of the picture which people saw.
    """
    boxes: dict[str, dict[str, Any]] = {}
    texts: dict[tuple[str, str], list[str]] = {}
    for item in result:
        value = item.get("value") if isinstance(item, Mapping) else None
        if not isinstance(value, Mapping):
            continue
        key, control = str(item.get("id")), str(item.get("from_name"))
        if control == BOX and (box := _box(item, value, size)) is not None:
            boxes[key] = box
        elif isinstance(text := value.get("text"), str | list):
            lines = [text] if isinstance(text, str) else [line for line in text if isinstance(line, str)]
            texts.setdefault((key if control != RELATIONSHIPS else "", control), []).extend(lines)
    if not boxes:
        return None
    objects = []
    for number, (key, box) in enumerate(boxes.items(), 1):
        name = clean(" ".join(texts.get((key, NAME), []))).lower()
        attributes = [part for line in texts.get((key, ATTRIBUTES), []) for part in split(line)]
        objects.append({"object_id": number, "name": _bare(name), "attributes": attributes, **box})
    return {"objects": objects, "relationships": _links(texts.get(("", RELATIONSHIPS), []), objects)}


def _links(lines: Sequence[str], objects: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    ids: dict[str | None, int] = {}
    for thing in objects:
        ids.setdefault(thing["name"], thing["object_id"])
    links: list[dict[str, Any]] = []
    for line in (part for text in lines for part in text.splitlines()):
        content, _ = read_content(NodeKind.RELATIONSHIP, line, ids.keys() - {None})  # type: ignore[arg-type]
        ends = ids.get(content.subject), ids.get(content.target)
        if content.predicate and None not in ends and ends[0] != ends[1]:
            number = len(links) + 1
            link = {"relationship_id": number, "subject_id": ends[0], "object_id": ends[1], "name": content.predicate}
            links.append(link)
    return links


def _box(item: Mapping[str, Any], value: Mapping[str, Any], size: tuple[Any, Any]) -> dict[str, int] | None:
    """A box in whole pixels, at least one pixel large; None where it is no box."""
    width, height = size
    numbers = [
        width or item.get("original_width"),
        height or item.get("original_height"),
        value.get("x"),
        value.get("y"),
    ]
    numbers += [value.get(k) for k in ("width", "height")]
    if not all(isinstance(n, int | float) and abs(n) < 1e6 and math.isfinite(n) for n in numbers):
        return None
    wide, high, x, y, width, height = (float(n) for n in numbers if n is not None)
    if min(wide, high) < 1 or min(width, height) <= 0:
        return None
    left, right = (min(max(p, 0), 100) * wide / 100 for p in (x, x + width))
    top, bottom = (min(max(p, 0), 100) * high / 100 for p in (y, y + height))
    if right <= left or bottom <= top:
        return None
    a, b = math.floor(left), math.floor(top)
    return {"x": a, "y": b, "w": max(1, round(right) - a), "h": max(1, round(bottom) - b)}


def _bare(name: str) -> str:
    return " ".join(word for word in name.split() if word not in ARTICLES)
