"""One seed of the debugging benchmark: a world, a base model, what is said of it, and a retrained model a strategy.

Every model's answers on the test set are kept as they come, so that a run that was stopped goes on.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from saaa.difficulty import Concept
from training.annotation.config import ExportConfig, ImportConfig
from training.annotation.export import export_tasks
from training.annotation.importing import import_answers
from training.attribute import AttributeConfig
from training.attribute.job import attribute_folder
from training.debugging.generators.world import WorldGenerator
from training.debugging.materials import read_concepts
from training.debugging.pool import look
from training.debugging.simulated import answer
from training.debugging.slices import find_slices
from training.debugging.strategies import STRATEGIES, Materials, StrategyOptions, make_debug_set
from training.egdd.config import ArchiveConfig, EgddConfig
from training.egdd.packing import pack
from training.egdd.train import train
from training.files import write_json
from training.scenes.config import ScenesConfig, confound_cue
from training.scenes.writer import run as make_world

BASE, OURS = "base", "ours"
RANDOM_ANSWERS, SHUFFLED = "ours, random answers", "ours, shuffled concepts"
CONTROLS = (RANDOM_ANSWERS, SHUFFLED)
KIND = "object"
NOTES = "concepts"
Concepts = Mapping[str, Sequence[Concept]]


def measured(folder: Path, settings: Mapping[str, Any], run: Mapping[str, Any], processes: int) -> list[dict[str, Any]]:
    """Run all seeds of one co-occurrence, some at a time; what `folder` holds already is not run again.

    Args:
        folder: gets a folder a seed.
        settings: of debugging.yaml.
        run: one of its `runs`.
        processes: seeds at a time, each in a process with one thread.

    Returns:
        A seed each what its models answered: by name the content of its file, see `_tested`; and "concepts".
    """
    seeds = run["seeds"]
    places = {seed: folder / str(seed) for seed in seeds}
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        started = [pool.submit(one_seed, places[seed], settings, run, seed) for seed in seeds]
        for done in as_completed(started):
            done.result()
    return [{path.stem: json.loads(path.read_text()) for path in places[seed].glob("*.json")} for seed in seeds]


def one_seed(folder: Path, settings: Mapping[str, Any], run: Mapping[str, Any], seed: int) -> None:
    """Run one seed, or what is missing of it."""
    names = [*STRATEGIES, *(CONTROLS if run["controls"] else ())]
    if all((folder / f"{name}.json").exists() for name in (BASE, NOTES, *names)):
        return
    torch.set_num_threads(1)
    work = folder / "work"
    world, labels = _world(work / "world", settings, run, seed)
    data = _data(work / "data", world)
    base = EgddConfig(**settings["recipe"], seed=seed, data_path=data, output_dir=work / BASE)
    checkpoint = work / BASE / "last.pt"
    if not (folder / f"{BASE}.json").exists() or not checkpoint.exists():
        write_json(folder / f"{BASE}.json", _trained(base, world))
    concepts = _concepts(work, checkpoint, world, labels, settings, seed)
    write_json(folder / f"{NOTES}.json", _judged(concepts, labels))
    for name in names:
        if not (folder / f"{name}.json").exists():
            debug_set = work / "debug" / name
            made = make_debug_set(
                OURS if name in CONTROLS else name,
                Materials(
                    model=checkpoint,
                    classes=labels,
                    pool=world / "pool",
                    failures=world / "val",
                    train=world / "train",
                    concepts=said(name, concepts, seed),
                    llm_concepts=settings["llm_concepts"],
                    generator=WorldGenerator(size=settings["world"]["size"]),
                ),
                StrategyOptions(budget=settings["budget"], seed=seed, threads=1),
                debug_set,
            )
            output = work / "retrained"
            shutil.rmtree(output, ignore_errors=True)
            same_steps = sum(1 for _ in (world / "train").rglob("*.jpg"))
            config = replace(base, output_dir=output, extra_data=(made.images,), epoch_images=same_steps)
            found = _trained(config, world)
            write_json(folder / f"{name}.json", {**found, "images": len(made.items), "told": list(made.told)})
    shutil.rmtree(work)


def said(name: str, concepts: Mapping[str, Concepts], seed: int) -> Concepts:
    """The concepts that a strategy or control is given."""
    if name == RANDOM_ANSWERS:
        return concepts["random"]
    if name == SHUFFLED:
        return shuffled(concepts["0"], seed)
    return concepts["0"]


def shuffled(concepts: Concepts, seed: int) -> dict[str, tuple[Concept, ...]]:
    """Each class with the confounded concepts of another one; what is valid stays."""
    labels = sorted(concepts)
    turn = 1 + seed % (len(labels) - 1)
    return {
        label: (
            *(c for c in concepts[labels[(place + turn) % len(labels)]] if c.verdict == "confounded"),
            *(c for c in concepts[label] if c.verdict != "confounded"),
        )
        for place, label in enumerate(labels)
    }


def _world(
    folder: Path, settings: Mapping[str, Any], run: Mapping[str, Any], seed: int
) -> tuple[Path, tuple[str, ...]]:
    told = settings["world"]
    labels = tuple(told["classes"])
    config = ScenesConfig(
        output_dir=folder,
        classes=labels,
        **{split: told[split] * len(labels) for split in ("train", "pool", "val", "test")},
        size=told["size"],
        seed=seed,
        confound=tuple(f"{label}={KIND}" for label in labels),
        confound_strength=run["co_occurrence"],
        confound_held_out=told["held_out"],
        workers=1,
    )
    make_world(config)
    return folder, labels


def _data(folder: Path, world: Path) -> Path:
    """What a training reads: train/, and of val/ one image a class, since nothing is chosen by it."""
    if not folder.exists():
        partial = folder.with_name("data.partial")
        shutil.rmtree(partial, ignore_errors=True)
        for label in sorted((world / "val").iterdir()):
            (partial / "val" / label.name).mkdir(parents=True)
            first = min(label.iterdir())
            shutil.copy(first, partial / "val" / label.name / first.name)
        (partial / "train").symlink_to((world / "train").resolve())
        partial.rename(folder)
    return folder


def _trained(config: EgddConfig, world: Path) -> dict[str, Any]:
    """Train, and ask for the whole test set.

    Returns:
        `files` of the test set, `right` (0 or 1 each), `slices` ("aligned" or "counter" each); `seconds` of the
        training on the wall clock and `cpu_seconds`.
    """
    wall, cpu = time.monotonic(), time.process_time()
    train(config)
    seconds = {"seconds": time.monotonic() - wall, "cpu_seconds": time.process_time() - cpu}
    found = look(config.output_dir / "last.pt", world / "test", threads=1)
    slices = find_slices(world, "test")
    files = list(found.listing.names)
    right = [int(value) for value in ~found.wrong]
    return {**seconds, "files": files, "right": right, "slices": [slices[file] for file in files]}


def _concepts(
    work: Path, checkpoint: Path, world: Path, labels: tuple[str, ...], settings: Mapping[str, Any], seed: int
) -> dict[str, Concepts]:
    """What the simulated annotator says of the base's attributions on val/, by its noise; "random" did not look."""
    archive, maps, tasks = work / "base.mar", work / "attributions", work / "tasks"
    if not archive.exists():
        pack(ArchiveConfig(checkpoint=checkpoint, output=archive, faithfulness_images=0))
    attribute_folder(AttributeConfig(data=world / "val", out=maps, archive=archive, threads=1, workers=1, gallery=0))
    if not (tasks / "tasks.json").exists():  # which is written last
        shutil.rmtree(tasks, ignore_errors=True)
        export_tasks(ExportConfig(run=maps, out=tasks))
    found: dict[str, Concepts] = {}
    for name in (*map(str, settings["noise"]), "random"):
        noise = {"blind": True} if name == "random" else {"noise": float(name)}
        answers = answer(tasks, maps, world, work / "answers" / f"{name}.json", seed=seed, **noise)
        import_answers(ImportConfig(answers=(answers,), out=work / "said" / name))
        found[name] = read_concepts(work / "said" / name / "concepts.json", labels, settings["least_share"])
    return found


def _judged(concepts: Mapping[str, Concepts], labels: Sequence[str]) -> dict[str, Any]:
    """By noise: how many confounded concepts were found, how many of them are the planted ones, how many were planted;
    and the concepts themselves."""
    planted = {(label, confound_cue(label, KIND)) for label in labels}
    judged = {}
    for name, by_class in concepts.items():
        found = {(label, c.name) for label, those in by_class.items() for c in those if c.verdict == "confounded"}
        judged[name] = {
            "found": len(found),
            "right": len(found & planted),
            "planted": len(planted),
            "concepts": {label: [c.to_json() for c in those] for label, those in by_class.items()},
        }
    return judged


def shares(answers: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, float]:
    """Accuracies of a model on the test set: "test" (all of it), "aligned", "counter", and "failures" (what the base
    got wrong; 0 where that is nothing)."""
    right, before = np.array(answers["right"], float), np.array(base["right"], bool)
    slices = np.array(answers["slices"])
    assert answers["files"] == base["files"], "all models of a seed answer the same test set"
    found = {name: float(right[slices == name].mean()) for name in ("aligned", "counter")}
    return {"test": float(right.mean()), **found, "failures": float(right[~before].mean()) if not before.all() else 0.0}
