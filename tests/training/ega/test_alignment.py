import torch
from hypothesis import given
from hypothesis import strategies as st

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


DOGS = SceneGraph(
    (
        SceneObject(1, "dog", BOX, ("parked",)),
        SceneObject(2, "dogs", BOX),
        SceneObject(3, "wine bottle", BOX, ("smile",)),
        SceneObject(4, "wooden bench", BOX),
    ),
    (Relationship(1, 1, 4, "sitting on"), Relationship(2, 3, 4, "holds")),
)
"""Nodes: dog, parked, dogs, wine bottle, smile, wooden bench, sitting on, holds."""


def named_dogs(caption: str) -> list[list[int]]:
    return [row.nonzero().flatten().tolist() for row in align(caption.split(), DOGS, 10)]


def test_words_name_what_shares_their_base_form():
    assert named_dogs("two wine bottles") == [[], [3], [3]]
    assert named_dogs("it sits on it and held it") == [[], [6], [6], [], [], [7], []]
    assert named_dogs("parks and smiling") == [[1], [], [4]]


def test_a_word_that_is_a_name_is_no_form_of_another():
    assert named_dogs("dogs") == [[2]]
    assert named_dogs("dog") == [[0]]
    other = SceneGraph(DOGS.objects[:1])
    assert align(["dogs"], other, 10)[0].tolist()[:2] == [1, 0]


def test_part_of_a_compound_is_no_name_in_any_form():
    assert named_dogs("bottles and benches") == [[], [], []]


@given(st.lists(st.sampled_from("a red old coffee table tables lamp lamps and left of beside".split()), max_size=9))
def test_each_word_shares_itself_among_nodes_of_the_graph(caption):
    shares = align(caption, GRAPH, 10)
    assert shares.shape == (len(caption), 10)
    assert not shares[:, 6:].any()
    assert set(shares.sum(1).round(decimals=6).tolist()) <= {0.0, 1.0}
    assert not shares[[k for k, word in enumerate(caption) if word in ("a", "and")]].any()
    assert torch.equal(shares[:, :6], align(caption, GRAPH, 6))
