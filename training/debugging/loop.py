"""`saaa-train debug-train`: from a model and what people say of it to a better model, stage by stage.

    base/                     the base model's training (with --base only its note)
    attributions/             where the base looks in val/
    tasks/                    what people are asked
    models/NAME-VERSION.mar   archives: the base 1.0, each retrained model the next version
    STRATEGY/                 of each strategy: config.yaml, answers.json (the simulated annotator's), annotations/
                              (what the answers say), debug_set/, retrained/, report.json, report.html

Every stage is kept: the same command, started again, goes on where it stopped.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from saaa import archive as archives
from saaa.difficulty import Concept
from saaa.errors import DataError, OptionInvalid
from training.annotation.config import ExportConfig, ImportConfig
from training.annotation.export import TASKS as LIST
from training.annotation.export import export_tasks
from training.annotation.importing import import_answers
from training.attribute.config import AttributeConfig
from training.attribute.job import attribute_folder
from training.debugging.concept_lists import read_concepts as read_listed
from training.debugging.config import ATTRIBUTIONS, BASE, TASKS, DebugTrainConfig
from training.debugging.debug_set import MANIFEST, DebugSet, announce, planned_prompts
from training.debugging.materials import open_generator, read_concepts
from training.debugging.models import Model, base_of, packed, retraining, trained
from training.debugging.prompts import class_prompts
from training.debugging.report import report
from training.debugging.strategies import STRATEGIES, Materials, StrategyOptions, make_debug_set
from training.egdd.data import list_images
from training.options import save_config
from training.scenes.records import SCENES
from training.stopping import Stopped

SPLITS = ("train", "val", "test")
DEBUG_SET = "debug_set"


def debug_train(config: DebugTrainConfig) -> dict[str, Any]:
    """Close the loop once; print where it stands.

    Returns:
        The content of report.json; nothing where people's answers are awaited.

    Raises:
        OptionInvalid: an option that contradicts what is in `config.out`, or lacks another.
        DataError: the data, or the answers, are missing or unusable.
        GeneratorFailed: the generator failed; the same command goes on.
        Stopped: by SIGINT or SIGTERM while a model was trained; the same command goes on.
        SaaaError: a stage failed.
    """
    _check(config)
    with _alone(config.out):
        return _loop(config)


def _loop(config: DebugTrainConfig) -> dict[str, Any]:
    folder = config.out / config.folder
    with _going_on():
        base = base_of(config)
    archive = packed(config, config.out / BASE, base)
    concepts: dict[str, tuple[Concept, ...]] | None = None
    if config.answers or config.annotator != "none" or "concepts" in STRATEGIES[config.strategy].needs:
        answers = _answers(config, archive)
        if not answers:
            return {}
        imported = ImportConfig(answers=answers, out=folder / "annotations", run=config.out / ATTRIBUTIONS)
        import_answers(imported)
        concepts = read_concepts(folder / "annotations" / "concepts.json", base.classes, config.least_share)
    debug_set = _debug_set(config, archive, base, concepts)
    for line in debug_set.told:
        print(line)
    with _going_on():
        better = trained(retraining(config, base, debug_set.images))
    card = {
        "debugging": {
            "strategy": config.strategy,
            "budget": config.budget,
            "images": len(debug_set.items),
            "base": archives.info(archive).digest,
            "annotator": config.annotator if config.annotator != "none" else "people" if config.answers else None,
        }
    }
    after = packed(config, folder, better, card)
    save_config(config, folder / "config.yaml")
    return report(config, before=archive, after=after, debug_set=debug_set, concepts=concepts)


def _answers(config: DebugTrainConfig, archive: Path) -> tuple[Path, ...]:
    """Explain the validation images, make tasks of them, and have them answered; nothing where answers are awaited."""
    run = config.out / ATTRIBUTIONS
    attribute_folder(
        AttributeConfig(
            data=config.data / "val",
            out=run,
            archive=archive,
            targets=config.targets,
            method=config.method,
            limit=config.explain,
            threads=config.threads,
        )
    )
    tasks = config.out / TASKS
    if not (tasks / LIST).is_file():  # written last
        shutil.rmtree(tasks, ignore_errors=True)
        export_tasks(ExportConfig(run=run, out=tasks))
    if config.annotator == "simulated":
        from training.debugging.simulated import answer

        print("The answers are a simulated annotator's, not people's.")
        out = config.out / config.folder / "answers.json"
        out.parent.mkdir(parents=True, exist_ok=True)
        return (answer(tasks, run, config.data, out, noise=config.noise, seed=config.seed),)
    if not config.answers:
        print(
            f"Next: have the tasks in {tasks} answered (tasks.json is Scale's, label_studio/ is Label Studio's: "
            "`saaa-train annotate serve`), then start the same command again with --answers FILE."
        )
    return config.answers


def _debug_set(
    config: DebugTrainConfig, archive: Path, base: Model, concepts: Mapping[str, tuple[Concept, ...]] | None
) -> DebugSet:
    """Make the debug set."""
    needs = STRATEGIES[config.strategy].needs
    pool = config.data / "pool"
    materials = Materials(
        model=archive,
        classes=base.classes,
        pool=pool if pool.is_dir() else None,
        failures=config.data / "val",
        train=config.data / "train",
        concepts=concepts,
        llm_concepts=None if config.llm_concepts is None else read_listed(config.llm_concepts, base.classes),
        generator=open_generator(config) if "generator" in needs else None,
    )
    options = StrategyOptions(
        budget=config.budget,
        seed=config.seed,
        similarity=config.similarity,
        uncertainty=config.uncertainty,
        filter_factor=config.filter_factor,
        threads=config.threads,
    )
    return make_debug_set(config.strategy, materials, options, config.out / config.folder / DEBUG_SET)


def _check(config: DebugTrainConfig) -> None:
    """Refuse at once what would fail after the training."""
    for split in SPLITS:
        if not (config.data / split).is_dir():
            raise DataError(f"There is no folder {config.data / split}; --data needs {', '.join(SPLITS)}.")
    if config.out.resolve().is_relative_to(config.data.resolve()):
        raise OptionInvalid(f"out ({config.out}) lies inside data; choose a folder beside it.", field="out")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise OptionInvalid("debug-train is one process; train the base under torchrun and give it with --base.")
    needs = STRATEGIES[config.strategy].needs
    if "pool" in needs and not (config.data / "pool").is_dir():
        raise DataError(f"{config.strategy} chooses from {config.data / 'pool'}, which is not there.")
    if "llm_concepts" in needs and config.llm_concepts is None:
        raise OptionInvalid(f"{config.strategy} needs --llm_concepts FILE.", field="llm_concepts")
    if missing := [path for path in config.answers if not path.is_file()]:
        raise DataError(f"There is no file {missing[0]} of answers.")
    if config.annotator == "simulated" and not (config.data / SCENES).is_file():
        raise OptionInvalid(
            "the simulated annotator answers on a world of `saaa-train scenes` only.", field="annotator"
        )
    if "generator" in needs:
        generator = open_generator(config)
        if not (config.out / config.folder / DEBUG_SET / MANIFEST).is_file():
            prompts = class_prompts(list_images(config.data / "train").classes)
            announce(generator, planned_prompts(prompts, config.budget * config.filter_factor, config.seed))


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Keep other processes out of the folder."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        claim = (out / ".lock").open("w")
    except OSError as error:
        raise DataError(f"Cannot write to {out}: {error.strerror or error}") from error
    with claim:
        try:
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataError(f"Another process is at work on {out}; wait for it or stop it.") from None
        yield


@contextmanager
def _going_on() -> Iterator[None]:
    """Let a training that is stopped say how the loop goes on."""
    try:
        yield
    except Stopped as stop:
        raise Stopped("stopped; the same command goes on from here", stop.signal) from None
