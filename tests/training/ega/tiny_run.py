"""Training runs of a tiny captioner that take a second or two."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch

from tests.training.runs import signalled_at
from training.checkpoint import load_checkpoint
from training.distributed import World
from training.ega import EgaConfig
from training.ega import train as trainer
from training.ega.data import Data, load_data
from training.seeding import seed_everything

SIZES = {"trn": 24, "val": 6, "val_sub": 8}
"""Pictures of each split, of two captions each."""

signalled = partial(signalled_at, trainer, "count_totals")
"""At the beginning of a step."""


def config_for(world: Path | None, folder: Path, **options: Any) -> EgaConfig:
    """3 steps an epoch."""
    defaults: dict[str, Any] = {
        "model": "test_efficientnet",
        "levels": (1, 2),
        "input_size": 64,
        "width": 16,
        "epochs": 2,
        "batch_size": 16,
        "lr": 3e-3,
        "threads": 1,
        "device": "cpu",
    }
    return EgaConfig(**{**defaults, "data_path": world, "output_dir": folder, **options})


def eventful(world: Path | None, folder: Path, **options: Any) -> EgaConfig:
    """With everything random and every part of the loss in it; 5 steps an epoch, the last one smaller."""
    wanted: dict[str, Any] = {
        "batch_size": 10,
        "ema": 0.5,
        "schedule": "cosine",
        "warmup_epochs": 0.5,
        "feature_dropout": 0.1,
        "explanation_weight": 1.0,
        "naming_weight": 0.5,
        "scheduled_sampling": 0.3,
        "scheduled_sampling_epochs": 1,
        "smoothing": 0.1,
        "save_minutes": 0,
    }
    return config_for(world, folder, **{**wanted, **options})


def still(world: Path | None, folder: Path, **options: Any) -> EgaConfig:
    """With nothing random but the initial weights and the order."""
    return config_for(world, folder, **{"dropout": 0.0, "explanation_weight": 1.0, "naming_weight": 0.5, **options})


def load(config: EgaConfig) -> Data:
    """The data of a run alone on its machine; the backbone's weights are of chance, but always the same."""
    seed_everything(config.seed)
    config.output_dir.mkdir(exist_ok=True)
    return load_data(config, World())


def weights(path: Path) -> dict[str, torch.Tensor]:
    """All weights in a last.pt: the served, the trained, and the optimiser's."""
    content = load_checkpoint(path, "ega")
    training = content["training"]
    moments = {
        f"optimiser.{number}.{name}": value
        for number, state in training["optimiser"]["state"].items()
        for name, value in state.items()
    }
    parts = {f"{part}.{k}": v for part in ("captioner", "naming") for k, v in training[part].items()}
    return {**{f"served.{k}": v for k, v in content["weights"].items()}, **parts, **moments}


def assert_same(one: Path, other: Path) -> None:
    """Two last.pt hold the same weights, to the bit."""
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    assert not [key for key in first if not torch.equal(first[key], second[key])]
