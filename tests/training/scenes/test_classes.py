"""The class is a function of objects, attributes and relationships."""

from __future__ import annotations

from random import Random

import pytest

from training.scenes.classes import CLASSES, evidence_of, label_of
from training.scenes.room import sample_room
from training.scenes.scene import Relation, Scene, Thing


def thing(identity: int, kind: str, *attributes: str) -> Thing:
    return Thing(
        id=identity, kind=kind, attributes=attributes, place="floor", x=0.1, y=0.1, width=0.2, height=0.2, depth=0.3,
        support=None, flip=False, shear=0.0, taper=0.0, seed=identity,
    )  # fmt: skip


def scene(things: list[Thing], relations: list[tuple[int, str, int]] | None = None) -> Scene:
    made = tuple(Relation(subject=a, name=name, object=b) for a, name, b in relations or [])
    return Scene(room=sample_room(Random(0)), things=tuple(things), relations=made)


def test_twelve_classes() -> None:
    assert len(CLASSES) == 12


@pytest.mark.parametrize(("colour", "label"), [("black", "classroom"), ("white", "meeting_room"), ("green", None)])
def test_an_attribute_decides(colour: str, label: str | None) -> None:
    assert label_of(scene([thing(1, "board", colour), thing(2, "chair", "red")])) == label


def test_a_relationship_decides() -> None:
    things = [thing(1, "laptop"), thing(2, "table"), thing(3, "bowl"), thing(4, "cabinet")]
    office = scene(things, [(1, "on", 2), (3, "on", 4)])
    dining = scene(things, [(3, "on", 2), (1, "on", 4)])
    assert label_of(office) == "office"
    assert evidence_of(office) == (1, 2)
    assert label_of(dining) == "dining_room"
    assert evidence_of(dining) == (2, 3)
    assert label_of(scene(things, [(1, "next to", 2)])) is None


def test_both_objects_are_needed() -> None:
    sofa, television = thing(1, "sofa"), thing(2, "television")
    both = scene([sofa, television])
    assert label_of(both) == "living_room"
    assert evidence_of(both) == (1, 2)
    assert label_of(both.without(1)) is None
    assert label_of(both.without(2)) is None


def test_two_classes_at_once_are_none() -> None:
    assert label_of(scene([thing(1, "bed"), thing(2, "crib")])) is None


def test_no_single_object_decides_where_the_rule_is_met_twice() -> None:
    twice = scene([thing(1, "bed"), thing(2, "bed")])
    assert label_of(twice) == "bedroom"
    assert evidence_of(twice) == ()


def test_without_drops_relationships_too() -> None:
    rest = scene([thing(1, "pot"), thing(2, "stove")], [(1, "on", 2)]).without(1)
    assert [t.id for t in rest.things] == [2]
    assert rest.relations == ()
