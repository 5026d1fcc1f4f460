"""The strategies that choose, on the photographs of scenes15: whatever comes out of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch

from benchmarks.debugging_runs import BASE
from benchmarks.debugging_statistics import figure
from training.debugging.pool import look
from training.debugging.strategies import Materials, StrategyOptions, make_debug_set
from training.egdd.config import EgddConfig
from training.egdd.train import train
from training.files import write_json


def scenes15(data: Path, folder: Path, settings: Mapping[str, Any], processes: int) -> dict[str, Any]:
    """Run all seeds, and compare.

    Args:
        data: the folder of scenes15, with train/ and val/.
        folder: gets a folder a seed; what is there is not run again.
        settings: `scenes15` of debugging.yaml.
        processes: seeds at a time.

    Returns:
        "base" (accuracy on the test pictures) and, by strategy, "test_change" and "failures" (accuracy on what the base
        got wrong), each as `figure`; "above_random" of the others: the change beyond that of s-random.
    """
    seeds, names = settings["seeds"], settings["strategies"]
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for done in as_completed([pool.submit(_seed, data, folder / str(s), settings, s) for s in seeds]):
            done.result()
    kept = [
        {name: json.loads((folder / str(s) / f"{name}.json").read_text()) for name in (BASE, *names)} for s in seeds
    ]
    before = [np.array(found[BASE]["right"], bool) for found in kept]
    found: dict[str, Any] = {"base": figure([float(right.mean()) for right in before])}
    changes: dict[str, list[float]] = {}
    for name in names:
        after = [np.array(seed[name]["right"], bool) for seed in kept]
        changes[name] = [float(a.mean() - b.mean()) for a, b in zip(after, before, strict=True)]
        repaired = [float(a[~b].mean()) for a, b in zip(after, before, strict=True) if not b.all()]
        found[name] = {"test_change": figure(changes[name]), "failures": figure(repaired)}
    for name in names[1:]:
        beyond = [a - b for a, b in zip(changes[name], changes[names[0]], strict=True)]
        found[name]["above_random"] = figure(beyond)
    return found


def _seed(data: Path, folder: Path, settings: Mapping[str, Any], seed: int) -> None:
    names = settings["strategies"]
    if all((folder / f"{name}.json").exists() for name in (BASE, *names)):
        return
    torch.set_num_threads(1)
    work = folder / "work"
    divide(data, work, settings, seed)
    base = EgddConfig(**settings["recipe"], seed=seed, data_path=work / "data", output_dir=work / BASE)
    checkpoint = work / BASE / "last.pt"
    if not (folder / f"{BASE}.json").exists() or not checkpoint.exists():
        write_json(folder / f"{BASE}.json", _trained(base, work / "test"))
    classes = tuple(sorted(path.name for path in (data / "train").iterdir()))
    for name in names:
        if not (folder / f"{name}.json").exists():
            made = make_debug_set(
                name,
                Materials(model=checkpoint, classes=classes, pool=work / "pool", failures=work / "failures"),
                StrategyOptions(budget=settings["budget"], seed=seed, threads=1),
                work / "debug" / name,
            )
            output = work / "retrained"
            shutil.rmtree(output, ignore_errors=True)
            images = settings["train"] * len(classes)
            config = replace(base, output_dir=output, extra_data=(made.images,), epoch_images=images)
            write_json(folder / f"{name}.json", {**_trained(config, work / "test"), "told": list(made.told)})
    shutil.rmtree(work)


def _trained(config: EgddConfig, test: Path) -> dict[str, Any]:
    train(config)
    found = look(config.output_dir / "last.pt", test, threads=1)
    return {"files": list(found.listing.names), "right": [int(value) for value in ~found.wrong]}


def divide(data: Path, work: Path, settings: Mapping[str, Any], seed: int) -> None:
    """Link the pictures into data/train, data/val (one a class: nothing is chosen by it), pool, failures and test."""
    if (work / "test").exists():
        return
    partial = work / "partial"
    shutil.rmtree(partial, ignore_errors=True)
    train_count, pool_count, failures = (int(settings[name]) for name in ("train", "pool", "failures"))
    for split in ("train", "val"):
        for label in sorted((data / split).iterdir()):
            files = sorted(label.iterdir())
            Random(f"{seed}/{split}/{label.name}").shuffle(files)
            if split == "train":
                _link(files[:train_count], partial / "data" / "train" / label.name)
                _link(files[train_count : train_count + pool_count], partial / "pool" / label.name)
            else:
                _link(files[:1], partial / "data" / "val" / label.name)
                _link(files[:failures], partial / "failures" / label.name)
                _link(files[failures:], partial / "test" / label.name)
    for part in ("data", "pool", "failures", "test"):
        shutil.rmtree(work / part, ignore_errors=True)
        (partial / part).rename(work / part)


def _link(files: Sequence[Path], folder: Path) -> None:
    folder.mkdir(parents=True)
    for file in files:
        (folder / file.name).symlink_to(file.resolve())
