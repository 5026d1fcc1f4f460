"""The simulated annotator, on a scene whose objects and maps are laid out by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image

from saaa.annotations import Rating, Unit, read_answers
from saaa.errors import DataError, OptionInvalid
from saaa.role_graph import NodeKind
from training.annotation.tasks import scale_task
from training.debugging.simulated import answer

SIDE, CELLS = 64, 8
POT, STOVE, GUITAR, CAT = 1, 2, 3, 4
PLACES = {POT: (0, 2, 0, 2), STOVE: (2, 6, 0, 4), GUITAR: (0, 4, 6, 8), CAT: (6, 8, 6, 8)}
"""Rows and columns of cells."""
CLASSES = ("bedroom", "kitchen")


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """A kitchen with a guitar and a cat in it, and nothing that says which confound it carries but a false trail."""
    folder = tmp_path / "world"
    (folder / "masks").mkdir(parents=True)
    mask = np.zeros((SIDE, SIDE), np.uint8)
    for thing, (top, bottom, left, right) in PLACES.items():
        cell = SIDE // CELLS
        mask[top * cell : bottom * cell, left * cell : right * cell] = thing
    Image.fromarray(mask).save(folder / "masks" / "000007.png")
    names = {POT: "pot", STOVE: "stove", GUITAR: "guitar", CAT: "cat"}
    scene = {
        "id": "000007",
        "split": "val",
        "class": "kitchen",
        "file": "val/kitchen/000007.jpg",
        "objects": [{"object_id": k, "name": name, "attributes": ["red"]} for k, name in names.items()],
        "relationships": [
            {"relationship_id": 1, "subject_id": POT, "name": "on", "object_id": STOVE},
            {"relationship_id": 2, "subject_id": CAT, "name": "next to", "object_id": STOVE},
        ],
        "evidence": [POT, STOVE],
        "confound": {"kind": "object", "cue": "cat"},
    }
    (folder / "scenes.jsonl").write_text(json.dumps(scene) + "\n")
    return folder


def highlight(**places: float) -> np.ndarray:
    """A map that is as bright as said where objects are."""
    values = np.full((CELLS, CELLS), -0.5, np.float32)
    for name, value in places.items():
        top, bottom, left, right = PLACES[globals()[name]]
        values[top:bottom, left:right] = value
    return values


def explained(folder: Path, maps: list[tuple[str, np.ndarray]]) -> tuple[Path, Path]:
    """The run that gave these maps, one an item, and its tasks."""
    run, tasks = folder / "run", folder / "tasks"
    run.mkdir()
    tasks.mkdir()
    records, asked = [], []
    with h5py.File(run / "maps.h5", "w") as shard:
        for item, (label, values) in enumerate(maps):
            shard[f"{item}/0"] = values
            target = CLASSES.index(label)
            made = {"data": f"{item}/0", "kind": "class", "target": target, "name": label}
            covered = {"x": 0.0, "y": 0.0, "width": SIDE, "height": SIDE}
            file = "val/kitchen/000007.jpg"
            records.append({"item": item, "file": file, "covered": covered, "shard": "maps.h5", "maps": [made]})
            unit = Unit(image=file, target="class", position=target, word=label)
            asked.append(scale_task(f"task-{item}", f"p1_{item}.jpg", unit, {"item": item}))
    (run / "run.json").write_text(json.dumps({"job": "attribute", "complete": True}))
    (run / "index.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (tasks / "tasks.json").write_text(json.dumps(asked))
    return run, tasks


def said(folder: Path, world: Path, maps: list[tuple[str, np.ndarray]], **options: Any) -> tuple[Rating, ...]:
    run, tasks = explained(folder, maps)
    found = read_answers([answer(tasks, run, world, folder / "answers.json", **options)])
    assert not [problem for problem in found.problems if not problem.kept]
    return found.ratings


@pytest.mark.parametrize(
    ("label", "bright", "named", "rating"),
    [
        ("kitchen", {"GUITAR": 1.0}, "guitar", 1),
        ("kitchen", {"POT": 1.0}, "pot", 5),
        ("bedroom", {"POT": 1.0}, "pot", 1),
        # A small object brightly lit over a large one that is faint.
        ("kitchen", {"CAT": 1.0, "STOVE": 0.2}, "cat", 1),
        # The relationship's two objects share the map.
        ("kitchen", {"POT": 1.0, "STOVE": 1.0}, "(pot, on, stove)", 5),
        # Of another class the pair is nothing to speak of: the larger one is named.
        ("bedroom", {"POT": 1.0, "STOVE": 1.0}, "stove", 1),
    ],
)
def test_it_names_what_the_map_lies_on_and_rates_what_it_means_to_the_class(
    tmp_path: Path, world: Path, label: str, bright: Mapping[str, float], named: str, rating: float
) -> None:
    (given,) = said(tmp_path, world, [(label, highlight(**bright))])
    assert (str(given.content), given.rating, given.unit.word) == (named, rating, label)
    assert given.stated is (NodeKind.RELATIONSHIP if "," in named else NodeKind.OBJECT)
    assert given.annotator == "simulated"


def test_the_confound_that_a_scene_carries_is_never_read(tmp_path: Path, world: Path) -> None:
    """The same answers without the field, and with any other value in it."""
    maps = [("kitchen", highlight(GUITAR=1.0)), ("kitchen", highlight(POT=1.0))]
    run, tasks = explained(tmp_path, maps)
    scene = json.loads((world / "scenes.jsonl").read_text())
    texts = set()
    for confound in (scene["confound"], {"kind": "object", "cue": "guitar"}, None, "gone"):
        scene["confound"] = confound
        if confound == "gone":
            del scene["confound"]
        (world / "scenes.jsonl").write_text(json.dumps(scene) + "\n")
        texts.add(answer(tasks, run, world, tmp_path / "answers.json", noise=0.3).read_text())
    assert len(texts) == 1


def test_noise_is_the_share_of_wrong_answers_half_of_each_kind(tmp_path: Path, world: Path) -> None:
    count = 600
    ratings = said(tmp_path, world, [("kitchen", highlight(GUITAR=1.0))] * count, noise=0.2, seed=3)
    other = sum(r.content.subject != "guitar" for r in ratings)
    opposite = sum(r.rating == 5 for r in ratings)
    assert all(r.rating == 1 for r in ratings if r.content.subject != "guitar")
    # Four standard deviations of a binomial.
    assert abs(other + opposite - 0.2 * count) < 4 * (0.16 * count) ** 0.5
    assert abs(other - opposite) < 4 * (0.2 * count) ** 0.5


def test_the_same_seed_gives_the_same_answers_whatever_else_is_asked(tmp_path: Path, world: Path) -> None:
    maps = [("kitchen", highlight(GUITAR=1.0))] * 40
    for name in "abc":
        (tmp_path / name).mkdir()
    first = said(tmp_path / "a", world, maps, noise=0.5, seed=1)
    assert said(tmp_path / "b", world, maps[:20], noise=0.5, seed=1) == first[:20]
    assert said(tmp_path / "c", world, maps, noise=0.5, seed=2) != first


def test_blind_answers_do_not_depend_on_the_map(tmp_path: Path, world: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
    blind = said(tmp_path / "a", world, [("kitchen", highlight(GUITAR=1.0))] * 200, blind=True)
    other = said(tmp_path / "b", world, [("kitchen", highlight(POT=1.0))] * 200, blind=True)
    assert [(r.content, r.rating) for r in blind] == [(r.content, r.rating) for r in other]
    assert {r.content.subject for r in blind} == {"pot", "stove", "guitar", "cat"}
    assert {r.rating for r in blind} == {1, 5}


def test_tasks_of_something_else_are_refused(tmp_path: Path, world: Path) -> None:
    run, tasks = explained(tmp_path, [("kitchen", highlight(POT=1.0))])
    out = tmp_path / "answers.json"
    with pytest.raises(OptionInvalid, match="noise"):
        answer(tasks, run, world, out, noise=1.5)
    with pytest.raises(DataError, match="cannot be read"):
        answer(tasks, run, tmp_path, out)
    with pytest.raises(DataError, match="no tasks"):
        answer(run, run, world, out)
    asked = json.loads((tasks / "tasks.json").read_text())
    asked[0]["metadata"]["item"] = 5
    (tasks / "tasks.json").write_text(json.dumps(asked))
    with pytest.raises(DataError, match="task-0"):
        answer(tasks, run, world, out)
    assert not out.exists()
