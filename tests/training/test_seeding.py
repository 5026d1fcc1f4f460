"""Random state: repeats, and survives a checkpoint."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import torch

from training.checkpoint import load_checkpoint, save_checkpoint
from training.seeding import random_state, seed_everything, set_random_state


def draw() -> list[float]:
    return [
        random.random(),
        random.gauss(0, 1),
        float(np.random.rand()),
        float(np.random.randn()),
        float(torch.rand(())),
    ]


def test_random_state_survives_a_checkpoint(tmp_path: Path) -> None:
    seed_everything(5)
    draw()
    save_checkpoint(tmp_path / "a.pt", "egdd", {"random": random_state()})
    expected = [draw(), draw()]
    seed_everything(6)
    assert draw() != expected[0]
    set_random_state(load_checkpoint(tmp_path / "a.pt", "egdd")["random"])
    assert [draw(), draw()] == expected


def test_seeding_repeats() -> None:
    seed_everything(5)
    first = draw()
    seed_everything(5)
    assert draw() == first
