"""The world's object kinds: where each may stand, how large it is, and which attribute words it can carry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from training.scenes import furniture, items, wall_things
from training.scenes.palette import BRIGHT
from training.scenes.pen import Look, Pen


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of object.

    Attributes:
        name: its noun, one word, without spaces.
        draw: draws it in unit coordinates.
        places: where it may be: "back" (floor, along the wall), "floor" (anywhere on the floor), "wall", "rug" (flat on
            the floor) or "top" (on another object), most usual first.
        size: nominal width and height as fractions of the picture's side, at the front of the room.
        finishes: colour or material words; exactly one is given to each object unless empty.
        variants: pattern or shape words; one of them, or none, is given; every object has one if `always_variant`.
        surface: where things stand on it: from x, to x, and the height y, in unit coordinates; none if None.
        holds: names of the kinds that may stand on it.
        weight: how often it is chosen as a distractor, 0 for never.
    """

    name: str
    draw: Callable[[Pen, Look], None]
    places: tuple[str, ...]
    size: tuple[float, float]
    finishes: tuple[str, ...] = ()
    variants: tuple[str, ...] = ()
    always_variant: bool = False
    surface: tuple[float, float, float] | None = None
    holds: tuple[str, ...] = ()
    weight: float = 1.0


WOODEN = ("wooden", "white", "black", "brown", "blue", "green")
APPLIANCE = ("white", "gray", "black", "red", "blue")
CUPBOARD = ("wooden", "white", "brown", "blue", "green", "yellow")
SMALL = ("vase", "plant", "lamp", "teddy", "cat", "globe", "basket", "laptop", "bowl", "pot")
PATTERNS = ("striped", "dotted")

_KINDS = (
    Kind(name="stove", draw=furniture.stove, places=("back",), size=(0.34, 0.40), finishes=APPLIANCE,
         surface=(0.05, 0.95, 0.19), holds=("pot",), weight=0.3),
    Kind(name="fridge", draw=furniture.fridge, places=("back",), size=(0.27, 0.56), finishes=APPLIANCE, weight=0.6),
    Kind(name="bed", draw=furniture.bed, places=("floor",), size=(0.58, 0.36), finishes=BRIGHT, variants=PATTERNS,
         surface=(0.08, 0.9, 0.42), holds=("pillow", "cat", "teddy", "laptop"), weight=0.0),
    Kind(name="crib", draw=furniture.crib, places=("floor",), size=(0.44, 0.38),
         finishes=("white", "wooden", "brown", "pink", "blue"), weight=0.0),
    Kind(name="bathtub", draw=furniture.bathtub, places=("floor",), size=(0.54, 0.32),
         finishes=("white", "pink", "blue", "green", "yellow"), weight=0.0),
    Kind(name="washer", draw=furniture.washer, places=("back",), size=(0.33, 0.38),
         finishes=("white", "gray", "blue", "yellow"), surface=(0.05, 0.95, 0.03),
         holds=("basket", "vase", "plant", "cat"), weight=0.0),
    Kind(name="sofa", draw=furniture.sofa, places=("floor",), size=(0.54, 0.32), finishes=(*BRIGHT, "gray"),
         variants=PATTERNS, surface=(0.16, 0.84, 0.68), holds=("pillow", "cat", "teddy", "laptop"), weight=0.8),
    Kind(name="table", draw=furniture.table, places=("floor",), size=(0.48, 0.32), finishes=WOODEN,
         surface=(0.06, 0.94, 0.12), holds=SMALL, weight=1.2),
    Kind(name="chair", draw=furniture.chair, places=("floor",), size=(0.24, 0.40),
         finishes=("wooden", "red", "blue", "green", "yellow", "white", "black"), weight=1.2),
    Kind(name="piano", draw=furniture.piano, places=("back",), size=(0.46, 0.42),
         finishes=("black", "brown", "white", "red"), surface=(0.06, 0.94, 0.03),
         holds=("vase", "lamp", "plant", "cat", "globe"), weight=0.0),
    Kind(name="easel", draw=furniture.easel, places=("floor",), size=(0.36, 0.56),
         finishes=("wooden", "brown", "black"), surface=(0.3, 0.7, 0.66), holds=("painting",), weight=0.4),
    Kind(name="bookshelf", draw=furniture.bookshelf, places=("back",), size=(0.33, 0.54), finishes=CUPBOARD),
    Kind(name="cabinet", draw=furniture.cabinet, places=("back",), size=(0.38, 0.34), finishes=CUPBOARD,
         surface=(0.05, 0.95, 0.06), holds=(*SMALL, "television"), weight=1.2),
    Kind(name="rug", draw=furniture.rug, places=("rug",), size=(0.58, 0.17), finishes=BRIGHT,
         variants=("striped", "round"), weight=0.8),
    Kind(name="lamp", draw=items.lamp, places=("floor", "top"), size=(0.2, 0.58),
         finishes=("red", "orange", "yellow", "green", "blue", "white", "pink")),
    Kind(name="plant", draw=items.plant, places=("floor", "top"), size=(0.27, 0.42), variants=("leafy", "spiky"),
         always_variant=True),
    Kind(name="basket", draw=items.basket, places=("floor", "top"), size=(0.25, 0.24),
         finishes=("wicker", "red", "blue", "white")),
    Kind(name="ball", draw=items.ball, places=("floor",), size=(0.2, 0.2), finishes=BRIGHT, variants=PATTERNS),
    Kind(name="cat", draw=items.cat, places=("floor", "top"), size=(0.23, 0.24),
         finishes=("black", "white", "orange", "gray", "brown")),
    Kind(name="guitar", draw=items.guitar, places=("floor",), size=(0.22, 0.5),
         finishes=("wooden", "red", "blue", "black", "yellow")),
    Kind(name="pot", draw=items.pot, places=("top",), size=(0.24, 0.18),
         finishes=("red", "blue", "green", "gray", "black"), weight=0.5),
    Kind(name="laptop", draw=items.laptop, places=("top",), size=(0.25, 0.19),
         finishes=("gray", "black", "white", "pink"), weight=0.7),
    Kind(name="bowl", draw=items.bowl, places=("top",), size=(0.24, 0.18), finishes=("white", *BRIGHT), weight=0.7),
    Kind(name="vase", draw=items.vase, places=("top",), size=(0.18, 0.27), finishes=("white", *BRIGHT),
         variants=("striped",)),
    Kind(name="teddy", draw=items.teddy, places=("floor", "top"), size=(0.22, 0.26),
         finishes=("brown", "pink", "gray", "orange"), weight=0.8),
    Kind(name="pillow", draw=items.pillow, places=("top",), size=(0.22, 0.16), finishes=("white", *BRIGHT),
         variants=PATTERNS),
    Kind(name="globe", draw=items.globe, places=("top", "floor"), size=(0.19, 0.25)),
    Kind(name="board", draw=wall_things.board, places=("wall",), size=(0.5, 0.29), finishes=("black", "white"),
         weight=0.0),
    Kind(name="painting", draw=wall_things.painting, places=("wall", "top"), size=(0.28, 0.24),
         variants=("abstract", "floral", "scenic"), always_variant=True, weight=1.2),
    Kind(name="window", draw=wall_things.window, places=("wall",), size=(0.3, 0.32), variants=("sunny", "dark"),
         always_variant=True, weight=1.2),
    Kind(name="mirror", draw=wall_things.mirror, places=("wall",), size=(0.22, 0.29),
         finishes=("golden", "white", "black", "red", "blue"), variants=("oval", "square"), always_variant=True),
    Kind(name="clock", draw=wall_things.clock, places=("wall",), size=(0.19, 0.19),
         finishes=("red", "blue", "green", "black", "wooden", "yellow"), variants=("round", "square"),
         always_variant=True),
    Kind(name="television", draw=wall_things.television, places=("wall", "top"), size=(0.36, 0.25),
         finishes=("black", "gray"), weight=0.8),
)  # fmt: skip

KINDS: dict[str, Kind] = {kind.name: kind for kind in _KINDS}

TOP_SCALE = {"lamp": (0.8, 0.46), "plant": (0.72, 0.62), "basket": (0.85, 0.8), "cat": (0.9, 0.9)}
"""How an object shrinks when it stands on another one: factors of its width and height."""
