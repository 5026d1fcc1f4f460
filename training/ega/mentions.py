"""What a caption says of a graph: objects, their attributes, the relationships between them.

Captions are compared with names. How else people put a relationship ("beside" or, the other way round, "under" for
"above") is read from the reference captions, so that a caption is right only with words that people use for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from saaa.scene_graph import Relationship, SceneGraph
from training.asg.lemmas import singular
from training.ega.alignment import ARTICLES, BREAKS

Name = tuple[str, ...]
"""Words of a name in lower case, of an object the last one in the singular."""
LINKS = frozenset({"that", "which", "is", "are", "there"})
"""They join an object to what is said of it, and say nothing themselves."""
DETERMINERS = ARTICLES | {"his", "her", "its", "their", "some"}
"""They begin an object, whatever it is."""


class Found(NamedTuple):
    """A name in a caption, at words start to end (exclusive)."""

    start: int
    end: int
    name: Name


class Told(NamedTuple):
    """What a caption says, whatever the graph."""

    objects: frozenset[Name]
    attributes: frozenset[tuple[Name, Name]]
    """Object and attribute."""
    phrases: frozenset[tuple[Name, Name, Name]]
    """One object, the words between, the object named next; with its attributes and without."""


@dataclass(frozen=True)
class Share:
    """How well captions say what their graphs hold; different things of each caption count once."""

    wanted: int
    """In the graphs."""
    told: int
    """In the captions, as far as they are of this kind at all."""
    both: int

    @property
    def recall(self) -> float | None:
        """Share of what the graphs hold that the captions say; None when there is nothing."""
        return self.both / self.wanted if self.wanted else None

    @property
    def precision(self) -> float | None:
        """Share of what the captions say that the graphs hold; None when there is nothing."""
        return self.both / self.told if self.told else None


class Mentions(NamedTuple):
    """What captions say of their graphs."""

    objects: Share
    """Over different object names."""
    attributes: Share
    """Over pairs of object name and attribute."""
    relationships: Share
    """Over triples of subject, name, object; `told` counts phrases, whether or not they relate anything."""


class Wording:
    """How people speak of graphs.

    Args:
        graphs: whose names are known. A name may have several words, and a longer one wins over a shorter one inside.
        references: for each graph what people say of it; words between blanks.
    """

    def __init__(self, graphs: Iterable[SceneGraph], references: Iterable[Sequence[str]]) -> None:
        pairs = list(zip(graphs, references, strict=True))
        things = [thing for graph, _ in pairs for thing in graph.objects]
        links = {_plain(link.name) for graph, _ in pairs for link in graph.relationships}
        self._objects = _Names({_object(thing.name) for thing in things}, plural=True)
        self._attributes = _Names({_plain(name) for thing in things for name in thing.attributes})
        # They end what stands directly before an object.
        described = {word for thing in things for name in thing.attributes for word in _plain(name)}
        self._stops = LINKS | DETERMINERS | ({word for name in links for word in name} - described)
        self._known: dict[Name, set[tuple[Name, bool]]] = {name: {(_phrase(name), True)} for name in links}
        for graph, said in pairs:
            self._learn(graph, said)

    def _learn(self, graph: SceneGraph, references: Sequence[str]) -> None:
        """Take the words between two objects for another way to put the one relationship that joins them."""
        joined: dict[frozenset[Name], set[tuple[Name, Name, Name]]] = {}
        for triple in _triples(graph):
            joined.setdefault(frozenset(triple[::2]), set()).add(triple)
        for reference in references:
            for one, phrase, other in self.told(reference.split()).phrases:
                triples = joined.get(frozenset((one, other)), set())
                if len(triples) == 1 and one != other and not BREAKS & set(phrase):
                    ((subject, name, _),) = triples
                    self._known[name].add((phrase, subject == one))

    def told(self, words: Sequence[str]) -> Told:
        """What a caption's words say.

        An attribute belongs to the object that follows it, unless a determiner, a word of a relationship or one such as
        "is" stands between; then to the object before it.
        """
        words = [word.lower() for word in words]
        things = self._objects.find(words)
        attributes: set[tuple[Name, Name]] = set()
        phrases: set[tuple[Name, Name, Name]] = set()
        edges = [Found(0, 0, ()), *things, Found(len(words), len(words), ())]
        for before, after in pairwise(edges):
            gap = words[before.end : after.start]
            qualities = self._attributes.find(gap)
            inside = {place for found in qualities for place in range(found.start, found.end)}
            stops = [k for k, word in enumerate(gap) if word in self._stops and k not in inside]
            direct = stops[-1] + 1 if stops else 0
            for found in qualities:
                owner = after.name if found.start >= direct and after.name else before.name
                if owner:
                    attributes.add((owner, found.name))
            # Some words are both: "eating" may describe bananas or relate somebody to them.
            for phrase in (_phrase(gap), _phrase(w for k, w in enumerate(gap) if k < direct or k not in inside)):
                if before.name and after.name and phrase:
                    phrases.add((before.name, phrase, after.name))
        return Told(frozenset(f.name for f in things), frozenset(attributes), frozenset(phrases))

    def relates(self, told: Told, triple: tuple[Name, Name, Name]) -> bool:
        """Whether a caption says that a subject is so related to an object."""
        subject, name, thing = triple
        ways = self._known.get(name, {(_phrase(name), True)})
        return any(
            ((one, other) == (subject, thing) and (phrase, True) in ways)
            or ((one, other) == (thing, subject) and (phrase, False) in ways)
            for one, phrase, other in told.phrases
        )

    def count(self, captions: Sequence[Sequence[str]], graphs: Sequence[SceneGraph]) -> Mentions:
        """Compare captions (their words) with their graphs."""
        counts = [[0, 0, 0], [0, 0, 0], [0, 0, 0]]
        for caption, graph in zip(captions, graphs, strict=True):
            told = self.told(caption)
            objects = {_object(thing.name) for thing in graph.objects}
            attributes = {(_object(o.name), _plain(name)) for o in graph.objects for name in o.attributes}
            triples = _triples(graph)
            related = sum(self.relates(told, triple) for triple in triples)
            for count, more in zip(
                counts,
                (
                    (len(objects), len(told.objects), len(objects & told.objects)),
                    (len(attributes), len(told.attributes), len(attributes & told.attributes)),
                    (len(triples), len(told.phrases), related),
                ),
                strict=True,
            ):
                count[:] = [a + b for a, b in zip(count, more, strict=True)]
        return Mentions(*(Share(*count) for count in counts))


class _Names:
    """Finds names in words, from left to right, the longest at each place."""

    def __init__(self, names: set[Name], *, plural: bool = False) -> None:
        self._names = names
        self._longest = max(map(len, names), default=0)
        self._plural = plural

    def find(self, words: Sequence[str]) -> list[Found]:
        found: list[Found] = []
        place = 0
        while place < len(words):
            for end in range(min(place + self._longest, len(words)), place, -1):
                name = tuple(words[place:end])
                if self._plural:
                    name = (*name[:-1], singular(name[-1]))
                if name in self._names:
                    found.append(Found(place, end, name))
                    place = end
                    break
            else:
                place += 1
        return found


def _plain(name: str) -> Name:
    return tuple(name.lower().split())


def _object(name: str) -> Name:
    *first, last = _plain(name)
    return (*first, singular(last))


def _phrase(words: Iterable[str]) -> Name:
    """The words that tell one relationship from another."""
    kept = [word for word in words if word not in DETERMINERS]
    while kept and kept[0] in LINKS:
        kept.pop(0)
    return tuple(kept)


def _triples(graph: SceneGraph) -> set[tuple[Name, Name, Name]]:
    names = {thing.id: _object(thing.name) for thing in graph.objects}

    def triple(link: Relationship) -> tuple[Name, Name, Name]:
        return names[link.subject_id], _plain(link.name), names[link.object_id]

    return {triple(link) for link in graph.relationships}
