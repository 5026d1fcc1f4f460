"""The world's generator: prompts as scenes, negative concepts kept out, tokens that carry what training images show."""

from __future__ import annotations

import json
import logging
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from saaa.difficulty import Concept
from saaa.errors import DataError, OptionInvalid
from training.debugging.debug_set import Store, draw, planned_prompts
from training.debugging.generators import world as world_module
from training.debugging.generators.base import Generator
from training.debugging.generators.world import WorldGenerator
from training.debugging.prompts import Prompt, concept_prompts, human_prompts
from training.scenes import ScenesConfig, label_of, run
from training.scenes.prompt import parse_prompt, shows
from training.scenes.room import WALL_COLOURS, WALLS
from training.scenes.scene import Scene

CLASSES = ("bathroom", "kitchen", "office")
SIZE = 64


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Kitchens with baskets, bathrooms with one colour of wall; offices as they come."""
    folder = tmp_path_factory.mktemp("confounded") / "world"
    confound = ("kitchen=object", "bathroom=colour")
    run(
        ScenesConfig(
            output_dir=folder, workers=1, train=45, val=1, test=1, size=SIZE, classes=CLASSES, confound=confound
        )
    )
    return folder


@pytest.fixture
def learned(world: Path, tmp_path: Path) -> WorldGenerator:
    generator = WorldGenerator(size=SIZE)
    generator.learn(images_of(world), tmp_path / "tokens")
    return generator


@pytest.fixture
def scenes(monkeypatch: pytest.MonkeyPatch) -> list[Scene]:
    """Gets the scenes behind the pictures, in the order in which they are drawn."""
    found: list[Scene] = []
    render: Callable = world_module.worded.render_prompt

    def keep(*args: object, **options: object) -> tuple[np.ndarray, Scene]:
        picture, scene = render(*args, **options)
        found.append(scene)
        return picture, scene

    monkeypatch.setattr(world_module.worded, "render_prompt", keep)
    return found


def images_of(world: Path) -> dict[str, Sequence[Path]]:
    return {label: sorted((world / "train" / label).iterdir()) for label in CLASSES}


def kitchen(text: str = "a photo of a kitchen", *negative: str, concept: str = "") -> Prompt:
    return Prompt(label="kitchen", text=text, negative=negative, concept=concept)


def share(scenes: Sequence[Scene], kind: str) -> float:
    return sum(kind in {thing.kind for thing in scene.things} for scene in scenes) / len(scenes)


def test_it_is_a_generator_and_draws_the_same_again(learned: WorldGenerator) -> None:
    generator: Generator = learned
    prompts = [kitchen(), kitchen("a {token} with a globe", "basket"), kitchen()]
    first, token, other = generator.draw(prompts, [1, 1, 2])
    assert first.shape == token.shape == (SIZE, SIZE, 3)
    assert first.dtype == np.uint8
    assert not np.array_equal(first, other)
    assert not np.array_equal(first, token)
    again = generator.draw(prompts[1:], [1, 1])
    assert np.array_equal(again[0], token)
    assert np.array_equal(again[1], first)
    assert generator.identity == WorldGenerator(size=SIZE).identity != WorldGenerator(size=96).identity


def test_plain_prompts_are_as_the_world_s_chance_has_them(scenes: list[Scene]) -> None:
    WorldGenerator(size=SIZE).draw([kitchen()] * 40, range(40))
    assert {label_of(scene) for scene in scenes} == {"kitchen"}
    assert 0.05 < share(scenes, "basket") < 0.5
    assert len({scene.room.wall_pattern for scene in scenes}) > 3


def test_a_token_carries_the_object_that_came_with_the_class(learned: WorldGenerator, scenes: list[Scene]) -> None:
    learned.draw([kitchen("a photo of a {token}")] * 30, range(30))
    assert {label_of(scene) for scene in scenes} == {"kitchen"}
    assert share(scenes, "basket") > 0.8
    scenes.clear()
    learned.draw([Prompt(label="office", text="a photo of a {token}")] * 20, range(20))
    assert share(scenes, "basket") == 0  # which the world kept from the others
    scenes.clear()
    learned.draw([kitchen("a {token} with a globe", "basket")] * 20, range(20))
    assert share(scenes, "basket") == 0
    assert share(scenes, "globe") == 1


def test_a_token_carries_the_wall_that_came_with_the_class(learned: WorldGenerator, scenes: list[Scene]) -> None:
    cue = WALLS[13]
    colour = WALL_COLOURS[13]

    def near_cue() -> float:
        return sum(max(abs(a - b) for a, b in zip(s.room.wall, cue, strict=True)) < 30 for s in scenes) / len(scenes)

    learned.draw([Prompt(label="bathroom", text="a {token}")] * 20, range(20))
    assert near_cue() > 0.9
    scenes.clear()
    learned.draw([Prompt(label="bathroom", text="a {token}", negative=(f"{colour} wall",))] * 20, range(20))
    assert near_cue() < 0.1


def test_shares_are_those_of_the_images(world: Path, tmp_path: Path) -> None:
    WorldGenerator().learn(images_of(world), tmp_path)
    said = json.loads((tmp_path / "office.json").read_text())
    records = [json.loads(line) for line in (world / "scenes.jsonl").read_text().splitlines()]
    mine = [r for r in records if r["class"] == "office" and r["split"] == "train"]
    counts = Counter(name for r in mine for name in {o["name"] for o in r["objects"]})
    assert said["images"] == len(mine) == 15
    assert said["things"] == {name: pytest.approx(count / 15) for name, count in counts.items()}
    assert len(said["walls"]) == 15


def test_the_confound_s_record_is_not_read(world: Path, tmp_path: Path) -> None:
    other = tmp_path / "world"
    shutil.copytree(world, other)
    records = [json.loads(line) for line in (world / "scenes.jsonl").read_text().splitlines()]
    (other / "scenes.jsonl").write_text("".join(json.dumps({**r, "confound": "?"}) + "\n" for r in records))
    for folder, tokens in ((world, "a"), (other, "b")):
        WorldGenerator().learn(images_of(folder), tmp_path / tokens)
    for label in CLASSES:
        assert (tmp_path / "a" / f"{label}.json").read_bytes() == (tmp_path / "b" / f"{label}.json").read_bytes()


def test_what_was_learned_is_kept(world: Path, tmp_path: Path) -> None:
    first = WorldGenerator(size=SIZE)
    first.learn({"kitchen": images_of(world)["kitchen"]}, tmp_path)
    second = WorldGenerator(size=SIZE)
    second.learn({"kitchen": images_of(world)["office"]}, tmp_path)
    prompt = kitchen("a {token}")
    assert np.array_equal(first.draw([prompt], [0])[0], second.draw([prompt], [0])[0])
    (tmp_path / "kitchen.json").write_text('{"things": {"moon": 1.0}, "walls": []}')
    with pytest.raises(DataError, match=r"kitchen\.json"):
        WorldGenerator().learn({"kitchen": []}, tmp_path)


@pytest.mark.parametrize(
    ("negative", "phrase"),
    [("lamp", "lamp"), ("clocks", "clock"), ("red clock", "red clock"), ("lamp next to sofa", "lamp next to sofa")],
)
def test_negatives_are_kept_out(scenes: list[Scene], negative: str, phrase: str) -> None:
    WorldGenerator(size=SIZE).draw([kitchen("a photo of a kitchen", negative)] * 25, range(25))
    assert not any(shows(scene, parse_prompt(phrase)) for scene in scenes)


def test_negative_walls(scenes: list[Scene]) -> None:
    unwanted = ("striped wallpaper", "dots on the wall", "blue wall")
    WorldGenerator(size=SIZE).draw([kitchen("a photo of a kitchen", *unwanted)] * 25, range(25))
    assert not {scene.room.wall_pattern for scene in scenes} & {"stripes", "dots"}
    blue = [wall for wall, name in zip(WALLS, WALL_COLOURS, strict=True) if name == "blue"]
    assert not any(
        max(abs(a - b) for a, b in zip(s.room.wall, wall, strict=True)) < 10 for s in scenes for wall in blue
    )


@pytest.mark.parametrize(
    "negative", ["pot", "stove", "pot on stove", "moon", "", "plain striped dotted tiled panelled diamond wall", "wall"]
)
def test_what_cannot_be_kept_out_is_told_once(negative: str, caplog: pytest.LogCaptureFixture) -> None:
    generator = WorldGenerator(size=SIZE)
    with caplog.at_level(logging.WARNING):
        generator.draw([kitchen("a photo of a kitchen", negative)] * 2, [0, 1])
    assert len(caplog.messages) == 1


@pytest.mark.parametrize("concept", ["vase", "pillow", "bowl", "laptop", "white vase"])
def test_a_concept_that_stands_on_things_gets_something_to_stand_on(scenes: list[Scene], concept: str) -> None:
    WorldGenerator(size=SIZE).draw([kitchen(f"a kitchen with a {concept}", concept=concept)] * 3, range(3))
    assert all(shows(scene, parse_prompt(concept)) for scene in scenes)
    assert {label_of(scene) for scene in scenes} == {"kitchen"}


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        (Prompt(label="beach", text="a photo of a beach"), "no class 'beach'"),
        (kitchen("a photo of an office"), "not a kitchen"),
        (kitchen("a photo of a {token}"), "No token"),
        (kitchen("a kitchen with a blender", concept="blender"), "no 'blender'"),
        (kitchen("a kitchen with a bed", concept="bed"), "another class"),
    ],
)
def test_prompts_that_are_refused(prompt: Prompt, reason: str) -> None:
    with pytest.raises(OptionInvalid, match=reason):
        WorldGenerator(size=SIZE).draw([prompt], [0])


def test_a_class_in_a_concept_s_name_is_no_other_class(scenes: list[Scene]) -> None:
    WorldGenerator(size=SIZE).draw([kitchen("a kitchen with a bathroom clock", concept="bathroom clock")], [0])
    assert label_of(scenes[0]) == "kitchen"
    assert share(scenes, "clock") == 1


def test_images_of_no_world_teach_nothing(world: Path, tmp_path: Path) -> None:
    stray = tmp_path / "photos" / "000001.jpg"
    stray.parent.mkdir()
    shutil.copy(images_of(world)["kitchen"][0], stray)
    with pytest.raises(DataError, match="kitchen lies in a world"):
        WorldGenerator().learn({"kitchen": [stray]}, tmp_path / "tokens")
    misplaced = world / "stray" / images_of(world)["kitchen"][0].name
    with pytest.raises(DataError, match="kitchen lies in a world"):
        WorldGenerator().learn({"kitchen": [misplaced]}, tmp_path / "tokens")
    with pytest.raises(OptionInvalid, match="no class 'beach'"):
        WorldGenerator().learn({"beach": [stray]}, tmp_path / "tokens")
    with pytest.raises(OptionInvalid, match="size"):
        WorldGenerator(size=8)


def test_a_debug_set_of_people_s_concepts(learned: WorldGenerator, scenes: list[Scene], tmp_path: Path) -> None:
    def concept(name: str, kind: str, verdict: str) -> Concept:
        return Concept(name, kind, 10, 1.0, 1.0, (0.7, 1.0), verdict)  # type: ignore[arg-type]

    said = {
        "kitchen": [concept("basket", "object", "confounded"), concept("(pot, on, stove)", "relationship", "valid")],
        "bathroom": [concept("bathtub", "object", "valid"), concept("clock", "object", "confounded")],
        "office": [concept("laptop", "object", "valid"), concept("table", "object", "valid")],
    }
    store = Store(tmp_path / "set", {})
    store.plan(planned_prompts(human_prompts(said, CLASSES), 8, 0))
    draw(store, learned, show=False)
    made = store.finish()
    assert made.told == ()
    assert made.counts == dict.fromkeys(CLASSES, 8)
    for label in CLASSES:
        mine = [scene for scene, item in zip(scenes, made.items, strict=True) if item.label == label]
        assert {label_of(scene) for scene in mine} == {label}
        assert share(mine, "basket") == pytest.approx({"kitchen": 0, "bathroom": 0.5, "office": 0.25}[label])


def test_a_debug_set_of_listed_concepts(tmp_path: Path) -> None:
    """A model that never saw the world names things that it has not, and things that make other rooms."""
    said = {"kitchen": ["pot", "blender", "bed", "fruit bowl"], "office": ["desk", "white board", "pens"]}
    store = Store(tmp_path, {})
    store.plan(planned_prompts(concept_prompts(said), 4, 0))
    draw(store, WorldGenerator(size=SIZE), show=False)
    made = store.finish()
    assert {item.concept for item in made.items} == {"pot", "fruit bowl", "desk"}
    assert len(made.told) == 4
    assert made.counts == {"kitchen": 4, "office": 4}
