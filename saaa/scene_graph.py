"""The abstract scene graph (ASG): what is in a picture, where, and how it hangs together.

`SceneGraph` is the graph as people write it: named objects with boxes and attributes, and relationships
between them. Its `role_graph` is what guides a captioner.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import InitVar, dataclass
from typing import Any

import numpy as np

from saaa.checks import check_name, check_whole, read_items, read_list, read_mapping, read_value, read_whole
from saaa.errors import OptionInvalid, SceneGraphError
from saaa.role_graph import EDGE_TYPES, MAX_ATTRIBUTES, NodeKind, RoleGraph

__all__ = [
    "EDGE_TYPES",
    "MAX_ATTRIBUTES",
    "MAX_NODES",
    "MAX_PIXEL",
    "Box",
    "Node",
    "NodeKind",
    "Relationship",
    "RoleGraph",
    "SceneGraph",
    "SceneGraphError",
    "SceneObject",
]

MAX_NODES = 100
"""The most nodes of a graph (objects, attributes and relationships together), unless the caller says
otherwise."""
MAX_PIXEL = 2**31 - 1
"""The largest box coordinate; the contract carries 32-bit integers."""


@dataclass(frozen=True)
class Box:
    """A rectangle in whole pixels of the upright image; `right` and `bottom` are exclusive."""

    x: int
    y: int
    width: int
    height: int

    @property
    def right(self) -> int:
        """x + width: the first pixel column to the right of the box."""
        return self.x + self.width

    @property
    def bottom(self) -> int:
        """y + height: the first pixel row below the box."""
        return self.y + self.height

    def ltrb(self) -> tuple[int, int, int, int]:
        """(left, top, right, bottom), the last two exclusive."""
        return self.x, self.y, self.right, self.bottom

    def key(self) -> tuple[int, int, int, int]:
        """(left, top, right, bottom), the last two *inclusive*: how published region features name a box."""
        return self.x, self.y, self.right - 1, self.bottom - 1

    def union(self, other: Box) -> Box:
        """The smallest box that holds both."""
        x, y = min(self.x, other.x), min(self.y, other.y)
        return Box(x, y, max(self.right, other.right) - x, max(self.bottom, other.bottom) - y)


@dataclass(frozen=True)
class SceneObject:
    """One object, grounded in a box. The id is unique inside its graph; a name has 1 to 64 characters."""

    id: int
    name: str
    box: Box
    attributes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Relationship:
    """A directed relationship between two different objects; the id is unique among relationships."""

    id: int
    subject_id: int
    object_id: int
    name: str


@dataclass(frozen=True)
class Node:
    """One node of a graph: an object, an attribute (`id` is its owner's) or a relationship."""

    kind: NodeKind
    id: int
    attribute_index: int
    """Place in the owner's attributes, 0-based; 0 for other kinds."""
    name: str


@dataclass(frozen=True)
class SceneGraph:
    """Objects and the relationships between them, valid by construction.

    Args:
        objects: at least one.
        relationships: each between two different objects of this graph.
        max_nodes: the most nodes allowed.

    Raises:
        SceneGraphError: what is wrong, with the path of the field, such as "objects[2].box.width".
    """

    objects: tuple[SceneObject, ...]
    relationships: tuple[Relationship, ...] = ()
    max_nodes: InitVar[int] = MAX_NODES

    def __post_init__(self, max_nodes: int) -> None:
        object.__setattr__(self, "objects", tuple(self.objects))
        object.__setattr__(self, "relationships", tuple(self.relationships))
        if not self.objects:
            raise SceneGraphError("the graph has no object; give at least one", field="objects")
        for i, thing in enumerate(self.objects):
            _check_object(thing, f"objects[{i}]")
        for i, link in enumerate(self.relationships):
            _check_relationship(link, f"relationships[{i}]")
        count = len(self.relationships) + sum(1 + len(thing.attributes) for thing in self.objects)
        if count > max_nodes:
            raise SceneGraphError(
                f"the graph has {count} nodes (objects, attributes and relationships together); "
                f"keep the {max_nodes} that matter most",
                field="objects",
            )
        ids = _unique_ids("object", [thing.id for thing in self.objects])
        _unique_ids("relationship", [link.id for link in self.relationships])
        for i, link in enumerate(self.relationships):
            for end in ("subject_id", "object_id"):
                if getattr(link, end) not in ids:
                    raise SceneGraphError(
                        f"relationship {link.id} refers to object {getattr(link, end)}, which the graph "
                        "does not have; add that object or drop the relationship",
                        field=f"relationships[{i}].{end}",
                    )
            if link.subject_id == link.object_id:
                raise SceneGraphError(
                    f"relationship {link.id} relates object {link.subject_id} to itself; name two different objects",
                    field=f"relationships[{i}].object_id",
                )

    @classmethod
    def from_region(
        cls,
        region: Mapping[str, Any],
        *,
        image_size: tuple[int, int] | None = None,
        max_nodes: int = MAX_NODES,
    ) -> SceneGraph:
        """Reads one region of the published annotation format.

        Args:
            region: {"objects": [{"object_id", "name", "attributes", "x", "y", "w", "h"}], "relationships":
                [{"relationship_id", "subject_id", "object_id", "name"}], "phrase"}. "attributes",
                "relationships" and "phrase" may be absent, other keys are ignored; whole numbers may be
                written as floats (3.0).
            image_size: (width, height) in pixels; when given, boxes must lie inside.
            max_nodes: the most nodes allowed.

        Raises:
            SceneGraphError: for anything else, with the field's path in the region's terms ("objects[2].w").
        """
        read_mapping(region, "")
        if not isinstance(region.get("phrase", ""), str):
            raise SceneGraphError("the phrase must be text", field="phrase")
        objects = read_items(region, "objects", _object_from, required=True)
        relationships = read_items(region, "relationships", _relationship_from)
        try:
            graph = cls(tuple(objects), tuple(relationships), max_nodes=max_nodes)
            if image_size is not None:
                graph.check_inside(*image_size)
        except SceneGraphError as error:
            raise SceneGraphError(error.message, field=_region_path(error.field)) from None
        return graph

    def to_region(self, phrase: str = "") -> dict[str, Any]:
        """The graph as one region of the published annotation format; `from_region` reads it back."""
        return {
            "objects": [
                {
                    "object_id": thing.id,
                    "name": thing.name,
                    "attributes": list(thing.attributes),
                    "x": thing.box.x,
                    "y": thing.box.y,
                    "w": thing.box.width,
                    "h": thing.box.height,
                }
                for thing in self.objects
            ],
            "relationships": [
                {
                    "relationship_id": link.id,
                    "subject_id": link.subject_id,
                    "object_id": link.object_id,
                    "name": link.name,
                }
                for link in self.relationships
            ],
            "phrase": phrase,
        }

    def check_inside(self, width: int, height: int) -> None:
        """Checks that every box lies inside an image of `width` x `height` pixels.

        Raises:
            SceneGraphError: naming the first box that does not.
        """
        for i, thing in enumerate(self.objects):
            box = thing.box
            for start, size, word, end, limit in (
                ("x", "width", "wide", box.right, width),
                ("y", "height", "high", box.bottom, height),
            ):
                if end > limit:
                    raise SceneGraphError(
                        f"the box of object {thing.id} ends at {start} = {end}, but the image is {limit} "
                        f"pixels {word}; give boxes in pixels of the upright image and clip them to it",
                        field=f"objects[{i}].box.{start if getattr(box, start) >= limit else size}",
                    )

    def nodes(self) -> tuple[Node, ...]:
        """All nodes in the published order: each object and its attributes, then the relationships."""
        nodes: list[Node] = []
        for thing in self.objects:
            nodes.append(Node(NodeKind.OBJECT, thing.id, 0, thing.name))
            for k, name in enumerate(thing.attributes):
                nodes.append(Node(NodeKind.ATTRIBUTE, thing.id, k, name))
        nodes.extend(Node(NodeKind.RELATIONSHIP, link.id, 0, link.name) for link in self.relationships)
        return tuple(nodes)

    def role_graph(self, max_nodes: int = 10) -> RoleGraph:
        """The first `max_nodes` of `nodes()` with boxes and edges; relationships are the first to be lost.

        Args:
            max_nodes: the captioner's limit, at least 1.

        Raises:
            OptionInvalid: `max_nodes` below 1.
        """
        if max_nodes < 1:
            raise OptionInvalid("max_nodes must be at least 1", field="max_nodes")
        types: list[int] = []
        orders: list[int] = []
        boxes: list[tuple[int, int, int, int]] = []
        edges: list[tuple[int, int, int]] = []
        place: dict[int, int] = {}
        by_id = {thing.id: thing for thing in self.objects}
        for thing in self.objects:
            place[thing.id] = owner = len(types)
            for order in range(len(thing.attributes) + 1):
                if order:
                    edges += [(owner, len(types), 0), (len(types), owner, 1)]
                types.append(NodeKind.ATTRIBUTE if order else NodeKind.OBJECT)
                orders.append(order)
                boxes.append(thing.box.ltrb())
        for link in self.relationships:
            node, subject, target = len(types), place[link.subject_id], place[link.object_id]
            edges += [(subject, node, 2), (node, subject, 3), (node, target, 4), (target, node, 5)]
            types.append(NodeKind.RELATIONSHIP)
            orders.append(0)
            boxes.append(by_id[link.subject_id].box.union(by_id[link.object_id].box).ltrb())
        kept = [edge for edge in edges if max(edge[:2]) < max_nodes]
        return RoleGraph(
            np.array(types[:max_nodes], np.int64),
            np.array(orders[:max_nodes], np.int64),
            np.array(boxes[:max_nodes], np.float32),
            np.array(kept, np.int64).reshape(-1, 3),
        )


def _check_object(thing: SceneObject, path: str) -> None:
    check_whole(thing.id, f"{path}.id", -(2**63), 2**63 - 1)
    check_name(thing.name, f"{path}.name")
    for name, low in (("x", 0), ("y", 0), ("width", 1), ("height", 1)):
        check_whole(getattr(thing.box, name), f"{path}.box.{name}", low, MAX_PIXEL)
    if len(thing.attributes) > MAX_ATTRIBUTES:
        raise SceneGraphError(
            f"object {thing.id} has {len(thing.attributes)} attributes; keep at most {MAX_ATTRIBUTES}",
            field=f"{path}.attributes",
        )
    for k, attribute in enumerate(thing.attributes):
        check_name(attribute, f"{path}.attributes[{k}]")


def _check_relationship(link: Relationship, path: str) -> None:
    for name in ("id", "subject_id", "object_id"):
        check_whole(getattr(link, name), f"{path}.{name}", -(2**63), 2**63 - 1)
    check_name(link.name, f"{path}.name")


def _unique_ids(what: str, ids: Sequence[int]) -> frozenset[int]:
    seen: set[int] = set()
    for i, number in enumerate(ids):
        if number in seen:
            raise SceneGraphError(
                f"{what} id {number} is used twice; give each {what} its own id", field=f"{what}s[{i}].id"
            )
        seen.add(number)
    return frozenset(seen)


def _object_from(item: Mapping[str, Any], path: str) -> SceneObject:
    x, y, width, height = (read_whole(item, key, path) for key in "xywh")
    return SceneObject(
        id=read_whole(item, "object_id", path),
        name=read_value(item, "name", path),
        box=Box(x, y, width, height),
        attributes=tuple(read_list(item, "attributes", path)),
    )


def _relationship_from(item: Mapping[str, Any], path: str) -> Relationship:
    return Relationship(
        id=read_whole(item, "relationship_id", path),
        subject_id=read_whole(item, "subject_id", path),
        object_id=read_whole(item, "object_id", path),
        name=read_value(item, "name", path),
    )


def _region_path(path: str) -> str:
    """The path of a graph's field in the published format's words."""
    path = re.sub(r"\.box\.([xywh])\w*$", r".\1", path)
    return re.sub(r"^(object|relationship)(s\[\d+\])\.id$", r"\1\2.\1_id", path)
