"""A text becomes a picture of what it says."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from saaa.errors import OptionInvalid
from training.scenes import CLASSES, label_of, parse_prompt, render_prompt
from training.scenes.prompt import shows
from training.scenes.sampler import Bias


def test_the_whole_sentence() -> None:
    prompt = parse_prompt("A red sofa next to a lamp in a living room.")
    assert prompt.label == "living_room"
    assert [(wish.kind, wish.attributes) for wish in prompt.wishes] == [("sofa", ("red",)), ("lamp", ())]
    assert prompt.links == ((0, "next to", 1),)
    assert prompt.unknown == ()
    image, scene = render_prompt(prompt, 3, size=96)
    assert image.shape == (96, 96, 3)
    assert label_of(scene) == "living_room"
    sofa, lamp = (next(t for t in scene.things if t.kind == kind) for kind in ("sofa", "lamp"))
    assert "red" in sofa.attributes
    assert {"sofa", "lamp", "television"} <= {t.kind for t in scene.things}
    assert any({r.subject, r.object} == {sofa.id, lamp.id} and r.name == "next to" for r in scene.relations)


def test_same_seed_same_picture() -> None:
    first, _ = render_prompt("an office with a cat", 1, size=96)
    assert np.array_equal(first, render_prompt("an office with a cat", 1, size=96)[0])
    assert not np.array_equal(first, render_prompt("an office with a cat", 2, size=96)[0])


@pytest.mark.parametrize("label", CLASSES)
def test_a_photo_of_each_class(label: str) -> None:
    prompt = parse_prompt(f"a photo of a {label.replace('_', ' ')}")
    assert not prompt.unknown
    _, scene = render_prompt(prompt, 0, size=64)
    assert label_of(scene) == label


def test_on_it_and_the_same_object_again() -> None:
    prompt = parse_prompt("a table with a bowl on it and a cat in front of the table")
    assert [wish.kind for wish in prompt.wishes] == ["table", "bowl", "cat"]
    assert prompt.wishes[1].on == 0
    assert prompt.links == ((2, "in front of", 0),)


def test_two_words_for_one_thing() -> None:
    for text, kind in (("a teddy bear", "teddy"), ("a fruit bowl on a table", "bowl"), ("the flower vase", "vase")):
        assert parse_prompt(text).wishes[0].kind == kind
        assert len(parse_prompt(text).wishes) == len(text.split(" on "))


def test_unknown_words_are_reported(caplog: pytest.LogCaptureFixture) -> None:
    assert parse_prompt("a kitchen with a purple elephant").unknown == ("purple", "elephant")
    with caplog.at_level(logging.WARNING):
        render_prompt("a kitchen with a purple elephant", 0, size=64)
    assert "elephant" in caplog.text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "nothing in"),
        ("hello world", "nothing in"),
        ("a classroom with a white board", "black board"),
        ("a bedroom with a crib", "another class"),
        ("a sofa on a lamp", "do not fit"),
        ("a cat a table a chair a sofa a lamp a ball a plant", "at most"),
    ],
)
def test_what_cannot_be_is_refused(text: str, reason: str) -> None:
    with pytest.raises(OptionInvalid, match=reason):
        render_prompt(text, 0, size=64)


def test_small_things_stand_on_something() -> None:
    stands_on = set()
    for seed in range(12):
        _, scene = render_prompt("a living room with a vase and a laptop", seed, size=64)
        assert label_of(scene) == "living_room"
        for kind in ("vase", "laptop"):
            thing = next(t for t in scene.things if t.kind == kind)
            stands_on.add(scene.thing(thing.support or 0).kind)
    assert len(stands_on) > 1
    # A laptop on the dining room's table would make an office of it, so it stands elsewhere.
    assert label_of(render_prompt("a dining room with a laptop", 0, size=64)[1]) == "dining_room"


def test_what_a_scene_shows() -> None:
    _, scene = render_prompt("a red bowl on a table next to a lamp", 0, size=64)
    assert all(shows(scene, parse_prompt(text)) for text in ("bowl", "red bowl", "bowl on table", "table next to lamp"))
    for text in ("blue bowl", "crib", "lamp on table", "bowl on sofa", "red lamp in front of the table"):
        assert not shows(scene, parse_prompt(text))


def test_what_is_kept_out_stays_out_unless_asked_for() -> None:
    bias = Bias(avoid_things=frozenset({"chair", "lamp", "table"}), avoid_backdrops=frozenset({"plain", "dots"}))
    for seed in range(8):
        _, scene = render_prompt("an office with a lamp", seed, size=64, bias=bias)
        kinds = {thing.kind for thing in scene.things}
        assert {"lamp", "table"} <= kinds
        assert "chair" not in kinds
        assert scene.room.wall_pattern not in ("plain", "dots")
        _, scene = render_prompt("an office", seed, size=64, without=[parse_prompt("red lamp"), parse_prompt("clock")])
        assert not any(t.kind == "clock" or (t.kind == "lamp" and "red" in t.attributes) for t in scene.things)
