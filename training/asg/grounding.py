"""From what a caption mentions to a scene graph with COCO's boxes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from saaa.scene_graph import MAX_ATTRIBUTES, Box, Relationship, SceneGraph, SceneObject
from training.asg.categories import category_of
from training.asg.lemmas import singular
from training.asg.phrases import Mention, Phrase

GROUPS = frozenset("crowd couple family team audience luggage cattle people herd flock".split())
"""Singular words for several things."""
LONGEST_NAME = 64


@dataclass(frozen=True, kw_only=True)
class Instance:
    """One annotated thing of an image, or a crowd of them."""

    category: str
    box: Box
    crowd: bool = False


@dataclass
class Lost:
    """What of the captions did not come into a graph."""

    unboxed: Counter[str] = field(default_factory=Counter)
    """Names of no category."""
    absent: Counter[str] = field(default_factory=Counter)
    """Names of a category of which the image has no (further) instance."""
    relationships: int = 0
    """With an end that has no box."""


def whole_box(bbox: Sequence[float], width: int, height: int) -> Box | None:
    """The smallest box of whole pixels around COCO's [x, y, width, height], inside the image; None if nothing is."""
    x, y, w, h = bbox
    left, top = max(math.floor(x), 0), max(math.floor(y), 0)
    right, bottom = min(math.ceil(x + w), width), min(math.ceil(y + h), height)
    return Box(left, top, right - left, bottom - top) if right > left and bottom > top else None


def ground(phrase: Phrase, instances: Iterable[Instance], lost: Lost) -> SceneGraph | None:
    """The graph of one caption; None if nothing that it mentions has a box.

    A mention takes the largest instance of its category that no other mention has; one of several things, such as "two
    dogs" or "people", takes the box around so many of them, or all. "The dog" after "a dog" is the same dog. Names
    and relationships are the caption's own words.

    Args:
        phrase: what the caption mentions.
        instances: of the image.
        lost: counts what has no box.
    """
    free: dict[str, list[Instance]] = {}
    for instance in sorted(instances, key=lambda i: (i.crowd, -i.box.width * i.box.height)):
        free.setdefault(instance.category, []).append(instance)
    things: list[SceneObject] = []
    place: dict[int, int] = {}
    """Mention to its object's id, which counts from 1."""
    for number, mention in enumerate(phrase.mentions):
        known = next((t for t in things if mention.definite and singular(t.name) == singular(mention.name)), None)
        if known is not None:
            attributes = _attributes([*known.attributes, *mention.attributes])
            things[known.id - 1] = SceneObject(known.id, known.name, known.box, attributes)
            place[number] = known.id
        elif (box := _take(mention, free, lost)) is not None:
            place[number] = len(things) + 1
            things.append(SceneObject(len(things) + 1, mention.name, box, _attributes(mention.attributes)))
    if not things:
        return None
    return SceneGraph(tuple(things), _relationships(phrase, place, lost))


def _attributes(said: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(said))[:MAX_ATTRIBUTES]


def _take(mention: Mention, free: Mapping[str, list[Instance]], lost: Lost) -> Box | None:
    """The box of a mention; its instances are no longer free."""
    category = category_of(mention.name, tuple(mention.attributes))
    if category is None or len(mention.name) > LONGEST_NAME:
        lost.unboxed[singular(mention.name)] += 1
        return None
    there = free.get(category, [])
    if not there:
        lost.absent[singular(mention.name)] += 1
        return None
    several = mention.plural or mention.name.split()[-1] in GROUPS
    count = mention.number or (len(there) if several else 1)
    if several and mention.number is None and mention.name == "couple":
        count = 2
    taken, there[:count] = there[:count], []
    box = taken[0].box
    for other in taken[1:]:
        box = box.union(other.box)
    return box


def _relationships(phrase: Phrase, place: Mapping[int, int], lost: Lost) -> tuple[Relationship, ...]:
    found: dict[tuple[int, int, str], None] = {}
    for link in phrase.links:
        if link.subject not in place or link.object not in place:
            lost.relationships += 1
        elif place[link.subject] != place[link.object] and len(link.name) <= LONGEST_NAME:
            found[place[link.subject], place[link.object], link.name] = None
    return tuple(Relationship(k, *link) for k, link in enumerate(found, 1))
