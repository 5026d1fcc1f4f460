"""The scene graph: what it refuses, the published JSON, the role graph by hand and against a naive one."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saaa.errors import OptionInvalid
from saaa.scene_graph import (
    Box,
    NodeKind,
    Relationship,
    RoleGraph,
    SceneGraph,
    SceneGraphError,
    SceneObject,
)

REGION: dict[str, Any] = {
    "objects": [
        {
            "object_id": 7,
            "name": "table",
            "attributes": ["wooden", "low"],
            "x": 10,
            "y": 20,
            "w": 30,
            "h": 40,
        },
        {"object_id": 3, "name": "lamp", "attributes": [], "x": 0, "y": 5, "w": 15, "h": 25},
        {"object_id": 9, "name": "cat", "attributes": ["black"], "x": 50, "y": 50, "w": 10, "h": 10},
    ],
    "relationships": [
        {"relationship_id": 1, "subject_id": 3, "object_id": 7, "name": "on"},
        {"relationship_id": 2, "subject_id": 9, "object_id": 7, "name": "under"},
    ],
    "phrase": "a lamp on a low wooden table",
}

names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=64).filter(str.strip)
boxes = st.builds(Box, *[st.integers(0, 999)] * 2, *[st.integers(1, 999)] * 2)


@st.composite
def graphs(draw: st.DrawFn) -> SceneGraph:
    ids = draw(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=6, unique=True))
    objects = [SceneObject(i, draw(names), draw(boxes), tuple(draw(st.lists(names, max_size=4)))) for i in ids]
    pairs = [(a, b) for a in ids for b in ids if a != b]
    links = draw(st.lists(st.tuples(st.sampled_from(pairs), names), max_size=6)) if pairs else []
    return SceneGraph(tuple(objects), tuple(Relationship(k, a, b, name) for k, ((a, b), name) in enumerate(links)))


def change(path: str, value: object = ...) -> dict[str, Any]:
    """The region with the value at a path such as "objects.0.x" replaced, or removed."""
    region = copy.deepcopy(REGION)
    *way, last = [int(step) if step.isdigit() else step for step in path.split(".")]
    holder: Any = region
    for step in way:
        holder = holder[step]
    if value is ...:
        del holder[last]
    else:
        holder[last] = value
    return region


def test_box() -> None:
    box = Box(3, 4, 10, 20)
    assert (box.right, box.bottom) == (13, 24)
    assert box.ltrb() == (3, 4, 13, 24)
    assert box.key() == (3, 4, 12, 23)
    assert box.union(Box(0, 10, 4, 30)) == Box(0, 4, 13, 36)


def test_region_there_and_back() -> None:
    graph = SceneGraph.from_region(REGION, image_size=(60, 60))
    assert graph.objects[0] == SceneObject(7, "table", Box(10, 20, 30, 40), ("wooden", "low"))
    assert graph.relationships[1] == Relationship(2, 9, 7, "under")
    assert graph.to_region(REGION["phrase"]) == REGION


@given(graphs(), st.text(st.characters(exclude_categories=["Cs"])))
def test_any_graph_survives_json(graph: SceneGraph, phrase: str) -> None:
    assert SceneGraph.from_region(json.loads(json.dumps(graph.to_region(phrase)))) == graph


def test_optional_parts_and_whole_floats() -> None:
    graph = SceneGraph.from_region(
        {"objects": [{"object_id": 1.0, "name": "a", "x": 1.0, "y": np.int64(2), "w": 3, "h": 4, "note": None}]}
    )
    assert graph == SceneGraph((SceneObject(1, "a", Box(1, 2, 3, 4)),))
    assert type(graph.objects[0].box.y) is int


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        ("objects", ..., "objects"),
        ("objects", [], "objects"),
        ("objects", {"0": {}}, "objects"),
        ("objects", "table", "objects"),
        ("objects.1", None, "objects[1]"),
        ("objects.1", [1, 2], "objects[1]"),
        ("objects.1.object_id", ..., "objects[1].object_id"),
        ("objects.1.object_id", 7, "objects[1].object_id"),
        ("objects.1.object_id", True, "objects[1].object_id"),
        ("objects.1.object_id", "3", "objects[1].object_id"),
        ("objects.1.object_id", 2**63, "objects[1].object_id"),
        ("objects.1.name", ..., "objects[1].name"),
        ("objects.1.name", " \t", "objects[1].name"),
        ("objects.1.name", "x" * 65, "objects[1].name"),
        ("objects.1.name", 5, "objects[1].name"),
        ("objects.1.name", "\ud800", "objects[1].name"),
        ("objects.0.attributes", None, "objects[0].attributes"),
        ("objects.0.attributes", "wooden", "objects[0].attributes"),
        ("objects.0.attributes.1", "", "objects[0].attributes[1]"),
        ("objects.0.attributes.1", ["low"], "objects[0].attributes[1]"),
        ("objects.0.attributes", ["red"] * 20, "objects[0].attributes"),
        ("objects.2.x", ..., "objects[2].x"),
        ("objects.2.x", -1, "objects[2].x"),
        ("objects.2.x", 1.5, "objects[2].x"),
        ("objects.2.x", float("nan"), "objects[2].x"),
        ("objects.2.y", float("inf"), "objects[2].y"),
        ("objects.2.y", None, "objects[2].y"),
        ("objects.2.w", 0, "objects[2].w"),
        ("objects.2.h", -4, "objects[2].h"),
        pytest.param("objects.2.h", 10**5000, "objects[2].h", id="huge"),
        ("objects.2.w", 11, "objects[2].w"),
        ("objects.2.y", 60, "objects[2].y"),
        ("relationships", 1, "relationships"),
        ("relationships.0", "on", "relationships[0]"),
        ("relationships.1.relationship_id", 1, "relationships[1].relationship_id"),
        ("relationships.1.relationship_id", ..., "relationships[1].relationship_id"),
        ("relationships.1.subject_id", 4, "relationships[1].subject_id"),
        ("relationships.1.object_id", 4, "relationships[1].object_id"),
        ("relationships.1.object_id", 9, "relationships[1].object_id"),
        ("relationships.1.object_id", [9], "relationships[1].object_id"),
        ("relationships.1.name", "", "relationships[1].name"),
        ("phrase", 3, "phrase"),
    ],
)
def test_refuses_with_the_field(path: str, value: object, field: str) -> None:
    with pytest.raises(SceneGraphError) as caught:
        SceneGraph.from_region(change(path, value), image_size=(60, 60))
    assert caught.value.field == field
    assert len(caught.value.message) < 250


@pytest.mark.parametrize("region", [None, [], "x", 3, [("objects", [])]])
def test_refuses_what_is_no_object(region: Any) -> None:
    with pytest.raises(SceneGraphError):
        SceneGraph.from_region(region)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
places = ["objects", "objects.0", "relationships", "relationships.0", "phrase", "objects.0.attributes"]
places += [f"objects.0.{key}" for key in ("object_id", "name", "x", "y", "w", "h")]
places += [f"relationships.0.{key}" for key in ("relationship_id", "subject_id", "object_id", "name")]


@given(st.sampled_from(places), json_values)
def test_no_json_escapes_the_checks(path: str, value: Any) -> None:
    try:
        graph = SceneGraph.from_region(change(path, value), image_size=(60, 60))
    except SceneGraphError:
        return
    graph.check_inside(60, 60)


def test_node_limit() -> None:
    assert len(SceneGraph.from_region(REGION, max_nodes=8).nodes()) == 8
    with pytest.raises(SceneGraphError, match=r"8 nodes .* keep the 7") as caught:
        SceneGraph.from_region(REGION, max_nodes=7)
    assert caught.value.field == "objects"
    many = tuple(SceneObject(i, "a", Box(0, 0, 1, 1)) for i in range(101))
    assert len(SceneGraph(many[:100]).objects) == 100
    with pytest.raises(SceneGraphError, match="101"):
        SceneGraph(many)
    assert len(SceneGraph(many, max_nodes=101).objects) == 101


def test_construction_names_fields_as_the_contract_does() -> None:
    good = SceneObject(1, "a", Box(0, 0, 1, 1))
    for bad, field in (
        (SceneObject(2, "b", Box(0, -1, 1, 1)), "objects[1].box.y"),
        (SceneObject(2, "b", Box(0, 0, 0, 1)), "objects[1].box.width"),
        (SceneObject(2, "b", Box(0, 0, 1.5, 1)), "objects[1].box.width"),  # type: ignore[arg-type]
        (SceneObject(1, "b", Box(0, 0, 1, 1)), "objects[1].id"),
    ):
        with pytest.raises(SceneGraphError) as caught:
            SceneGraph((good, bad))
        assert caught.value.field == field
    with pytest.raises(SceneGraphError) as caught:
        SceneGraph((good,)).check_inside(1, 0)
    assert caught.value.field == "objects[0].box.y"


def test_nodes_in_published_order() -> None:
    nodes = SceneGraph.from_region(REGION).nodes()
    assert [(int(n.kind), n.id, n.attribute_index, n.name) for n in nodes] == [
        (0, 7, 0, "table"),
        (1, 7, 0, "wooden"),
        (1, 7, 1, "low"),
        (0, 3, 0, "lamp"),
        (0, 9, 0, "cat"),
        (1, 9, 0, "black"),
        (2, 1, 0, "on"),
        (2, 2, 0, "under"),
    ]


def test_role_graph_by_hand() -> None:
    roles = SceneGraph.from_region(REGION).role_graph()
    assert roles.types.tolist() == [0, 1, 1, 0, 0, 1, 2, 2]
    assert roles.orders.tolist() == [0, 1, 2, 0, 0, 1, 0, 0]
    table, lamp, cat = [10, 20, 40, 60], [0, 5, 15, 30], [50, 50, 60, 60]
    assert roles.boxes.tolist() == [
        table, table, table, lamp, cat, cat, [0, 5, 40, 60], [10, 20, 60, 60],
    ]  # fmt: skip
    assert {tuple(edge) for edge in roles.edges.tolist()} == {
        (0, 1, 0), (0, 2, 0), (4, 5, 0), (1, 0, 1), (2, 0, 1), (5, 4, 1),
        (3, 6, 2), (6, 3, 3), (6, 0, 4), (0, 6, 5), (4, 7, 2), (7, 4, 3), (7, 0, 4), (0, 7, 5),
    }  # fmt: skip
    relations = roles.relations()
    # Both attributes of the table and both relationships point at it: each counts half.
    assert relations[1, 0].tolist() == [0, 0.5, 0.5, 0, 0, 0, 0, 0]
    assert relations[4, 0].tolist() == [0, 0, 0, 0, 0, 0, 0.5, 0.5]
    flow = roles.flow()
    # The table to its attributes; the cat to its attribute and to "under"; relationships to the table.
    assert flow[:, 0].tolist() == [0, 0.5, 0.5, 0, 0, 0, 0, 0]
    assert flow[:, 4].tolist() == [0, 0, 0, 0, 0, 0.5, 0, 0.5]
    assert flow[:, 6].tolist() == flow[:, 7].tolist() == [1, 0, 0, 0, 0, 0, 0, 0]
    assert flow[:, 3].tolist() == [0, 0, 0, 0, 0, 0, 1, 0]


def test_a_node_with_nowhere_to_go_keeps_its_attention() -> None:
    box = Box(0, 0, 1, 1)
    graph = SceneGraph(
        (SceneObject(1, "a", box), SceneObject(2, "b", box)),
        (Relationship(1, 1, 2, "on"),),
    )
    assert graph.role_graph().flow().tolist() == [[0, 0, 0], [0, 1, 1], [1, 0, 0]]


def test_truncation_loses_relationships_first() -> None:
    graph = SceneGraph.from_region(REGION)
    whole = graph.role_graph(100)
    for limit in range(1, 9):
        cut = graph.role_graph(limit)
        assert len(cut) == limit
        assert cut.types.tolist() == whole.types[:limit].tolist()
        assert cut.boxes.tolist() == whole.boxes[:limit].tolist()
        assert cut.edges.tolist() == [e for e in whole.edges.tolist() if e[0] < limit and e[1] < limit]
    assert (graph.role_graph(6).types != NodeKind.RELATIONSHIP).all()
    with pytest.raises(OptionInvalid):
        graph.role_graph(0)


def naive_matrices(graph: SceneGraph, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """The two matrices entry by entry, from node identities rather than from edges."""
    nodes = graph.nodes()[:limit]
    count = len(nodes)
    links = {link.id: link for link in graph.relationships}
    kind = np.full((count, count), -1)
    for i, source in enumerate(nodes):
        for j, target in enumerate(nodes):
            roles = (source.kind, target.kind)
            if roles == (0, 1) and source.id == target.id:
                kind[i, j] = 0
            if roles == (1, 0) and source.id == target.id:
                kind[i, j] = 1
            if roles == (0, 2):
                link = links[target.id]
                kind[i, j] = {link.subject_id: 2, link.object_id: 5}.get(source.id, -1)
            if roles == (2, 0):
                link = links[source.id]
                kind[i, j] = {link.subject_id: 3, link.object_id: 4}.get(target.id, -1)
    relations = np.zeros((6, count, count))
    flow = np.zeros((count, count))
    for i in range(count):
        ways = [j for j in range(count) if kind[i, j] in (0, 1, 2, 4)] or [i]
        for j in ways:
            flow[j, i] = 1 / len(ways)
        for j in range(count):
            if kind[i, j] >= 0:
                relations[kind[i, j], j, i] = 1 / np.sum(kind[:, j] == kind[i, j])
    return relations, flow


@given(graphs(), st.integers(1, 40))
def test_matrices_equal_the_naive_ones(graph: SceneGraph, limit: int) -> None:
    roles = graph.role_graph(limit)
    relations, flow = naive_matrices(graph, limit)
    np.testing.assert_allclose(roles.relations(), relations, atol=1e-6)
    np.testing.assert_allclose(roles.flow(), flow, atol=1e-6)


@given(graphs(), st.data())
def test_flow_conserves_attention(graph: SceneGraph, data: st.DataObject) -> None:
    roles = graph.role_graph(40)
    np.testing.assert_allclose(roles.flow().sum(0), 1, atol=1e-6)
    weights = np.array(data.draw(st.lists(st.floats(0.01, 1), min_size=len(roles), max_size=len(roles))))
    np.testing.assert_allclose((roles.flow() @ weights).sum(), weights.sum(), rtol=1e-5)
    rows = roles.relations().sum(2)
    assert np.logical_or(np.isclose(rows, 1), rows == 0).all()


def test_role_graph_is_checked_and_frozen() -> None:
    roles = SceneGraph.from_region(REGION).role_graph()
    with pytest.raises(ValueError, match="read-only"):
        roles.boxes[0] = 0
    moved = roles.with_boxes(roles.boxes * 2)
    assert moved.boxes[0].tolist() == [20, 40, 80, 120]
    assert moved.edges.tolist() == roles.edges.tolist()
    good: dict[str, Any] = {
        "types": [0, 1],
        "orders": [0, 1],
        "boxes": [[0, 0, 1, 1]] * 2,
        "edges": [[0, 1, 0]],
    }
    assert RoleGraph(**good).boxes.dtype == np.float32
    for field, bad in (
        ("types", []),
        ("types", [0, 3]),
        ("orders", [0]),
        ("orders", [0, 20]),
        ("boxes", [[0, 0, 1, 1]]),
        ("boxes", [[0, 0, 1, 1], [2, 0, 1, 1]]),
        ("boxes", [[0, 0, 1, 1], [0, 0, np.nan, 1]]),
        ("edges", [[0, 2, 0]]),
        ("edges", [[0, 1, 6]]),
        ("edges", [[0, 1]]),
    ):
        with pytest.raises(SceneGraphError) as caught:
            RoleGraph(**(good | {field: bad}))
        assert caught.value.field == field
