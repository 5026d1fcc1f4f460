import pytest
from hypothesis import given
from hypothesis import strategies as st

from saaa.scene_graph import Box, Relationship, SceneGraph, SceneObject
from training.ega.mentions import Share, Wording

BOX = Box(0, 0, 9, 9)


def graph(*objects: str, relationships: tuple[tuple[int, str, int], ...] = ()) -> SceneGraph:
    """Objects as "red, old coffee table", the attributes before a comma each; numbered from 1."""
    made = []
    for number, text in enumerate(objects, 1):
        *attributes, name = [part.strip() for part in text.split(",")]
        made.append(SceneObject(number, name, BOX, tuple(attributes)))
    links = [Relationship(k, subject, thing, name) for k, (subject, name, thing) in enumerate(relationships, 1)]
    return SceneGraph(tuple(made), tuple(links))


ROOM = graph(
    "red, old, coffee table",
    "red, lamp",
    "cat",
    relationships=((2, "left of", 1), (3, "on", 1)),
)
REFERENCES = [
    "a lamp to the left of a red coffee table",
    "a coffee table to the right of the lamp",
    "a cat upon a coffee table",
]
KNOWN = graph("table", "coffee", "sofa", "blue, bed")
"""Names from elsewhere."""


@pytest.fixture(scope="module")
def wording():
    return Wording([ROOM, KNOWN], [REFERENCES, ["a sofa"]])


def told(wording, caption):
    found = wording.told(caption.split())
    plain = [{tuple(map(" ".join, entry)) for entry in part} for part in (found.attributes, found.phrases)]
    return {" ".join(name) for name in found.objects}, *plain


def test_longer_names_win_over_names_inside_them(wording):
    assert told(wording, "a coffee table near a Lamp")[0] == {"coffee table", "lamp"}
    assert told(wording, "a table with coffee")[0] == {"table", "coffee"}
    assert told(wording, "")[0] == set()


def test_plurals_are_the_same_objects(wording):
    assert told(wording, "two cats and some coffee tables")[0] == {"cat", "coffee table"}


@pytest.mark.parametrize(
    ("caption", "attributes"),
    [
        ("a red old coffee table", {("coffee table", "red"), ("coffee table", "old")}),
        ("a red and very old lamp", {("lamp", "red"), ("lamp", "old")}),
        ("a lamp that is red near a bed", {("lamp", "red")}),
        ("a lamp that is red", {("lamp", "red")}),
        ("a red thing on a bed", set()),
        ("a lamp left of a blue bed", {("bed", "blue")}),
        ("it is red", set()),
    ],
)
def test_an_attribute_belongs_to_the_object_it_describes(wording, caption, attributes):
    assert told(wording, caption)[1] == attributes


def test_the_words_between_two_objects_relate_them(wording):
    assert told(wording, "a lamp which is to the left of a red coffee table and his cat")[2] == {
        ("lamp", "to left of", "coffee table"),
        ("lamp", "to left of red", "coffee table"),
        ("coffee table", "and", "cat"),
    }


def test_a_word_may_describe_and_relate():
    ape, people = graph("ape", "eating, banana"), graph("man", "banana", relationships=((1, "eating", 2),))
    wording = Wording([ape, people], [["an ape"], ["a man"]])
    found = wording.count(["men eating bananas".split()], [people])
    assert found.relationships.recall == 1
    assert wording.told("the eating banana".split()).attributes == {(("banana",), ("eating",))}


@pytest.mark.parametrize(
    ("caption", "related"),
    [
        ("a lamp left of a coffee table", True),  # the name itself
        ("a lamp to the left of an old coffee table", True),  # as a reference puts it
        ("a coffee table to the right of a lamp", True),  # as a reference puts it, the other way round
        ("a coffee table left of a lamp", False),
        ("a lamp to the right of a coffee table", False),
        ("a lamp upon a coffee table", False),  # words of another relationship
        ("a lamp and a coffee table", False),
        ("a lamp left of a cat on a coffee table", False),
    ],
)
def test_a_relationship_is_told_by_its_name_or_as_people_put_it(wording, caption, related):
    triple = (("lamp",), ("left", "of"), ("coffee", "table"))
    assert wording.relates(wording.told(caption.split()), triple) is related


def test_breaks_and_pairs_that_two_relationships_join_teach_nothing():
    """ "and" relates nothing, and "by" could stand for either relationship."""
    twice = graph("cup", "plate", relationships=((1, "on", 2), (1, "near", 2)))
    once = graph("cup", "fork", relationships=((1, "left of", 2),))
    wording = Wording([twice, once], [["a cup by a plate"], ["a cup and a fork", "a cup with a fork"]])
    for caption in ("a cup by a plate", "a cup and a fork", "a cup with a fork"):
        said = wording.told(caption.split())
        assert not any(
            wording.relates(said, triple)
            for triple in [
                (("cup",), ("on",), ("plate",)),
                (("cup",), ("near",), ("plate",)),
                (("cup",), ("left", "of"), ("fork",)),
            ]
        )


def test_mentions_are_counted_over_names():
    """Hand-solved. Of the names sofa (two of them), lamp, bed and rug the captions tell all but the rug, and a cat
    besides; of the red and the old sofa and the blue bed the first, and a red lamp besides; one relationship of two."""
    rooms = [
        graph("red, sofa", "old, sofa", "lamp", relationships=((3, "near", 1),)),
        graph("blue, bed", "rug", relationships=((1, "on", 2),)),
    ]
    wording = Wording([*rooms, graph("cat")], [["a lamp near a sofa"], ["a bed on a rug"], ["a cat"]])
    found = wording.count(["a red lamp near a red sofa".split(), "a bed and a cat on a bed".split()], rooms)
    assert found.objects == Share(wanted=4, told=4, both=3)
    assert found.attributes == Share(wanted=3, told=2, both=1)
    assert (found.relationships.wanted, found.relationships.both) == (2, 1)
    assert (found.objects.recall, found.objects.precision) == (0.75, 0.75)


def test_nothing_to_mention_is_no_figure():
    found = Wording([], []).count([["hello"]], [graph("rug")])
    assert found.objects == Share(wanted=1, told=0, both=0)
    assert found.objects.precision is None
    assert found.attributes.recall is None


NAMES = st.sampled_from(["cup", "plate", "dining table", "tables", "lamp"])


@given(
    things=st.lists(NAMES, min_size=2, max_size=4, unique_by=lambda name: name.split()[-1].rstrip("s")),
    colours=st.lists(st.sampled_from(["red", "light blue", "old"]), min_size=4, max_size=4),
    name=st.sampled_from(["on", "next to", "in front of"]),
)
def test_a_caption_that_says_the_whole_graph_mentions_all_of_it(things, colours, name):
    made = graph(
        *(f"{colour}, {thing}" for colour, thing in zip(colours, things, strict=False)),
        relationships=tuple((k, name, k + 1) for k in range(1, len(things))),
    )
    parts = [f"a {colour} {thing}" for colour, thing in zip(colours, things, strict=False)]
    found = Wording([made], [[]]).count([f" {name} ".join(parts).split()], [made])
    assert [share.recall for share in found] == [1.0, 1.0, 1.0]
    assert (found.objects.precision, found.attributes.precision) == (1.0, 1.0)
