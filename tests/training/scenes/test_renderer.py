"""Pixels, masks, boxes and the exactness of the evidence."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.scenes import CLASSES, evidence_masks, evidence_of, label_of, render, sample_scene
from training.scenes.kinds import KINDS
from training.scenes.renderer import evidence_is_exact
from training.scenes.scene import Scene, Thing

SIZE = 96


@pytest.mark.parametrize("label", CLASSES)
def test_every_class(label: str) -> None:
    scene, rendered = sample_scene(label, "test", size=SIZE)
    assert label_of(scene) == label
    assert evidence_is_exact(scene, rendered)
    assert rendered.image.shape == (SIZE, SIZE, 3)
    assert rendered.image.dtype == np.uint8


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), label=st.sampled_from(CLASSES))
def test_any_scene(seed: int, label: str) -> None:
    scene, rendered = sample_scene(label, str(seed), size=SIZE)
    again, same = sample_scene(label, str(seed), size=SIZE)
    assert again == scene
    assert np.array_equal(rendered.image, same.image)
    assert set(np.unique(rendered.labels)) - {0} == {thing.id for thing in scene.things}
    for thing in scene.things:
        mask = rendered.labels == thing.id
        x, y, width, height = rendered.box(thing.id) or (0, 0, 0, 0)
        assert mask[y : y + height, x : x + width].sum() == mask.sum()
        assert mask[y].any()
        assert mask[y + height - 1].any()
        assert mask[:, x].any()
        assert mask[:, x + width - 1].any()
        assert not (mask & ~rendered.touched[thing.id]).any()
        finishes = [word for word in thing.attributes if word in KINDS[thing.kind].finishes]
        assert len(finishes) == bool(KINDS[thing.kind].finishes)
    for identity in evidence_of(scene):
        rest = scene.without(identity)
        assert label_of(rest) != label
        changed = (render(rest, SIZE).image != rendered.image).any(axis=2)
        assert changed.any()
        assert not (changed & ~rendered.touched[identity]).any()
    others = [thing.id for thing in scene.things if thing.id not in evidence_of(scene)]
    for identity in others:
        assert label_of(scene.without(identity)) == label


def test_evidence_masks_are_the_visible_pixels() -> None:
    scene, rendered = sample_scene("kitchen", "masks", size=SIZE)
    masks = evidence_masks(scene, SIZE)
    assert tuple(masks) == evidence_of(scene)
    assert sorted(scene.thing(identity).kind for identity in masks) == ["pot", "stove"]
    for identity, mask in masks.items():
        assert np.array_equal(mask, rendered.labels == identity)


def test_inexact_evidence_is_noticed() -> None:
    scene, rendered = sample_scene("bedroom", "check", size=SIZE)
    nothing = {identity: np.zeros_like(mark) for identity, mark in rendered.touched.items()}
    assert not evidence_is_exact(scene, replace(rendered, touched=nothing))
    elsewhere = rendered.image.copy()
    elsewhere[rendered.labels == 0] += 1
    assert not evidence_is_exact(scene, replace(rendered, image=elsewhere))


def test_nearer_objects_hide_farther_ones() -> None:
    scene, _ = sample_scene("bedroom", "hide", size=SIZE)
    table = next(thing for thing in scene.things if thing.kind == "bed")

    def at(identity: int, kind: str, depth: float) -> Thing:
        return replace(table, id=identity, kind=kind, depth=depth, flip=False)

    for near, far in ((1, 2), (2, 1)):
        things = (at(near, "crib", 0.95), at(far, "bathtub", 0.8))
        rendered = render(Scene(room=scene.room, things=things, relations=()), SIZE)
        assert rendered.visible(near) == 1.0
        assert rendered.visible(far) < 0.5


def test_nothing_in_the_room_tells_the_class() -> None:
    """The same seed gives the same room whatever the class."""
    rooms = {(sample_scene(label, f"rooms/{k}", size=64)[0]).room.wall_pattern for k in range(3) for label in CLASSES}
    assert len(rooms) >= 5


def test_every_kind_can_be_drawn_and_differs() -> None:
    scene, _ = sample_scene("bedroom", "kinds", size=SIZE)
    seen = set()
    for kind in KINDS.values():
        words = (*kind.finishes[:1], *kind.variants[:1])
        thing = replace(
            scene.things[0], kind=kind.name, attributes=words, x=0.2, y=0.2, width=kind.size[0], height=kind.size[1]
        )
        rendered = render(Scene(room=scene.room, things=(thing,), relations=()), SIZE)
        box = rendered.box(thing.id)
        assert box is not None
        assert abs(box[2] - kind.size[0] * SIZE) <= 0.25 * kind.size[0] * SIZE + 3
        assert abs(box[3] - kind.size[1] * SIZE) <= 0.25 * kind.size[1] * SIZE + 3
        seen.add(rendered.image.tobytes())
    assert len(seen) == len(KINDS)
