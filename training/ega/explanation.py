"""The explanation loss: a caption word should be chosen while attending to the node that it names.

The published code has no such loss, only the papers speak of one; this is the form of the facts' section
2.4: with target weights g_t over the nodes for the words t that name one, the mean over those words of
-sum_i g_ti log a_ti.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from saaa.scene_graph import NodeKind, SceneGraph

EPSILON = 1e-6
"""Keeps the logarithm finite where the attention is nought."""


def align(caption: Sequence[str], graph: SceneGraph, max_nodes: int) -> Tensor:
    """Which nodes each word of a caption names.

    An object's or relationship's name counts where all its words follow each other. An attribute counts for
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
    return found / found.sum(1, keepdim=True).clamp(min=1)


def explanation_loss(attention: Tensor, wanted: Tensor) -> Tensor:
    """Cross-entropy between wanted and given node weights, mean over the words that name a node; 0 without
    any.

    Args:
        attention: (words, N), rows sum to 1.
        wanted: (words, N), rows sum to 1 or are zero.
    """
    named = wanted.sum(1) > 0
    cost = -(wanted * (attention + EPSILON).log()).sum(1)
    total: Tensor = torch.where(named, cost, 0.0).sum() / named.sum().clamp(min=1)
    return total
