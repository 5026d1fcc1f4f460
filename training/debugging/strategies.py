"""The seven strategies that make a debug set, each a selector or a source of prompts, and what it needs.

Source: the strategies as the AACA repository defines them; `filter_factor` is the selection step of SA3's.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np

from saaa.difficulty import Concept
from saaa.errors import DataError, OptionInvalid
from training.debugging.debug_set import (
    DebugSet,
    Item,
    Planner,
    Store,
    announce,
    copy,
    draw,
    planned_choice,
    planned_prompts,
)
from training.debugging.generators.base import Generator
from training.debugging.pool import listed, look, readable
from training.debugging.prompts import Prompts, class_prompts, concept_prompts, human_prompts, with_token
from training.debugging.selectors import (
    Scores,
    Similarity,
    Uncertainty,
    hybrid,
    nearness,
    random_scores,
    take,
    uncertainty,
)
from training.egdd.listing import Listing
from training.options import check

DRAWN, TOKENS = "drawn", "tokens"


@dataclass(frozen=True, kw_only=True)
class StrategyOptions:
    """How a debug set is made.

    Raises:
        OptionInvalid: an option outside its range.
    """

    budget: int = 100
    """Images a class; the published runs have 1000."""
    seed: int = 0
    similarity: Similarity = "centroid"
    """s-similarity: the distance to the mean of a class's failures, or to the nearest of them."""
    uncertainty: Uncertainty = "entropy"
    """s-active-learning: what the model is asked to be unsure by."""
    filter_factor: int = 1
    """Above 1, a generating strategy makes that many times the budget, and the images that the model is least sure of
    and that are farthest from its failures are kept, as published (with 3)."""
    threads: int | None = None
    """Threads of torch on the CPU; default: torch's choice."""

    def __post_init__(self) -> None:
        check("budget", self.budget, at_least=1)
        check("seed", self.seed, at_least=0)
        check("filter_factor", self.filter_factor, at_least=1)
        check("threads", self.threads, at_least=1)
        for name, known in (("similarity", get_args(Similarity)), ("uncertainty", get_args(Uncertainty))):
            if getattr(self, name) not in known:
                raise OptionInvalid(f"{name} is {getattr(self, name)!r}; it must be one of {known}.", field=name)


@dataclass(frozen=True, kw_only=True)
class Materials:
    """What there is to make a debug set of; each strategy says which of it it needs."""

    model: Path
    """The base model: an archive (.mar) or a checkpoint of `saaa-train egdd`."""
    classes: tuple[str, ...]
    """Of the debug set, among the model's."""
    pool: Path | None = None
    """Images to choose from, which the model was not trained on; class folders or shards, as the two below."""
    failures: Path | None = None
    """Images whose misclassified ones are a class's failures: a validation set, never the test set."""
    train: Path | None = None
    """Images to learn the classes' tokens from; class folders."""
    concepts: Mapping[str, Sequence[Concept]] | None = None
    """Of each class what people said of the model's attributions."""
    llm_concepts: Mapping[str, Sequence[str]] | None = None
    """Of each class what a language model listed."""
    generator: Generator | None = None


@dataclass(frozen=True)
class Strategy:
    """A way to a debug set: either `choose` or `prompts`."""

    needs: tuple[str, ...]
    """Fields of `Materials`, beside the model and the classes."""
    choose: Callable[[Materials, StrategyOptions], tuple[Listing, Scores]] | None = None
    """Candidates and their scores."""
    prompts: Callable[[Materials], Prompts] | None = None


NEEDED = {
    "pool": "a folder of images to choose from",
    "failures": "a folder of validation images, to see which the model gets wrong",
    "train": "the training images, to learn the classes' tokens from",
    "concepts": "what people said of the model's attributions",
    "llm_concepts": "concepts that a language model listed",
    "generator": "a generator of images",
}


def _random(materials: Materials, options: StrategyOptions) -> tuple[Listing, Scores]:
    listing = readable(listed(materials.model, _given(materials.pool), materials.classes))
    return listing, random_scores(len(listing), options.seed)


def _similar(materials: Materials, options: StrategyOptions) -> tuple[Listing, Scores]:
    failures = look(materials.model, _given(materials.failures), materials.classes, threads=options.threads).failures
    found = look(materials.model, _given(materials.pool), materials.classes, threads=options.threads)
    return found.listing, nearness(found.embeddings, found.labels, failures, options.similarity)


def _uncertain(materials: Materials, options: StrategyOptions) -> tuple[Listing, Scores]:
    found = look(materials.model, _given(materials.pool), materials.classes, threads=options.threads)
    return found.listing, uncertainty(found.logits, options.uncertainty)


def _listed_concepts(materials: Materials) -> Prompts:
    listed = materials.llm_concepts or {}
    return concept_prompts({label: listed.get(label, ()) for label in materials.classes})


STRATEGIES: Mapping[str, Strategy] = {
    "s-random": Strategy(("pool",), choose=_random),
    "s-similarity": Strategy(("pool", "failures"), choose=_similar),
    "s-active-learning": Strategy(("pool",), choose=_uncertain),
    "g-llm": Strategy(("generator",), prompts=lambda m: class_prompts(m.classes)),
    "g-tg": Strategy(("generator", "train"), prompts=lambda m: with_token(class_prompts(m.classes))),
    "g-llm-prompt": Strategy(("generator", "llm_concepts"), prompts=_listed_concepts),
    "ours": Strategy(("generator", "train", "concepts"), prompts=lambda m: human_prompts(m.concepts or {}, m.classes)),
}
"""By their published names. G-LLM asks a generator for the class alone, whatever its name says."""


def make_debug_set(strategy: str, materials: Materials, options: StrategyOptions, out: Path) -> DebugSet:
    """Make a debug set, or go on with one.

    Args:
        strategy: one of `STRATEGIES`.
        materials: what it is made of.
        options: how.
        out: its folder; a set of the same strategy, materials and options that is there already goes on.

    Raises:
        OptionInvalid: no such strategy, something that it needs is not given, another debug set in `out`, a class that
            the model does not know, or a generator that draws none of a class's prompts.
        DataError: images are missing or unreadable, or `out` holds something else or cannot be written.
        ArchiveError, CheckpointError: the model is unusable.
        GeneratorFailed: the generator failed; what it made is kept, and the same call goes on.
    """
    if strategy not in STRATEGIES:
        raise OptionInvalid(
            f"There is no strategy {strategy!r}; choose one of {', '.join(STRATEGIES)}.", field="strategy"
        )
    way = STRATEGIES[strategy]
    filters = way.prompts is not None and options.filter_factor > 1
    needs = (*way.needs, *(("failures",) if filters else ()))
    _check(strategy, materials, needs)
    identity = _identity(strategy, materials, options, needs)
    generator = materials.generator if "generator" in needs else None
    supply = generator.supply if isinstance(generator, Planner) else ""
    store = Store(out, identity, supply)
    if store.complete:
        return store.finish()
    if way.prompts is None:
        _choose(store, way, materials, options)
    elif not filters:
        _draw(store, way.prompts(materials), materials, options.budget, options)
    else:
        drawn = Store(out / DRAWN, {**identity, "part": DRAWN}, supply)
        if not drawn.complete:
            _draw(drawn, way.prompts(materials), materials, options.budget * options.filter_factor, options)
        _keep(store, drawn.finish(), materials, options)
    return store.finish()


def _choose(store: Store, way: Strategy, materials: Materials, options: StrategyOptions) -> None:
    """Choose from the pool."""
    pool = _given(materials.pool)
    if not store.items:
        assert way.choose is not None
        listing, scores = way.choose(materials, options)
        store.plan(*_plan(listing, scores, materials, options))
    copy(store, listed(materials.model, pool, materials.classes))


def _draw(store: Store, prompts: Prompts, materials: Materials, budget: int, options: StrategyOptions) -> None:
    """Let the generator draw, after it has learned what it needs to."""
    generator = materials.generator
    assert generator is not None
    items = store.items or planned_prompts(prompts, budget, options.seed)
    announce(generator, items)
    if not store.items:
        store.plan(items, _unconcerned(prompts))
    if not store.missing():
        return
    if any(prompt.token for own in prompts.values() for prompt in own):
        listing = listed(materials.model, _given(materials.train), materials.classes)
        if shards := [extent.file for extent in listing.extents if extent.size >= 0]:
            raise OptionInvalid(
                f"Tokens are learned from class folders; {listing.root} has shards, such as {shards[0]}.", field="train"
            )
        images: dict[str, list[Path]] = {label: [] for label in materials.classes}
        for extent, label in zip(listing.extents, listing.labels, strict=True):
            images[listing.classes[label]].append(listing.root / extent.file)
        generator.learn(images, store.folder / TOKENS)
    draw(store, generator)


def _keep(store: Store, drawn: DebugSet, materials: Materials, options: StrategyOptions) -> None:
    """Keep those of the drawn images that the filter ranks highest."""
    if not store.items:
        failures = look(
            materials.model, _given(materials.failures), materials.classes, threads=options.threads
        ).failures
        found = look(materials.model, drawn.images, materials.classes, threads=options.threads)
        scores = hybrid(found.logits, found.embeddings, found.labels, failures)
        items, told = _plan(found.listing, scores, materials, options)
        by_file = {item.file: item for item in drawn.items}
        items = [replace(by_file[item.source], file=item.file, source=item.source, digest="") for item in items]
        store.plan(items, (*drawn.told, *told))
    copy(store, listed(materials.model, drawn.images, materials.classes))


def _plan(
    listing: Listing, scores: Scores, materials: Materials, options: StrategyOptions
) -> tuple[list[Item], tuple[str, ...]]:
    wanted = {listing.classes.index(label): label for label in materials.classes}
    labels = np.array(listing.labels, dtype=np.int64)
    chosen = take(scores, labels, wanted, options.budget, seed=options.seed)
    return planned_choice(listing, chosen.indices.values()), chosen.told


def _unconcerned(prompts: Prompts) -> list[str]:
    """Classes whose prompts say no more than the class."""
    if not any(prompt.concept for own in prompts.values() for prompt in own):
        return []  # as the strategy has it
    return [
        f"{label}: no concept is known, so it is drawn without"
        for label, own in prompts.items()
        if not any(prompt.concept or prompt.negative for prompt in own)
    ]


def _check(strategy: str, materials: Materials, needs: Sequence[str]) -> None:
    for name in needs:
        if getattr(materials, name) is None:
            raise OptionInvalid(f"{strategy} needs {NEEDED[name]}; give {name}.", field=name)
    if not materials.classes or len(set(materials.classes)) != len(materials.classes):
        raise OptionInvalid(f"A debug set needs classes, each once; given {list(materials.classes)}.", field="classes")
    for label in materials.classes:
        if Path(label).name != label or label.startswith("."):
            raise OptionInvalid(f"The class {label!r} cannot be the name of a folder.", field="classes")


def _identity(strategy: str, materials: Materials, options: StrategyOptions, needs: Sequence[str]) -> dict[str, Any]:
    """What makes a debug set this one: the strategy, the options, and what of the materials it needs."""
    return {
        "strategy": strategy,
        **{key: value for key, value in asdict(options).items() if key != "threads"},
        "classes": list(materials.classes),
        "model": hashlib.sha256(_bytes(materials.model)).hexdigest(),
        **{name: _described(getattr(materials, name)) for name in needs},
    }


def _described(material: Path | Mapping[str, Sequence[Any]] | Generator) -> Any:
    """A folder by names and sizes of its files, so that nothing has to be read."""
    if isinstance(material, Path):
        if not material.is_dir():
            raise DataError(f"There is no folder {material}.")
        digest = hashlib.sha256()
        for path in sorted(path for path in material.rglob("*") if path.is_file()):
            digest.update(f"{path.relative_to(material).as_posix()} {path.stat().st_size}\n".encode())
        return digest.hexdigest()
    if isinstance(material, Mapping):
        plain = {label: [c.to_json() if isinstance(c, Concept) else c for c in own] for label, own in material.items()}
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
    return material.identity


def _bytes(model: Path) -> bytes:
    try:
        return model.read_bytes()
    except OSError as error:
        raise DataError(f"The model {model} cannot be read: {error.strerror or error}") from error


def _given(folder: Path | None) -> Path:
    assert folder is not None, "checked before"
    return folder
