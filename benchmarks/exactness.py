"""Our trainer against the plain one, and two processes against one, where nothing is random: nothing may differ.

Pictures have the input's size, and neither augmentation nor stochastic depth is on; weights and order are the same.
"""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import timm
import torch
from PIL import Image
from torch import Tensor

from benchmarks import plain_finetune
from benchmarks.plain_finetune import Pictures, Recipe, as_it_is, finetune
from training.checkpoint import load_checkpoint
from training.egdd.config import EgddConfig
from training.egdd.loader import epoch_order
from training.egdd.train import train
from training.options import save_config

CLASSES = ("blue", "green", "red")
NOTHING_RANDOM: Mapping[str, Any] = {
    "aa": "none",
    "hflip": 0.0,
    "min_crop": 1.0,
    "reprob": 0.0,
    "drop_path": 0.0,
    "resize": "squash",
}
"""Our options that leave nothing to chance."""
ON_THE_CPU: Mapping[str, Any] = {"device": "cpu", "amp": "none", "num_workers": 0, "save_minutes": 0.0}
Trainer = Callable[[EgddConfig], object]
SEED = 5
RATE = 2e-3


@dataclass(frozen=True, kw_only=True)
class Case:
    """A training without chance, for both trainers."""

    recipe: Recipe
    images: int = 170
    size: int = 32
    """Of pictures and input."""
    model: str = "test_vit"
    """Our name of the network; timm's `architecture` is the same network."""
    architecture: str = "test_vit"
    pool: Literal["token", "avg"] = "token"
    mixing: bool = False
    """Ours goes the way of mixed batches, but mixes none."""


def recipe(batch: int, *, accum: int = 1, processes: int = 1, epochs: int, **changes: float) -> Recipe:
    """Whatever a step holds, the learning rate rises to RATE."""
    blr = RATE * 256 / (batch * accum * processes)
    return Recipe(batch_size=batch, accum_iter=accum, epochs=epochs, blr=blr, **{"warmup_epochs": 0.7, **changes})


CASES = {
    "one forward a step": Case(recipe=recipe(8, epochs=3)),
    "two, and one in the last; clipped": Case(recipe=recipe(8, accum=2, epochs=5, clip_grad=0.5), mixing=True),
}
"""Of at least 50 steps each, 21 forwards an epoch; all can start from the same folder."""
WHOLE, HALVES = Case(recipe=recipe(16, epochs=5)), Case(recipe=recipe(8, processes=2, epochs=5))
"""The same 50 steps for one process and, each with half of a step's pictures, for two."""


def draw_pictures(folder: Path, count: int, size: int) -> None:
    """Write `count` PNG pictures of random pixels and one square in its class's colour to FOLDER/<class>/."""
    rng = np.random.default_rng(SEED)
    for number in range(count):
        label = number % len(CLASSES)
        pixels = rng.integers(0, 200, (size, size, 3), dtype=np.uint8)
        y, x = rng.integers(0, size // 2, 2)
        pixels[y : y + size // 2, x : x + size // 2, 2 - label] = 255
        (folder / CLASSES[label]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / CLASSES[label] / f"{number:04}.png")


def prepare(case: Case, folder: Path) -> None:
    """Write the pictures, and the weights that all trainings start from: initial.pt, a state dict of timm's."""
    draw_pictures(folder / "data" / "train", case.images, case.size)
    draw_pictures(folder / "data" / "val", len(CLASSES), case.size)
    torch.manual_seed(SEED)
    torch.save(_network(case).state_dict(), folder / "initial.pt")


def plain_losses(case: Case, folder: Path) -> list[float]:
    """The plain trainer's loss of each step."""
    net = _network(case)
    net.load_state_dict(torch.load(folder / "initial.pt", weights_only=True))
    published = case.model != case.architecture
    mean = plain_finetune.MEAN if published else net.default_cfg["mean"]
    std = plain_finetune.STD if published else net.default_cfg["std"]
    pictures = Pictures(folder / "data" / "train", partial(as_it_is, mean=mean, std=std))

    def order(epoch: int) -> list[int]:
        return epoch_order(len(pictures), seed=SEED, epoch=epoch)

    return list(finetune(net, pictures, case.recipe, order=order))


def our_losses(case: Case, folder: Path, output: Path, run: Trainer = train) -> list[float]:
    """Our trainer's loss of each step, from its steps.csv."""
    run(our_config(case, folder, output))
    with (output / "steps.csv").open(newline="") as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def our_config(case: Case, folder: Path, output: Path) -> EgddConfig:
    """The options that make `saaa-train egdd` do what the plain trainer does."""
    options: dict[str, Any] = {
        **asdict(case.recipe),
        "data_path": folder / "data",
        "finetune": folder / "initial.pt",
        "output_dir": output,
        "model": case.model,
        "global_pool": case.pool == "avg",
        "input_size": case.size,
        "seed": SEED,
        **({"mixup": 0.8, "mixup_prob": 0.0} if case.mixing else {}),
    }
    return EgddConfig(**options, **NOTHING_RANDOM, **ON_THE_CPU)


def torchrun_two(config: EgddConfig) -> None:
    """Train in two processes that torchrun starts, one thread each.

    Raises:
        CalledProcessError: it failed; its output was printed.
    """
    options = config.output_dir.with_suffix(".yaml")
    options.parent.mkdir(parents=True, exist_ok=True)
    save_config(config, options)
    words = "-m torch.distributed.run --standalone --nproc_per_node=2 -m training egdd --config".split()
    subprocess.run([sys.executable, *words, str(options)], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def gap_to_plain(case: Case, folder: Path, output: Path) -> float:
    """The largest difference of a step's loss between our trainer and the plain one."""
    return loss_gap(our_losses(case, folder, output), plain_losses(case, folder))


def gaps_of_processes(folder: Path, output: Path, two: Trainer = torchrun_two) -> dict[str, float]:
    """What two processes do differently from one: the largest difference of a step's "loss" over 50 steps, and the
    largest relative one of a parameter's "gradient" in the first step.
    """
    losses = our_losses(WHOLE, folder, output / "one"), our_losses(HALVES, folder, output / "two", two)
    # A set of one batch and one epoch: the checkpoint is that of the first step.
    start = output / "start"
    whole, halves = (
        replace(case, images=16, recipe=replace(case.recipe, epochs=1, warmup_epochs=0)) for case in (WHOLE, HALVES)
    )
    prepare(whole, start)
    our_losses(whole, start, output / "first-one")
    our_losses(halves, start, output / "first-two", two)
    gradients = gradient_gap(first_gradients(output / "first-two"), first_gradients(output / "first-one"))
    return {"loss": loss_gap(*losses), "gradient": gradients}


def loss_gap(one: list[float], other: list[float]) -> float:
    """The largest difference between the losses of a step.

    Raises:
        ValueError: the numbers of steps differ.
    """
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


def first_gradients(output: Path) -> list[Tensor]:
    """The gradients of a run of one step, one a parameter: AdamW's first moment is then a tenth of them."""
    optimizer = load_checkpoint(output / "last.pt", "egdd")["training"]["optimizer"]
    return [state["exp_avg"] / (1 - 0.9) for state in optimizer["state"].values()]


def gradient_gap(one: list[Tensor], other: list[Tensor]) -> float:
    """The largest relative difference (by norm) of a parameter's gradients.

    Raises:
        ValueError: the numbers of parameters differ.
    """
    return max(float((a - b).norm() / b.norm()) for a, b in zip(one, other, strict=True))


def _network(case: Case) -> Any:
    return timm.create_model(
        case.architecture, img_size=case.size, num_classes=len(CLASSES), global_pool=case.pool, drop_path_rate=0.0
    )
