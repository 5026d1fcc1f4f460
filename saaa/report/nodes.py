"""How graph nodes look and read, the same in the drawing and on the page."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from saaa.client.attributions import Node
from saaa.client.results import CaptionWord, Graph
from saaa.report import colors
from saaa.report.colors import Color


@dataclass(frozen=True)
class NodeStyle:
    """One node as shown to a reader."""

    color: Color
    """The object's (also of its attributes), or the common grey of relationships."""
    badge: str
    """The object's number in the drawing, from "1"; empty for relationships."""
    title: str
    """Such as "lamp", "red (lamp)", "lamp on table"."""


def object_styles(graph: Graph) -> dict[int, NodeStyle]:
    """Style of each object by its id; colours come round again after seven objects, numbers never."""
    return {
        thing.id: NodeStyle(colors.OBJECTS[i % len(colors.OBJECTS)], str(i + 1), thing.name)
        for i, thing in enumerate(graph.objects)
    }


def node_styles(nodes: tuple[Node, ...], graph: Graph | None) -> tuple[NodeStyle, ...]:
    """Style of each of `nodes`, in their order."""
    objects = object_styles(graph) if graph else {}
    links = {link.id: link for link in graph.relationships} if graph else {}
    styles = []
    for node in nodes:
        owner = objects.get(node.id)
        link = links.get(node.id)
        if node.kind == "relationship" or owner is None:
            title = node.name
            if link is not None and {link.subject_id, link.object_id} <= objects.keys():
                title = f"{objects[link.subject_id].title} {node.name} {objects[link.object_id].title}"
            styles.append(NodeStyle(colors.RELATION, "", title))
        elif node.kind == "attribute":
            styles.append(NodeStyle(owner.color, owner.badge, f"{node.name} ({owner.title})"))
        else:
            styles.append(NodeStyle(owner.color, owner.badge, node.name))
    return tuple(styles)


def strongest(word: CaptionWord) -> int | None:
    """Index of the node with the largest weight; None when the word has no weights."""
    return int(np.argmax(word.node_weights)) if len(word.node_weights) else None
