"""Captions written from a graph: varied sentences in lower case that name every object, its words and relationships."""

from __future__ import annotations

from random import Random

from saaa.scene_graph import Relationship, SceneGraph, SceneObject

Caption = str

MAX_WORDS = 20

PHRASES: dict[str, tuple[str, ...]] = {
    "on": ("on", "on top of", "standing on"),
    "above": ("above", "over", "hanging above"),
    "under": ("under", "below"),
    "next to": ("next to", "beside", "near"),
    "left of": ("to the left of", "left of"),
    "right of": ("to the right of", "right of"),
    "in front of": ("in front of",),
    "behind": ("behind",),
}
INVERSE = {
    "above": "under",
    "under": "above",
    "next to": "next to",
    "left of": "right of",
    "right of": "left of",
    "in front of": "behind",
    "behind": "in front of",
}
FLAT = frozenset({"rug", "painting", "laptop", "pillow"})
"""Kinds that never "stand" on anything."""
OPENINGS = ("{}", "{}", "there is {}", "a room with {}", "a picture of {}", "we see {}", "the room has {}")


def write_captions(graph: SceneGraph, rng: Random, count: int) -> tuple[Caption, ...]:
    """Different captions of a graph, each of at most 20 words; fewer than `count` only if no more can be found.

    Args:
        graph: 1 to 4 objects of different names.
        rng: source of chance.
        count: how many captions are wanted.
    """
    found: list[Caption] = []
    for attempt in range(40 * count):
        if len(found) == count:
            break
        caption = _write(graph, rng, wordy=attempt < 20 * count)
        if caption not in found and len(caption.split()) <= MAX_WORDS:
            found.append(caption)
    return tuple(found)


def article(words: str) -> str:
    """The words with their indefinite article: "a sofa", "an orange cat"."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _write(graph: SceneGraph, rng: Random, *, wordy: bool) -> Caption:
    """One caption; not `wordy` leaves half of the attributes out."""
    said: set[int] = set()

    def name(thing: SceneObject) -> str:
        if thing.id in said:
            return f"the {thing.name}"
        said.add(thing.id)
        words = [word for word in thing.attributes if rng.random() < (0.9 if wordy else 0.5)]
        return article(" ".join([*words, thing.name]))

    objects = {thing.id: thing for thing in graph.objects}
    parts = [_clause(group, objects, name, rng) for group in _chains(graph, rng)]
    loose = [thing for thing in graph.objects if thing.id not in said]
    rng.shuffle(loose)
    parts.extend(name(thing) for thing in loose)
    # No comma: captions are split at blanks, nothing else.
    return rng.choice(OPENINGS).format(" and ".join(parts))


def _chains(graph: SceneGraph, rng: Random) -> list[list[Relationship]]:
    """The relationships in the order of telling: joined ones follow each other."""
    rest = list(graph.relationships)
    if rng.random() < 0.6:
        rng.shuffle(rest)
    chains: list[list[Relationship]] = []
    while rest:
        chain = [rest.pop(0)]
        ends = {chain[0].subject_id, chain[0].object_id}
        grown = True
        while grown:
            grown = False
            for link in rest:
                if ends & {link.subject_id, link.object_id}:
                    chain.append(link)
                    ends |= {link.subject_id, link.object_id}
                    rest.remove(link)
                    grown = True
                    break
        chains.append(chain)
    return chains


def _clause(chain: list[Relationship], objects: dict[int, SceneObject], name, rng: Random) -> str:  # type: ignore[no-untyped-def]
    """One chain of relationships as text: "a cat on a red sofa and a lamp next to the sofa"."""
    text = ""
    last = 0
    for link in chain:
        subject, relation, other = _orient(link, objects, rng, last)
        phrase = rng.choice(PHRASES[relation])
        if phrase.startswith(("standing", "hanging")) and (subject.name in FLAT or (text and subject.id == last)):
            phrase = PHRASES[relation][0]
        if not text:
            text = f"{name(subject)} {phrase} {name(other)}"
        elif subject.id == last:
            text += f" {phrase} {name(other)}"
        else:
            text += f" and {name(subject)} {phrase} {name(other)}"
        last = other.id
    return text


def _orient(
    link: Relationship, objects: dict[int, SceneObject], rng: Random, last: int
) -> tuple[SceneObject, str, SceneObject]:
    """A relationship as it is or turned around, so that it continues from the object named last where it can."""
    subject, other = objects[link.subject_id], objects[link.object_id]
    inverse = INVERSE.get(link.name)
    if inverse is not None and (link.object_id == last or (link.subject_id != last and rng.random() < 0.3)):
        return other, inverse, subject
    return subject, link.name, other
