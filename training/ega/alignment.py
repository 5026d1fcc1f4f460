"""Which nodes of a graph the words of a caption name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from saaa.scene_graph import Node, NodeKind, SceneGraph
from training.asg.lemmas import singular, verb_base

ARTICLES = frozenset({"a", "an", "the"})
BREAKS = frozenset({"and", "with", ",", ".", ";"})
"""Between two objects they begin another statement."""


def align(caption: Sequence[str], graph: SceneGraph, max_nodes: int) -> Tensor:
    """Which nodes each word of a caption names.

    An object's or relationship's name counts where all its words follow each other. Other words between two objects
    ("beside" for "next to") count for the relationship that joins them. An attribute counts for
    the object that is named next after it, if it has that attribute, else for whichever objects have it.

    Words also name what shares their base form: "dogs" an object "dog", "sits on" a relationship "sitting on". Where a
    word is some node's very name, it is no other form of another's.

    Args:
        caption: words.
        graph: with its names.
        max_nodes: only the first nodes of the published order.

    Returns:
        float32 (words, max_nodes); rows sum to 1, or are zero where a word names no node.
    """
    nodes = graph.nodes()[:max_nodes]
    found: _Found = [set() for _ in caption]
    for form in (_as_is, _base):
        _align_names(caption, nodes, found, form)
    for form in (_as_is, _base):
        _align_attributes(caption, nodes, found, form)
    _align_between(caption, graph, nodes, found)
    shares = torch.zeros(len(caption), max_nodes)
    for row, named in zip(shares, found, strict=True):
        if named:
            row[list(named)] = 1 / len(named)
    return shares


_Found = list[set[int]]
"""For each word the places of the nodes that it names."""
_Form = Callable[[str, NodeKind], str]


def _as_is(word: str, kind: NodeKind) -> str:
    return word


def _base(word: str, kind: NodeKind) -> str:
    """The form that stands for all forms of a word: of an object the singular, else the verb's base, if it is one."""
    return singular(word) if kind is NodeKind.OBJECT else verb_base(word) or word


def _align_names(caption: Sequence[str], nodes: Sequence[Node], found: _Found, form: _Form) -> None:
    """Objects and relationships, at words that name none yet."""
    free = [not named for named in found]
    said = {kind: [form(word, kind) for word in caption] for kind in NodeKind}
    for index, node in enumerate(nodes):
        if node.kind is NodeKind.ATTRIBUTE:
            continue
        name = [form(word, node.kind) for word in node.name.split()]
        for place in range(len(caption) - len(name) + 1):
            here = range(place, place + len(name))
            if said[node.kind][here.start : here.stop] == name and all(free[p] for p in here):
                for p in here:
                    found[p].add(index)


def _align_attributes(caption: Sequence[str], nodes: Sequence[Node], found: _Found, form: _Form) -> None:
    """Attributes, at words that name no object and, in another form than theirs, nothing else either."""
    objects = {index: node.id for index, node in enumerate(nodes) if node.kind is NodeKind.OBJECT}
    said = [form(word, NodeKind.ATTRIBUTE) for word in caption]
    free = [not (named & objects.keys() if form is _as_is else named) for named in found]
    meant = [{objects[k] for k in named & objects.keys()} for named in found]
    for index, node in enumerate(nodes):
        if node.kind is not NodeKind.ATTRIBUTE:
            continue
        owners = {n.id for n in nodes if n.kind is NodeKind.ATTRIBUTE and n.name == node.name}
        name = [form(word, NodeKind.ATTRIBUTE) for word in node.name.split()]
        for place, word in enumerate(said):
            if word not in name or not free[place]:
                continue
            then = next((ids for ids in meant[place + 1 :] if ids), set())
            if node.id in then or not then & owners:
                found[place].add(index)


def _align_between(caption: Sequence[str], graph: SceneGraph, nodes: Sequence[Node], found: _Found) -> None:
    """Give the words between two objects to the relationship that joins the two, unless they start something new."""
    objects = {index: node.id for index, node in enumerate(nodes) if node.kind is NodeKind.OBJECT}
    joins = {link.id: {link.subject_id, link.object_id} for link in graph.relationships}
    mentions = [(place, {objects[k] for k in named & objects.keys()}) for place, named in enumerate(found)]
    mentions = [(place, ids) for place, ids in mentions if ids]
    for (start, one), (end, two) in pairwise(mentions):
        gap = range(start + 1, end)
        if any(caption[p] in BREAKS for p in gap) or len(one) != 1 or len(two) != 1 or one == two:
            continue
        links = {k for k, n in enumerate(nodes) if n.kind is NodeKind.RELATIONSHIP and joins[n.id] == one | two}
        for p in gap:
            if caption[p] not in ARTICLES and not found[p]:
                found[p] |= links


def name_nodes(graphs: Iterable[SceneGraph], max_nodes: int) -> tuple[list[list[int]], int]:
    """Numbers for what the nodes of training graphs are called, to learn to tell them apart.

    Returns:
        For each graph the number of each node's name (-1 where no other node bears it), and how many numbers there are.
        A word is another name as an attribute than as an object.
    """
    called = [[(node.kind, node.name) for node in graph.nodes()[:max_nodes]] for graph in graphs]
    counts = Counter(name for names in called for name in names)
    numbers = {name: k for k, name in enumerate(sorted(name for name, count in counts.items() if count > 1))}
    return [[numbers.get(name, -1) for name in names] for names in called], len(numbers)
