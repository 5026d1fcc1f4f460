"""From a scene to pixels, with the exact truth: visible masks, boxes, and the evidence verified by rendering again."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from random import Random

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from training.scenes.classes import evidence_of, label_of
from training.scenes.kinds import KINDS
from training.scenes.palette import FINISHES, finish_rgb
from training.scenes.pen import Look, Pen
from training.scenes.room import draw_room, light_up
from training.scenes.scene import Scene, Thing

SHADOW = 0.3
"""How much darker the floor gets in the middle of a contact shadow."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Rendered:
    """A picture and its truth.

    Attributes:
        image: uint8 (S, S, 3), RGB.
        labels: uint8 (S, S): id of the object seen at each pixel, 0 for the room.
        touched: for each object id, bool (S, S): every pixel it drew on, soft edges and contact shadow included,
            whether or not something else covers it later.
        full: for each object id, the number of pixels its mask would have if nothing hid it.
    """

    image: np.ndarray
    labels: np.ndarray
    touched: dict[int, np.ndarray]
    full: dict[int, int]

    @cached_property
    def _boxes(self) -> dict[int, tuple[int, int, int, int]]:
        rows, columns = np.nonzero(self.labels)
        values = self.labels[rows, columns]
        found = {}
        for identity in self.full:
            mine = values == identity
            if mine.any():
                ys, xs = rows[mine], columns[mine]
                x, y = int(xs.min()), int(ys.min())
                found[identity] = (x, y, int(xs.max()) - x + 1, int(ys.max()) - y + 1)
        return found

    @cached_property
    def _counts(self) -> np.ndarray:
        return np.bincount(self.labels.ravel(), minlength=256)

    def box(self, identity: int) -> tuple[int, int, int, int] | None:
        """Tight box (x, y, width, height) in pixels of what is seen of an object; None if nothing is."""
        return self._boxes.get(identity)

    def visible(self, identity: int) -> float:
        """Fraction of an object's mask that is not hidden by others, 0..1."""
        return int(self._counts[identity]) / max(1, self.full[identity])


def paint_order(scene: Scene) -> list[Thing]:
    """Far to near: rugs and the wall first, then by the base on the floor; an object right after what it stands on."""
    layer = {"wall": 0, "rug": 1}
    return sorted(scene.things, key=lambda t: (layer.get(t.place, 2), t.depth, t.place == "top", t.id))


def render(scene: Scene, size: int = 160) -> Rendered:
    """Draws a scene. The same scene and size give the same bytes.

    Args:
        scene: what to draw.
        size: width and height of the picture in pixels, at least 32.
    """
    picture = draw_room(scene.room, size).copy()
    labels = np.zeros((size, size), dtype=np.uint8)
    touched: dict[int, np.ndarray] = {}
    full: dict[int, int] = {}
    for thing in paint_order(scene):
        mark = np.zeros((size, size), dtype=bool)
        if thing.place in ("floor", "back"):
            _draw_shadow(picture, thing, size, mark)
        sprite, left, top = _draw_thing(thing, size)
        x0, y0 = max(left, 0), max(top, 0)
        x1, y1 = min(left + sprite.width, size), min(top + sprite.height, size)
        if x0 < x1 and y0 < y1:
            picture.paste(sprite, (left, top), sprite)
            alpha = np.asarray(sprite.getchannel("A"))[y0 - top : y1 - top, x0 - left : x1 - left]
            mark[y0:y1, x0:x1] |= alpha > 0
            labels[y0:y1, x0:x1][alpha >= 128] = thing.id
            full[thing.id] = int((alpha >= 128).sum())
        else:
            full[thing.id] = 0
        touched[thing.id] = mark
    image = light_up(np.asarray(picture), scene.room)
    return Rendered(image=image, labels=labels, touched=touched, full=full)


@lru_cache(maxsize=64)
def _draw_thing(thing: Thing, size: int) -> tuple[Image.Image, int, int]:
    rng = Random(thing.seed)
    finish = next((word for word in thing.attributes if word in FINISHES), "wooden")
    look = Look(colour=finish_rgb(finish, rng), words=frozenset(thing.attributes), rng=rng)
    pen = Pen(thing.width * size, thing.height * size, flip=thing.flip, shear=thing.shear, taper=thing.taper)
    KINDS[thing.kind].draw(pen, look)
    return pen.sprite(), round(thing.x * size) - pen.margin, round(thing.y * size) - pen.margin


def _draw_shadow(picture: Image.Image, thing: Thing, size: int, mark: np.ndarray) -> None:
    width, height = thing.width * size * 1.1, max(4.0, 0.05 * size)
    left = math.floor((thing.x + thing.width / 2) * size - width / 2)
    top = math.floor(thing.base * size - height * 0.65)
    shape = Image.new("L", (math.ceil(width), math.ceil(height)), 0)
    ImageDraw.Draw(shape).ellipse([1, 1, width - 2, height - 2], fill=round(255 * SHADOW))
    shape = shape.filter(ImageFilter.BoxBlur(1))
    picture.paste((20, 16, 28), (left, top), shape)
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + shape.width, size), min(top + shape.height, size)
    if x0 < x1 and y0 < y1:
        mark[y0:y1, x0:x1] |= np.asarray(shape)[y0 - top : y1 - top, x0 - left : x1 - left] > 0


def evidence_masks(scene: Scene, size: int = 160) -> dict[int, np.ndarray]:
    """For each object that decides the class, the bool (S, S) mask of its visible pixels; empty without a class."""
    labels = render(scene, size).labels
    return {identity: labels == identity for identity in evidence_of(scene)}


def evidence_is_exact(scene: Scene, rendered: Rendered) -> bool:
    """Renders the scene again without each piece of evidence, and without all of it, and checks what the word promises.

    True when every time the label flips and no pixel changes outside what the removed objects drew (mask, soft edge of
    a pixel, contact shadow), and the scene has evidence at all.
    """
    evidence = evidence_of(scene)
    label = label_of(scene)
    removals = {(identity,) for identity in evidence} | {evidence}
    for gone in removals:
        rest = scene.without(*gone)
        again = render(rest, rendered.labels.shape[0])
        changed = (again.image != rendered.image).any(axis=2)
        allowed = np.logical_or.reduce([rendered.touched[identity] for identity in gone])
        if label_of(rest) == label or (changed & ~allowed).any():
            return False
    return bool(evidence)
