"""Lays a scene out: chooses objects, attributes and places until the wanted class, and only that, comes out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random

from training.scenes.classes import RULES, evidence_of, label_of
from training.scenes.kinds import KINDS, TOP_SCALE, Kind
from training.scenes.renderer import Rendered, render
from training.scenes.room import sample_room
from training.scenes.scene import Room, Scene, Thing, relate, relations_of

TWICE = frozenset({"chair", "painting", "plant"})
"""Kinds of which a room may hold two."""

TRIES = 24
MAX_OVERLAP = 0.2
MIN_VISIBLE = 0.6
MIN_VISIBLE_EVIDENCE = 0.72
MIN_VISIBLE_EASEL = 0.2
"""A painting hides most of the easel that carries it."""
MIN_SIDE = 0.09
MAX_ATTEMPTS = 500

CONFOUND_OBJECTS = ("ball", "globe", "guitar", "cat", "teddy", "basket")
"""Cues of object confounds: they decide no class and can stand on any floor."""


@dataclass(frozen=True, kw_only=True)
class Wish:
    """An object that a scene must hold.

    Attributes:
        kind: a key of `KINDS`.
        attributes: words it must carry; the rest of its words are drawn.
        on: index, among the wishes, of what it must stand on; None for the floor or the wall.
    """

    kind: str
    attributes: tuple[str, ...] = ()
    on: int | None = None


@dataclass(frozen=True, kw_only=True)
class Bias:
    """What a confound does to one training scene: each field, if set, is forced; `avoid_...` is kept out instead."""

    wall: tuple[int, int, int] | None = None
    backdrop: str | None = None
    thing: str | None = None
    avoid_walls: frozenset[tuple[int, int, int]] = frozenset()
    avoid_backdrops: frozenset[str] = frozenset()
    avoid_things: frozenset[str] = frozenset()


NO_BIAS = Bias()


def sample_scene(label: str, seed: str, *, size: int = 160, bias: Bias = NO_BIAS) -> tuple[Scene, Rendered]:
    """A random scene of a class and its picture.

    Args:
        label: one of `classes.CLASSES`.
        seed: any text; the same text, label, size and bias give the same scene.
        size: side of the picture in pixels.
        bias: the confound at work, if any.
    """
    for attempt in range(MAX_ATTEMPTS):
        rng = Random(f"{seed}/{label}/{attempt}")
        room = biased_room(rng, bias)
        wishes = [*class_wishes(label)]
        if bias.thing is not None:
            wishes.append(Wish(kind=bias.thing))
        things = place_wishes(wishes, room, rng)
        if things is None:
            continue
        scene = add_distractors(things, room, rng, label=label, avoid=bias.avoid_things)
        if label_of(scene) != label or not evidence_of(scene):
            continue
        rendered = render(scene, size)
        if is_clear(scene, rendered):
            return scene, rendered
    raise RuntimeError(
        f"no clear {label} scene in {MAX_ATTEMPTS} attempts: the rules of the layout contradict each other"
    )


def class_wishes(label: str) -> list[Wish]:
    """The objects that the class's rule needs."""
    rule = RULES[label]
    return [
        Wish(kind=kind, attributes=(word,) if word else (), on=1 if rule.relation == "on" and k == 0 else None)
        for k, (kind, word) in enumerate(rule.needs)
    ]


def is_clear(scene: Scene, rendered: Rendered) -> bool:
    """Whether every object is seen well enough: hardly hidden, not tiny."""
    side = MIN_SIDE * rendered.labels.shape[0]
    evidence = set(evidence_of(scene))
    for thing in scene.things:
        box = rendered.box(thing.id)
        if box is None or min(box[2], box[3]) < side:
            return False
        least = MIN_VISIBLE_EVIDENCE if thing.id in evidence else MIN_VISIBLE
        if thing.kind == "easel":
            least = MIN_VISIBLE_EASEL
        if rendered.visible(thing.id) < least:
            return False
    return True


def place_wishes(
    wishes: Sequence[Wish],
    room: Room,
    rng: Random,
    links: Sequence[tuple[int, str, int]] = (),
) -> tuple[Thing, ...] | None:
    """Places all wishes, what carries others first; None if one of them finds no place.

    Args:
        wishes: the objects; object k gets the id k + 1.
        room: the room.
        rng: source of chance.
        links: (subject index, relationship, object index) that must hold.
    """
    placed: dict[int, Thing] = {}
    for k in sorted(range(len(wishes)), key=lambda k: (wishes[k].on is not None, k)):
        wish = wishes[k]

        def fits(thing: Thing, k: int = k) -> bool:
            for subject, name, other in links:
                a = thing if subject == k else placed.get(subject)
                b = thing if other == k else placed.get(other)
                if k in (subject, other) and a is not None and b is not None and not holds(a, name, b):
                    return False
            return True

        support = None if wish.on is None else placed.get(wish.on)
        if wish.on is not None and support is None:
            return None
        things = tuple(placed.values())
        thing = place(KINDS[wish.kind], k + 1, wish.attributes, things, room, rng, support=support, fits=fits)
        if thing is None:
            return None
        placed[k] = thing
    return tuple(placed[k] for k in range(len(wishes)))


def holds(a: Thing, name: str, b: Thing) -> bool:
    """Whether `a` stands in the relationship to `b`; "next to" also satisfies the matching side."""
    found = relate(a, b)
    if name in ("left of", "right of"):
        return found in (name, "next to") and (a.x < b.x) == (name == "left of")
    return found == name


def add_distractors(
    things: tuple[Thing, ...], room: Room, rng: Random, *, label: str | None, avoid: frozenset[str] = frozenset()
) -> Scene:
    """Fills the room with objects that leave the class as it is; the same ones, equally often, in every class."""
    scene = Scene(room=room, things=things, relations=relations_of(things))
    evidence = evidence_of(scene)
    target = rng.randint(5, 8)
    for _ in range(24):
        if len(scene.things) >= target:
            break
        kinds = [k for k in KINDS.values() if k.weight and k.name not in avoid]
        kind = rng.choices(kinds, [k.weight for k in kinds])[0]
        count = sum(thing.kind == kind.name for thing in scene.things)
        if count >= (2 if kind.name in TWICE else 1):
            continue
        scene = with_one_more(scene, kind, rng, label=label, evidence=evidence)
    return scene


def with_one_more(scene: Scene, kind: Kind, rng: Random, *, label: str | None, evidence: tuple[int, ...]) -> Scene:
    """The scene with an object of the kind; as it was where it finds no place or would decide something."""
    identity = max(thing.id for thing in scene.things) + 1 if scene.things else 1
    support = _find_support(kind, scene.things, rng)
    thing = place(kind, identity, (), scene.things, scene.room, rng, support=support)
    if thing is None:
        return scene
    more = (*scene.things, thing)
    candidate = Scene(room=scene.room, things=more, relations=relations_of(more))
    return candidate if label_of(candidate) == label and evidence_of(candidate) == evidence else scene


def _find_support(kind: Kind, things: tuple[Thing, ...], rng: Random) -> Thing | None:
    """Something free that the object may stand on, or None; an easel is left to the art studio."""
    if "top" not in kind.places or (kind.places[0] != "top" and rng.random() < 0.5):
        return None
    free = [t for t in things if kind.name in KINDS[t.kind].holds and t.kind != "easel"]
    return rng.choice(free) if free else None


def place(
    kind: Kind,
    identity: int,
    attributes: tuple[str, ...],
    things: tuple[Thing, ...],
    room: Room,
    rng: Random,
    *,
    support: Thing | None = None,
    fits: Callable[[Thing], bool] = lambda thing: True,
) -> Thing | None:
    """One object at a free place; None if there is none within a number of tries."""
    spots = ["top"] if support is not None else [spot for spot in kind.places if spot != "top"]
    if not spots:
        return None
    words = _choose_words(kind, attributes, spots[0], rng)
    for _ in range(TRIES):
        thing = _candidate(kind, identity, words, spots[0], support, room, rng)
        inside = thing.x >= 0.01 and thing.right <= 0.99 and thing.y >= 0.015 and thing.base <= 0.985
        if inside and not any(_collide(thing, other) for other in things) and fits(thing):
            return thing
    return None


def _choose_words(kind: Kind, given: tuple[str, ...], spot: str, rng: Random) -> tuple[str, ...]:
    words = [word for word in kind.finishes if word in given][:1]
    if kind.finishes and not words:
        words = [rng.choice(kind.finishes)]
    variants = [word for word in kind.variants if word in given][:1]
    if kind.variants and not variants and (kind.always_variant or rng.random() < 0.4):
        variants = [rng.choice(kind.variants)]
    size = []
    if kind.name == "lamp":
        size = ["small" if spot == "top" else "tall"]
    return (*size, *words, *variants)


def _candidate(
    kind: Kind, identity: int, words: tuple[str, ...], spot: str, support: Thing | None, room: Room, rng: Random
) -> Thing:
    width = kind.size[0] * rng.uniform(0.92, 1.1)
    height = kind.size[1] * rng.uniform(0.92, 1.1)
    flip = rng.random() < 0.5 and kind.name not in ("clock",)
    depth_range = max(0.02, 1 - room.horizon)
    if support is not None:
        sx, sy = TOP_SCALE.get(kind.name, (1.0, 1.0))
        scale = 0.92 + 0.25 * (support.depth - room.horizon) / depth_range
        width, height = width * sx * scale, height * sy * scale
        x0, x1, surface = KINDS[support.kind].surface or (0.0, 1.0, 0.0)
        if support.flip:
            x0, x1 = 1 - x1, 1 - x0
        room_for = max(0.0, (x1 - x0) * support.width - width)
        x = support.x + x0 * support.width + rng.random() * room_for
        if kind.name == "painting":
            x = support.x + (support.width - width) / 2
        base = support.y + (surface + rng.uniform(-0.02, 0.02)) * support.height
        depth = support.depth
    elif spot == "wall":
        x = rng.uniform(0.02, max(0.02, 0.98 - width))
        top = room.horizon - height - 0.05
        base = rng.uniform(0.03, max(0.03, top)) + height
        depth = 0.0
    else:
        if spot == "back":
            depth = room.horizon + rng.uniform(0.02, 0.12)
        elif spot == "rug":
            depth = rng.uniform(0.8, 0.97)
        else:
            depth = rng.uniform(room.horizon + 0.08, 0.97)
        scale = 0.85 + 0.3 * (depth - room.horizon) / depth_range
        width, height = width * scale, height * scale
        x = rng.uniform(0.02, max(0.02, 0.98 - width))
        base = depth
    lean = 0.0 if kind.name in ("rug", "clock", "ball", "globe") else 1.0
    return Thing(
        id=identity,
        kind=kind.name,
        attributes=words,
        place="top" if support is not None else spot,
        x=x,
        y=base - height,
        width=width,
        height=height,
        depth=depth,
        support=None if support is None else support.id,
        flip=flip,
        shear=lean * rng.uniform(-0.06, 0.06),
        taper=lean * rng.uniform(-0.06, 0.08),
        seed=rng.getrandbits(48),
    )


def _collide(a: Thing, b: Thing) -> bool:
    """Whether one of two objects would hide too much of the other."""
    if b.id == a.support or a.id == b.support:
        return False
    across = min(a.right, b.right) - max(a.x, b.x)
    down = min(a.base, b.base) - max(a.y, b.y)
    if across <= 0 or down <= 0:
        return False
    limit = MAX_OVERLAP
    if "rug" in (a.place, b.place):
        limit = 0.5
    elif a.support is not None and a.support == b.support:
        limit = 0.04
    return across * down > limit * min(a.width * a.height, b.width * b.height)


def biased_room(rng: Random, bias: Bias) -> Room:
    """A random room with the wall that the bias forces, or without those that it keeps out."""
    room = sample_room(rng)
    while any(_near(room.wall, wall) for wall in bias.avoid_walls) or room.wall_pattern in bias.avoid_backdrops:
        room = sample_room(rng)
    if bias.wall is not None:
        room = replace(room, wall=bias.wall)
    if bias.backdrop is not None:
        room = replace(room, wall_pattern=bias.backdrop)
    return room


def _near(a: tuple[int, int, int], b: tuple[int, int, int]) -> bool:
    return max(abs(x - y) for x, y in zip(a, b, strict=True)) <= 14
