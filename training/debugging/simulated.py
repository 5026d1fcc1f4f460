"""A simulated annotator: answers annotation tasks on the procedural world, from the map and what is in the scene.

It sees what a person sees: the map of a task, and the objects of the scene where they are. It knows what belongs to a
class (`training.scenes.classes.RULES`). It never reads which confound a scene carries, nor whether it carries one. Its
answers are Scale's, and go the way that people's do. They are no people's answers, and whatever reports them says so.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import h5py  # type: ignore[import-untyped]
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from saaa.annotations.readers import DESCRIPTION, RATING, TYPE
from saaa.client.attributions import Region
from saaa.errors import DataError
from saaa.report.heatmap import spread
from training.annotation.export import TASKS, open_run
from training.files import whole
from training.options import check
from training.scenes.classes import RULES
from training.scenes.records import read_scenes

ANNOTATOR = "simulated"
FITS, FITS_NOT = 5, 1
"""Ratings: what is highlighted belongs to the class, or not."""


@dataclass(frozen=True)
class Seen:
    """A scene as a person sees it."""

    names: Mapping[int, str]
    """Of the objects, by their number in the mask."""
    attributes: Mapping[int, tuple[str, ...]]
    relations: frozenset[tuple[int, str, int]]

    @classmethod
    def of(cls, scene: Mapping[str, Any]) -> Seen:
        """From a line of scenes.jsonl, of which the objects and their relationships are read and nothing else."""
        return cls(
            {o["object_id"]: o["name"] for o in scene["objects"]},
            {o["object_id"]: tuple(o["attributes"]) for o in scene["objects"]},
            frozenset((r["subject_id"], r["name"], r["object_id"]) for r in scene["relationships"]),
        )

    def pairs(self, label: str) -> Iterator[tuple[int, int]]:
        """The objects that meet the relationship of a class's rule."""
        rule = RULES[label]
        for subject, name, other in sorted(self.relations):
            if name == rule.relation and (self.names[subject], self.names[other]) == tuple(k for k, _ in rule.needs):
                yield subject, other

    def belongs(self, thing: int, label: str) -> bool:
        """Whether an object is one that the class's rule asks for."""
        return any(
            self.names[thing] == kind and (not word or word in self.attributes[thing])
            for kind, word in RULES[label].needs
        )


@dataclass(frozen=True)
class Said:
    """An answer before it is written down."""

    things: tuple[int, ...]
    """One object, or the two of a relationship."""
    fits: bool


def answer(
    tasks: Path, run: Path, world: Path, out: Path, *, noise: float = 0.0, seed: int = 0, blind: bool = False
) -> Path:
    """Answer the tasks on class maps of a world's pictures.

    Where the map lies is decided by its cosine similarity with the masks of the objects, and of the two objects
    together whose relationship makes the class: the most similar one is named. It rates 5 if that belongs to the class
    asked for, else 1.

    Args:
        tasks: folder that `saaa-train annotate export` wrote.
        run: the run of `saaa-train attribute` that the tasks are of.
        world: the world whose pictures the run explained.
        out: the file of answers to write, a Scale tasks.json.
        noise: share of wrong answers, 0 to 1: half of them name another object of the scene, half rate the opposite.
        seed: of the wrong answers; the same task gets the same answer.
        blind: look at nothing: any object of the scene, rated 1 or 5 by chance. A control.

    Returns:
        `out`.

    Raises:
        DataError: the tasks are not of the run, the run not of the world, or `out` cannot be written.
        OptionInvalid: noise is outside 0 to 1.
    """
    check("noise", noise, at_least=0, at_most=1)
    _, records = open_run(run)
    scenes = {scene["id"]: Seen.of(scene) for scene in read_scenes(world)}
    answered = []
    with ExitStack() as shards:
        maps = _Maps(run, shards)
        for task in _read_tasks(tasks):
            unit = task["metadata"]["unit"]
            rng = Random(f"{seed}/{task['task_id']}")
            try:
                record = records[task["metadata"]["item"]]
                scene = scenes[Path(record["file"]).stem]
                made = next(m for m in record["maps"] if m["kind"] == "class" and m["target"] == unit["position"])
                label = next(name for name in RULES if name == unit["word"])
            except (IndexError, KeyError, StopIteration) as error:
                raise DataError(f"Task {task['task_id']} of {tasks} is not of {run} on {world}.") from error
            if blind:
                said = Said((rng.choice(sorted(scene.names)),), rng.random() < 0.5)
            else:
                mask = np.asarray(Image.open(world / "masks" / f"{Path(record['file']).stem}.png"))
                said = _look(maps.read(record, made), Region(**record["covered"]), mask, scene, label)
                if rng.random() < noise:
                    said = _wrong(said, scene, rng)
            answered.append(_written(task, said, scene))
    with whole(out) as aside:
        aside.write_text(json.dumps(answered, indent=1) + "\n", encoding="utf-8")
    return out


class _Maps:
    """The maps of a run."""

    def __init__(self, run: Path, stack: ExitStack) -> None:
        self._run, self._stack = run, stack
        self._open: dict[str, Any] = {}

    def read(self, record: Mapping[str, Any], made: Mapping[str, Any]) -> NDArray[np.float32]:
        name = record["shard"]
        if name not in self._open:
            self._open[name] = self._stack.enter_context(h5py.File(self._run / name, "r"))
        return np.asarray(self._open[name][made["data"]][()], np.float32)


def _look(values: NDArray[np.float32], region: Region, mask: NDArray[np.uint8], scene: Seen, label: str) -> Said:
    """Name what the map lies on; of equals the one with the lowest number."""
    height, width = mask.shape
    shown = np.clip(np.nan_to_num(spread(values, region, (width, height), 1.0)), 0, None)
    mass = np.bincount(mask.ravel(), weights=shown.ravel(), minlength=256)
    area = np.bincount(mask.ravel(), minlength=256)

    def similarity(things: tuple[int, ...]) -> float:
        """To the map, but for the map's norm, which is the same for all."""
        pixels = sum(int(area[thing]) for thing in things)
        return float(sum(mass[thing] for thing in things)) / pixels**0.5 if pixels else 0.0

    named = [(thing,) for thing in sorted(scene.names)]
    best = max([*named, *scene.pairs(label)], key=similarity)
    return Said(best, all(scene.belongs(thing, label) for thing in best))


def _wrong(said: Said, scene: Seen, rng: Random) -> Said:
    """A wrong answer: another object, or the opposite rating."""
    others = [thing for thing in sorted(scene.names) if thing not in said.things]
    if others and rng.random() < 0.5:
        return Said((rng.choice(others),), said.fits)
    return Said(said.things, not said.fits)


def _written(task: Mapping[str, Any], said: Said, scene: Seen) -> dict[str, Any]:
    """The task with its answer, as Scale exports it."""
    if len(said.things) == 2:
        first, second = said.things
        name = next(n for s, n, o in sorted(scene.relations) if (s, o) == (first, second))
        kind, description = "relationship", f"({scene.names[first]}, {name}, {scene.names[second]})"
    else:
        kind, description = "object", scene.names[said.things[0]]
    typed = {TYPE: [kind], DESCRIPTION: [description], RATING: [str(FITS if said.fits else FITS_NOT)]}
    return {**task, "status": "completed", "annotator": ANNOTATOR, "response": {"annotations": typed}}


def _read_tasks(folder: Path) -> list[dict[str, Any]]:
    """The tasks on class maps."""
    try:
        tasks = json.loads((folder / TASKS).read_text(encoding="utf-8"))
        return [task for task in tasks if task["metadata"]["unit"]["target"] == "class"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder} holds no tasks of `saaa-train annotate export`: {error}") from error
