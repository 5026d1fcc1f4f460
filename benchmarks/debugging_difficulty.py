"""Planted hard instances: does the relation-aware estimate of difficulty find them better than the mean rating does?

Each instance is the graph of a scene of the world, with one rating a unit: an object, an attribute, a relationship. In
a hard instance the model attends one of its objects wrongly, so the units of that object and those that it takes part
in are rated low, all others high. In an easy one all are rated high. Some ratings are anybody's guess.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saaa.annotations import Content, Rating, Unit
from saaa.difficulty import DifficultyOptions, estimate
from saaa.role_graph import NodeKind
from training.scenes.config import ScenesConfig
from training.scenes.records import read_scenes
from training.scenes.writer import run as make_world

RELATION_AWARE, DILUTED, MEAN = "relation_aware", "relation_aware_mean", "mean"
"""By default, by the mean of the objects, and the published mean rating."""
RESAMPLES = 10_000


def difficulty(folder: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Plant and rank.

    Args:
        folder: where the world is drawn, unless it is there.
        settings: `scenes`, `seed`, `hard` (share of the instances), `noise` (share of ratings that are guessed), `low`
            and `high` (bounds of the ratings of what is attended wrongly and rightly).

    Returns:
        AUCs by scorer, 0 to 1, and the differences to "mean" with 95 % intervals (bootstrap over instances, paired).
    """
    count = int(settings["scenes"])
    world = ScenesConfig(output_dir=folder, train=1, val=1, test=count, seed=settings["seed"], size=64, workers=1)
    make_world(world)
    scenes = [scene for scene in read_scenes(folder) if scene["split"] == "test"]
    rng = Random(settings["seed"])
    hard = [place < settings["hard"] * count for place in range(count)]
    rng.shuffle(hard)
    ratings = [r for scene, is_hard in zip(scenes, hard, strict=True) for r in rate(scene, is_hard, settings, rng)]
    names = [scene["id"] for scene in scenes]
    scores = {name: np.array([found[id_] for id_ in names]) for name, found in score(ratings).items()}
    return compare(scores, np.array(hard), seed=settings["seed"])


def rate(scene: Mapping[str, Any], hard: bool, settings: Mapping[str, Any], rng: Random) -> list[Rating]:
    """One rating of every unit of a scene; `hard` plants an object that is attended wrongly."""
    # An object that stands twice in the scene would lend its ratings to the other one of its name.
    kinds = [thing["name"] for thing in scene["objects"]]
    wrong = rng.choice([thing["object_id"] for thing in scene["objects"] if kinds.count(thing["name"]) == 1])
    names = {thing["object_id"]: thing["name"] for thing in scene["objects"]}
    units: list[tuple[Content, bool]] = []
    for thing in scene["objects"]:
        touched = thing["object_id"] == wrong
        units.append((Content(kind=NodeKind.OBJECT, subject=thing["name"]), touched))
        for word in thing["attributes"]:
            units.append((Content(kind=NodeKind.ATTRIBUTE, subject=thing["name"], predicate=word), touched))
    for link in scene["relationships"]:
        ends = link["subject_id"], link["object_id"]
        first, second = names[ends[0]], names[ends[1]]
        content = Content(kind=NodeKind.RELATIONSHIP, subject=first, predicate=link["name"], target=second)
        units.append((content, wrong in ends))
    ratings = []
    for number, (content, touched) in enumerate(units):
        guessed = rng.random() < settings["noise"]
        bounds = (1, 5) if guessed else settings["low"] if hard and touched else settings["high"]
        ratings.append(
            Rating(
                id=f"{scene['id']}/{number}",
                unit=Unit(image=scene["id"], position=number, word=content.predicate or content.subject),
                stated=content.kind,
                content=content,
                typed=str(content),
                rating=round(rng.uniform(*bounds), 1),
            )
        )
    return ratings


def score(ratings: Sequence[Rating]) -> dict[str, dict[str, float]]:
    """Each image's difficulty by scorer, high is hard; "relation_aware" has the default options."""
    default, diluted = estimate(ratings), estimate(ratings, DifficultyOptions(aggregate="mean"))
    return {
        RELATION_AWARE: {found.image: found.difficulty for found in default.instances},
        DILUTED: {found.image: found.difficulty for found in diluted.instances},
        MEAN: {found.image: -found.mean_relevance for found in default.instances},
    }


def compare(scores: Mapping[str, NDArray[np.float64]], hard: NDArray[np.bool_], *, seed: int) -> dict[str, Any]:
    """AUCs, and by how much the relation-aware ones are above the mean's."""
    draws = np.random.default_rng(seed)
    drawn: dict[str, list[float]] = {name: [] for name in scores}
    for _ in range(RESAMPLES):
        rows = draws.integers(0, len(hard), len(hard))
        for name, values in scores.items():
            drawn[name].append(auc(values[rows], hard[rows]))
    found: dict[str, Any] = {name: auc(values, hard) for name, values in scores.items()}
    for name in (RELATION_AWARE, DILUTED):
        low, high = np.percentile(np.array(drawn[name]) - np.array(drawn[MEAN]), [2.5, 97.5])
        found[f"{name}_above_mean"] = {"difference": found[name] - found[MEAN], "interval": [float(low), float(high)]}
    return found


def auc(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> float:
    """The chance that a positive one scores higher than a negative one; ties count half."""
    order = np.sort(scores[~positive])
    below = np.searchsorted(order, scores[positive], "left")
    up_to = np.searchsorted(order, scores[positive], "right")
    return float((below + up_to).mean() / (2 * len(order)))
