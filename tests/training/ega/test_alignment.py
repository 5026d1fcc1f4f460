from saaa.scene_graph import Box, Relationship, SceneGraph, SceneObject
from training.ega.alignment import align, name_nodes

BOX = Box(0, 0, 9, 9)
GRAPH = SceneGraph(
    (
        SceneObject(1, "coffee table", BOX, ("red", "old")),
        SceneObject(2, "lamp", BOX, ("red",)),
    ),
    (Relationship(1, 2, 1, "left of"),),
)
"""Nodes: coffee table, red, old, lamp, red, left of."""


def named(caption: str, max_nodes: int = 10) -> list[list[int]]:
    return [row.nonzero().flatten().tolist() for row in align(caption.split(), GRAPH, max_nodes)]


def test_words_find_their_nodes():
    assert named("a lamp left of a coffee table") == [[], [3], [5], [5], [], [0], [0]]


def test_an_attribute_belongs_to_the_object_named_after_it():
    assert named("a red lamp and a red coffee table")[1] == [4]
    assert named("a red lamp and a red coffee table")[5] == [1]
    assert named("an old coffee table")[1] == [2]


def test_an_attribute_without_an_object_is_shared():
    caption = "it is red"
    assert named(caption)[2] == [1, 4]
    assert align(caption.split(), GRAPH, 10)[2, [1, 4]].tolist() == [0.5, 0.5]


def test_words_between_two_objects_are_the_relationship_that_joins_them():
    assert named("a lamp beside the coffee table") == [[], [3], [5], [], [0], [0]]
    assert named("a lamp and another coffee table")[2:4] == [[], []]  # "and" starts anew


def test_names_are_numbered_by_what_kind_of_node_bears_them():
    other = SceneGraph((SceneObject(1, "red", BOX, ("red",)), SceneObject(2, "lamp", BOX)))
    numbers, count = name_nodes([GRAPH, other], max_nodes=10)
    # Only "red" as an attribute and "lamp" are borne twice; everything else is -1.
    assert count == 2
    red, lamp = numbers[0][1], numbers[0][3]
    assert {red, lamp} == {0, 1}
    assert numbers == [[-1, red, -1, lamp, red, -1], [-1, red, lamp]]
    assert name_nodes([GRAPH, other], max_nodes=2)[0] == [[-1, 0], [-1, 0]]


def test_part_of_a_name_is_no_name():
    assert named("a table of coffee left a picture of me") == [[]] * 9


def test_nodes_beyond_the_limit_are_not_named():
    assert named("a red lamp left of it", max_nodes=3) == [[], [1], [], [], [], []]
