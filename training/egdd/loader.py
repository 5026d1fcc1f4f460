"""Training batches: which images a step sees, and how their random transforms are seeded.

Both are functions of the seed, the epoch and the image alone. Neither workers nor processes nor a stop in between
change a picture, and the training's own random state is not drawn from.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from training.distributed import World
from training.egdd.augment import Transform
from training.egdd.config import EgddConfig
from training.egdd.data import Images, cores
from training.stopping import leave_signals_to_parent

PREFETCHED = 4
"""Micro-batches that a worker makes ahead, which bridges uneven images and the other processes' pauses."""

Batch = tuple[Tensor, Tensor, Tensor]
"""Pixels uint8 (B, 3, S, S), labels int64 (B,), indices into the training images int64 (B,)."""


def epoch_order(count: int, *, seed: int, epoch: int) -> list[int]:
    """Shuffle the images of an epoch; the same on all processes."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch)).tolist()


def micros_per_epoch(count: int, batch_size: int, size: int, *, at_most: int | None = None) -> int:
    """Count the micro-batches of an epoch of `count` images, or of `at_most` so many, on each of `size` processes; as
    in MAE, incomplete ones are left out (another epoch's shuffle brings their images)."""
    return min(count, at_most or count) // size // batch_size


def training_loader(
    images: Images,
    transform: Transform,
    *,
    config: EgddConfig,
    world: World,
    epoch: int,
    first_micro: int = 0,
) -> DataLoader[Batch]:
    """Load this process's micro-batches of an epoch.

    Process r takes every size-th image from the r-th on, as torch's DistributedSampler, so that the k-th micro-batches
    of all processes together are the k-th batch of a single process with as many times the batch size.

    Args:
        images: the training images, the same on all processes.
        transform: `training.egdd.augment.build_transform`'s.
        config: batch_size, num_workers, pin_mem, seed.
        world: the processes.
        epoch: 0 is the first.
        first_micro: micro-batches to leave out, done before a stop.

    Returns:
        Gives `Batch`es on the CPU, in page-locked memory where the device is a GPU; len() is what is left of the epoch.
    """
    mine = epoch_order(len(images), seed=config.seed, epoch=epoch)[world.rank :: world.size]
    size = config.batch_size
    micros = range(first_micro, micros_per_epoch(len(images), size, world.size, at_most=config.epoch_images))
    workers = min(config.num_workers, cores())
    return DataLoader(
        Augmented(images, transform, seed=config.seed, epoch=epoch),  # type: ignore[arg-type]  # typed by its batches
        batch_sampler=[mine[k * size : (k + 1) * size] for k in micros],
        num_workers=workers,
        prefetch_factor=PREFETCHED if workers else None,
        pin_memory=config.pin_mem and world.device.type == "cuda",
        worker_init_fn=leave_signals_to_parent,
        # Without one of its own the loader draws from the training's.
        generator=torch.Generator(),
    )


class Augmented(Dataset[tuple[Tensor, int, int]]):
    """An epoch's training images through a random transform: (uint8 (3, S, S), label, index).

    Args:
        images: what to draw from.
        transform: PIL image -> uint8 (3, S, S); may draw from Python's, NumPy's and torch's global generators.
        seed, epoch: with an image's index, all that its transform depends on.
    """

    def __init__(self, images: Images, transform: Transform, *, seed: int, epoch: int) -> None:
        self._images = images
        self._transform = transform
        self._seed = seed
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[Tensor, int, int]:
        picture = Image.fromarray(self._images[index])
        with seeded(self._seed, self._epoch, index):
            return self._transform(picture), self._images.listing.labels[index], index


@contextmanager
def seeded(*words: int) -> Iterator[None]:
    """Seed Python's, NumPy's and torch's (CPU) generators by some numbers, at least 0; put them back at the end."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    for_python, for_numpy, for_torch = np.random.SeedSequence(words).generate_state(3).tolist()
    try:
        random.seed(for_python)
        np.random.seed(for_numpy)
        # Not torch.manual_seed, which would seed the GPUs' generators, too.
        torch.default_generator.manual_seed(for_torch)
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])
