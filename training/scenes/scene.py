"""What a scene is, before any pixel: objects with attributes and places, relationships, and the room around them.

Everything random about an object's look comes from its own `seed`, so that taking one object away leaves every other
pixel of the world as it was: that is what makes the evidence exact.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, kw_only=True)
class Thing:
    """One object.

    Attributes:
        id: positive, unique in the scene.
        kind: a key of `kinds.KINDS`.
        attributes: its words: a finish and perhaps a variant.
        place: "back", "floor", "wall", "rug" or "top".
        x: left edge, fraction of the picture's side.
        y: top edge, fraction of the picture's side.
        width: nominal width, fraction of the picture's side.
        height: nominal height, fraction of the picture's side.
        depth: where its base, or that of what it stands on, meets the floor: the larger, the nearer.
        support: id of the object it stands on; None on the floor or the wall.
        flip: drawn mirrored.
        shear: sideways shift of its top edge, fraction of its width.
        taper: narrowing of its top edge, fraction.
        seed: source of every other variation of its look.
    """

    id: int
    kind: str
    attributes: tuple[str, ...]
    place: str
    x: float
    y: float
    width: float
    height: float
    depth: float
    support: int | None
    flip: bool
    shear: float
    taper: float
    seed: int

    @property
    def right(self) -> float:
        """Right edge, fraction of the picture's side."""
        return self.x + self.width

    @property
    def base(self) -> float:
        """Bottom edge, fraction of the picture's side: the larger, the nearer."""
        return self.y + self.height


@dataclass(frozen=True, kw_only=True)
class Relation:
    """`subject` (an id) stands in the relationship `name` to `object` (an id)."""

    subject: int
    name: str
    object: int


@dataclass(frozen=True, kw_only=True)
class Room:
    """The room: colours 0..255, patterns by name, and the light.

    Attributes:
        wall: colour of the wall.
        floor: colour of the floor.
        wall_pattern: "plain", "stripes", "dots", "tiles", "panels" or "diamonds".
        floor_pattern: "plain", "planks", "tiles" or "checks".
        horizon: where wall and floor meet, fraction of the picture's height.
        light: brightness factor at the brightest corner.
        falloff: how much darker the opposite corner is, fraction.
        light_x: horizontal position of the light, 0..1.
        tint: factors of red, green and blue.
        noise: standard deviation of the sensor noise, in levels.
        seed: source of every other variation.
    """

    wall: tuple[int, int, int]
    floor: tuple[int, int, int]
    wall_pattern: str
    floor_pattern: str
    horizon: float
    light: float
    falloff: float
    light_x: float
    tint: tuple[float, float, float]
    noise: float
    seed: int


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A whole scene; `things` and `relations` are what decides the class."""

    room: Room
    things: tuple[Thing, ...]
    relations: tuple[Relation, ...]

    def thing(self, identity: int) -> Thing:
        """The object of that id; KeyError if there is none."""
        for thing in self.things:
            if thing.id == identity:
                return thing
        raise KeyError(identity)

    def without(self, *identities: int) -> Scene:
        """The same scene with some objects, and every relationship that names them, taken away."""
        gone = set(identities)
        return replace(
            self,
            things=tuple(thing for thing in self.things if thing.id not in gone),
            relations=tuple(r for r in self.relations if r.subject not in gone and r.object not in gone),
        )


def relate(a: Thing, b: Thing) -> str | None:
    """The relationship of `a` to `b` by their places, as seen by the camera; None when nothing is worth saying.

    "on" comes from support or from standing on a rug; "above" and "under" join the wall with the floor below it;
    "in front of" and "behind" need overlap and a different distance; "next to", "left of" and "right of" are for
    objects of the same zone.
    """
    if a.support == b.id:
        return "on"
    if a.support is not None or b.support is not None:
        return None
    overlap = min(a.right, b.right) - max(a.x, b.x)
    narrow = min(a.width, b.width)
    if b.place == "rug" and a.place == "floor" and overlap > 0.5 * narrow and b.y < a.base < b.base:
        return "on"
    if "rug" in (a.place, b.place):
        return None
    a_wall, b_wall = a.place == "wall", b.place == "wall"
    if a_wall != b_wall:
        if overlap > 0.6 * narrow:
            return "above" if a_wall else "under"
        return None
    if not a_wall and overlap > 0.3 * narrow:
        if a.base > b.base + 0.05:
            return "in front of"
        return "behind" if a.base < b.base - 0.05 else None
    if overlap > 0.05:
        return None
    if not a_wall and abs(a.base - b.base) > 0.3:
        return None
    if -overlap < 0.07:
        return "next to"
    return "left of" if a.x < b.x else "right of"


def relations_of(things: tuple[Thing, ...]) -> tuple[Relation, ...]:
    """All relationships of a scene, one a pair of objects at most; "on", "above" and "in front of" are preferred to
    their inverses, and "left of" to "right of"."""
    inverse = {"under", "behind", "right of"}
    found = []
    for i, first in enumerate(things):
        for second in things[i + 1 :]:
            name = relate(first, second)
            subject, other = first, second
            if name is None or name in inverse:
                turned = relate(second, first)
                if turned is not None:
                    subject, other, name = second, first, turned
            if name is not None:
                found.append(Relation(subject=subject.id, name=name, object=other.id))
    return tuple(found)
