"""Training runs of tiny networks that take a second or two."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch

from tests.training.runs import signalled_at
from training.checkpoint import load_checkpoint
from training.egdd.config import EgddConfig


def options(data: Path, output: Path, **changes: Any) -> EgddConfig:
    """A recipe with everything random in it, on a network with batch norm: 3 steps an epoch on 24 images."""
    return EgddConfig(
        **{
            "data_path": data,
            "output_dir": output,
            "model": "test_efficientnet",
            "input_size": 32,
            "batch_size": 8,
            "epochs": 3,
            "warmup_epochs": 1,
            "lr": 3e-3,
            "drop_path": 0.1,
            "ema": 0.5,
            "mixup": 0.2,
            "min_crop": 0.6,
            "aa": "rand-m3-mstd0.5",
            "resize": "squash",
            "num_workers": 0,
            "device": "cpu",
            **changes,
        }
    )


def still(data: Path, output: Path, **changes: Any) -> EgddConfig:
    """A recipe with nothing random but the initial weights and the order, without batch norm."""
    quiet = {"model": "test_vit", "aa": "none", "hflip": 0.0, "min_crop": 1.0, "reprob": 0.0, "mixup": 0.0}
    return options(data, output, **{**quiet, "drop_path": 0.0, "ema": 0.0, **changes})


def weights(path: Path) -> dict[str, torch.Tensor]:
    """All weights in a last.pt: the served, the trained, and the optimiser's."""
    content = load_checkpoint(path, "egdd")
    moments = {
        f"optimizer.{number}.{name}": value
        for number, state in content["training"]["optimizer"]["state"].items()
        for name, value in state.items()
    }
    return {**content["model"], **{f"net.{k}": v for k, v in content["training"]["net"].items()}, **moments}


def assert_same(one: Path, other: Path) -> None:
    """Two last.pt hold the same weights, to the bit."""
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    assert not [key for key in first if not torch.equal(first[key], second[key])]


signalled = partial(signalled_at, torch.optim.AdamW, "zero_grad")
"""At the beginning of a step."""
