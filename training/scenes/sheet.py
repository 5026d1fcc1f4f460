"""A picture for people: scenes of every class with the outlines of their evidence, their boxes and a caption."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

CELL = 200
TEXT = 54
GAP = 10
INK, SOFT, ACCENT = (34, 38, 46), (104, 110, 122), (226, 60, 74)


def contact_sheet(world: Path, scenes: list[dict[str, Any]], columns: int = 4) -> Image.Image:
    """Up to `columns` scenes a class, from the held-out split first; two classes a row.

    The evidence is outlined in red and named; the other objects carry a thin white box; a caption stands below.

    Args:
        world: folder of the world (pictures, masks and region files are read).
        scenes: records of scenes.jsonl.
        columns: scenes of each class.
    """
    order = {"test": 0, "val": 1, "train": 2, "pool": 3}
    labels = sorted({s["class"] for s in scenes})
    groups = [
        sorted((s for s in scenes if s["class"] == label), key=lambda s: (order[s["split"]], s["id"]))[:columns]
        for label in labels
    ]
    half = columns * (CELL + GAP) + GAP
    row = CELL + TEXT + GAP + 28
    legend = 30
    sheet = Image.new("RGB", (2 * half + GAP, (len(labels) + 1) // 2 * row + legend + GAP), (250, 250, 248))
    draw = ImageDraw.Draw(sheet)
    title, small = ImageFont.load_default(19), ImageFont.load_default(13)
    draw.line([(GAP, GAP + 9), (GAP + 22, GAP + 9)], ACCENT, 3)
    draw.text((GAP + 30, GAP), "evidence: take one of these objects away and the class is gone", SOFT, font=small)
    draw.rectangle([half + GAP, GAP, half + GAP + 20, GAP + 15], fill=(190, 194, 200), outline=(255, 255, 255))
    draw.text(
        (half + GAP + 30, GAP),
        "boxes of the other objects; below each scene, a caption of one region",
        SOFT,
        font=small,
    )
    for k, (label, group) in enumerate(zip(labels, groups, strict=True)):
        left, top = (k % 2) * (half + GAP) + GAP, (k // 2) * row + legend + GAP
        draw.text((left, top), label.replace("_", " "), INK, font=title)
        for column, scene in enumerate(group):
            x, y = left + column * (CELL + GAP), top + 27
            sheet.paste(_cell(world, scene), (x, y))
            regions = json.loads((world / "annotations" / "regionfiles" / f"{scene['id']}.json").read_text())
            phrase = next(iter(regions.values()))["phrase"]
            lines = textwrap.wrap(phrase, 31, max_lines=3, placeholder=" …")
            draw.multiline_text((x + 1, y + CELL + 3), "\n".join(lines), SOFT, font=small, spacing=2)
    return sheet


def _cell(world: Path, scene: dict[str, Any]) -> Image.Image:
    picture = Image.open(world / scene["file"]).convert("RGB").resize((CELL, CELL), Image.Resampling.BICUBIC)
    labels = np.asarray(Image.open(world / "masks" / f"{scene['id']}.png"))
    draw = ImageDraw.Draw(picture)
    scale = CELL / scene["size"]
    for item in scene["objects"]:
        if item["object_id"] not in scene["evidence"]:
            x, y = item["x"] * scale, item["y"] * scale
            corners = [x, y, x + item["w"] * scale - 1, y + item["h"] * scale - 1]
            draw.rectangle(corners, outline=(255, 255, 255))
    for identity in scene["evidence"]:
        shape = Image.fromarray(np.where(labels == identity, 255, 0).astype(np.uint8)).resize((CELL, CELL))
        inner = shape.filter(ImageFilter.MinFilter(3))
        outer = shape.filter(ImageFilter.MaxFilter(3))
        edge = Image.fromarray(np.asarray(outer) - np.asarray(inner))
        picture.paste(ACCENT, (0, 0), edge)
    return picture
