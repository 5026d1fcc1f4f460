"""The explanation loss: a caption word should be chosen while attending to the node that it names.

The published code has no such loss, only the papers (RA3, SA3) speak of one; this is our form of it: with target
weights g_t over the nodes for the words t that name one, the mean over those words of -sum_i g_ti log a_ti.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from saaa.scene_graph import Node, NodeKind, SceneGraph

ARTICLES = frozenset({"a", "an", "the"})
BREAKS = frozenset({"and", "with", ",", ".", ";"})
"""Between two objects they begin another statement."""
EPSILON = 1e-6
"""Keeps the logarithm finite where the attention is nought."""


def align(caption: Sequence[str], graph: SceneGraph, max_nodes: int) -> Tensor:
    """Which nodes each word of a caption names.

    An object's or relationship's name counts where all its words follow each other. Other words between two objects
    ("beside" for "next to") count for the relationship that joins them. An attribute counts for
    the object that is named next after it, if it has that attribute, else for whichever objects have it.

    Args:
        caption: words.
        graph: with its names.
        max_nodes: only the first nodes of the published order.

    Returns:
        float32 (words, max_nodes); rows sum to 1, or are zero where a word names no node.
    """
    nodes = graph.nodes()[:max_nodes]
    found = torch.zeros(len(caption), max_nodes)
    for index, node in enumerate(nodes):
        name = node.name.split()
        if node.kind is NodeKind.ATTRIBUTE:
            continue
        for place in range(len(caption) - len(name) + 1):
            if list(caption[place : place + len(name)]) == name:
                found[place : place + len(name), index] = 1
    objects = [index for index, node in enumerate(nodes) if node.kind is NodeKind.OBJECT]
    names_object = found[:, objects].any(1).tolist()
    for index, node in enumerate(nodes):
        if node.kind is not NodeKind.ATTRIBUTE:
            continue
        owner = next(k for k in objects if nodes[k].id == node.id)
        rivals = [k for k, n in enumerate(nodes) if n.kind is NodeKind.ATTRIBUTE and n.name == node.name]
        for place, word in enumerate(caption):
            if word not in node.name.split() or names_object[place]:
                continue
            then = next((p for p in range(place + 1, len(caption)) if names_object[p]), None)
            mine = then is not None and bool(found[then, owner])
            owners = {nodes[k].id for k in rivals}
            disputed = then is not None and any(found[then, k] and nodes[k].id in owners for k in objects)
            if mine or not disputed:
                found[place, index] = 1
    _align_between(caption, graph, nodes, found)
    return found / found.sum(1, keepdim=True).clamp(min=1)


def _align_between(caption: Sequence[str], graph: SceneGraph, nodes: Sequence[Node], found: Tensor) -> None:
    """Give the words between two objects to the relationship that joins the two, unless they start something new."""
    objects = [index for index, node in enumerate(nodes) if node.kind is NodeKind.OBJECT]
    joins = {link.id: {link.subject_id, link.object_id} for link in graph.relationships}
    mentions = [(p, {nodes[k].id for k in objects if found[p, k]}) for p in range(len(caption))]
    mentions = [(p, ids) for p, ids in mentions if ids]
    for (start, one), (end, two) in pairwise(mentions):
        gap = range(start + 1, end)
        if any(caption[p] in BREAKS for p in gap) or len(one) != 1 or len(two) != 1 or one == two:
            continue
        for index, node in enumerate(nodes):
            if node.kind is NodeKind.RELATIONSHIP and joins[node.id] == one | two:
                for p in gap:
                    if caption[p] not in ARTICLES and not found[p].any():
                        found[p, index] = 1


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


def explanation_cost(attention: Tensor, wanted: Tensor) -> Tensor:
    """Cross-entropy between wanted and given node weights of each word; 0 for words that name no node.

    Args:
        attention: (words, N), rows sum to 1.
        wanted: (words, N), rows sum to 1 or are zero.

    Returns:
        (words,); the loss is the sum over the number of words that name a node.
    """
    return -(wanted * (attention + EPSILON).log()).sum(1)
