"""Batches: the same whatever the workers, the processes and the stops; the training's random state is left alone."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import DistributedSampler

from training.distributed import World
from training.egdd.augment import build_transform
from training.egdd.config import EgddConfig
from training.egdd.data import Images, list_images, load_for_training
from training.egdd.loader import PREFETCHED, Batch, epoch_order, micros_per_epoch, seeded, training_loader
from training.seeding import random_state, seed_everything

GREY = (0.5, 0.5, 0.5)
Drawn = tuple[float, float, float]


def config(**options: Any) -> EgddConfig:
    return EgddConfig(**{"data_path": Path(), "input_size": 16, "batch_size": 4, "num_workers": 0, **options})


@pytest.fixture(scope="module")
def images(class_folders: Path) -> Images:
    return load_for_training(list_images(class_folders / "train"), 16, min_crop=0.25, cache_mb=16)


def batches(
    images: Images, *, rank: int = 0, size: int = 1, epoch: int = 2, first_micro: int = 0, **options: Any
) -> list[Batch]:
    made = config(**options)
    world = World(rank, size)
    transform = build_transform(made, GREY)
    loader = training_loader(images, transform, config=made, world=world, epoch=epoch, first_micro=first_micro)
    found = list(loader)
    assert len(found) == len(loader)
    return found


def same(a: list[Batch], b: list[Batch]) -> bool:
    return len(a) == len(b) and all(
        torch.equal(x, y) for ours, theirs in zip(a, b, strict=True) for x, y in zip(ours, theirs, strict=True)
    )


@given(count=st.integers(1, 70), seed=st.integers(0, 9), epoch=st.integers(0, 9))
def test_order(count: int, seed: int, epoch: int) -> None:
    order = epoch_order(count, seed=seed, epoch=epoch)
    assert sorted(order) == list(range(count))
    assert order == epoch_order(count, seed=seed, epoch=epoch)


def test_epochs_and_seeds_are_shuffled_differently() -> None:
    orders = [epoch_order(30, seed=seed, epoch=epoch) for seed in range(3) for epoch in range(3)]
    assert len({tuple(order) for order in orders}) == 9


@given(count=st.integers(1, 300), batch_size=st.integers(1, 12), size=st.integers(1, 5))
def test_processes_share_the_batches(count: int, batch_size: int, size: int) -> None:
    """The k-th micro-batches of all are the k-th batch of one process with the batch size of all."""
    order = epoch_order(count, seed=1, epoch=0)
    micros = micros_per_epoch(count, batch_size, size)
    assert micros == micros_per_epoch(count, batch_size * size, 1)
    for k in range(micros):
        own = [order[r::size][k * batch_size : (k + 1) * batch_size] for r in range(size)]
        assert all(len(part) == batch_size for part in own)
        whole = order[k * batch_size * size : (k + 1) * batch_size * size]
        assert sorted(i for part in own for i in part) == sorted(whole)


def test_batches_hold_what_they_say(images: Images) -> None:
    found = batches(images)
    assert len(found) == 6
    order: list[int] = []
    for pixels, labels, indices in found:
        assert pixels.shape == (4, 3, 16, 16)
        assert (pixels.dtype, labels.dtype, indices.dtype) == (torch.uint8, torch.int64, torch.int64)
        assert labels.tolist() == [images.listing.labels[i] for i in indices]
        order.extend(indices.tolist())
    assert order == epoch_order(24, seed=0, epoch=2)


def test_incomplete_batches_are_left_out(images: Images) -> None:
    assert len(batches(images, batch_size=5)) == 4
    assert len(batches(images, batch_size=5, size=2)) == 2
    assert not batches(images, batch_size=25)


def test_an_epoch_of_part_of_the_images(images: Images) -> None:
    """The first of the shuffle; another epoch brings others."""
    epochs = [[i for _, _, own in batches(images, epoch_images=11, epoch=e) for i in own.tolist()] for e in range(20)]
    assert epochs == [epoch_order(24, seed=0, epoch=e)[:8] for e in range(20)]
    assert {i for epoch in epochs for i in epoch} == set(range(24))
    assert len(batches(images, epoch_images=1000)) == len(batches(images)) == 6


def test_as_the_distributed_sampler(images: Images) -> None:
    """Each process's part is what torch's sampler gives it of the same order."""
    order = epoch_order(24, seed=0, epoch=2)
    for rank in range(2):
        sampler = DistributedSampler(order, num_replicas=2, rank=rank, shuffle=False)  # type: ignore[arg-type,var-annotated]
        found = [i for _, _, indices in batches(images, rank=rank, size=2) for i in indices.tolist()]
        assert found == [order[i] for i in sampler]


@pytest.mark.parametrize("aa", ["rand-m9-mstd0.5-inc1", "augmix-m3-w2"])
def test_pictures_depend_on_seed_epoch_and_image_alone(images: Images, aa: str) -> None:
    def pictures(**options: Any) -> dict[int, Tensor]:
        found = batches(images, aa=aa, **options)
        return {int(i): picture for pixels, _, indices in found for i, picture in zip(indices, pixels, strict=True)}

    plain = pictures()
    others = {
        "batch size": pictures(batch_size=3),
        "processes": pictures(rank=0, size=2, batch_size=2) | pictures(rank=1, size=2, batch_size=2),
        "workers": pictures(num_workers=2),
    }
    for what, other in others.items():
        assert other.keys() == plain.keys(), what
        assert all(torch.equal(other[i], plain[i]) for i in plain), what
    for different in (pictures(epoch=3), pictures(seed=1)):
        assert sum(torch.equal(different[i], plain[i]) for i in plain) < 4
    assert len({picture.numpy().tobytes() for picture in plain.values()}) == 24


@pytest.mark.parametrize("workers", [0, 2])
def test_going_on_in_the_middle(images: Images, workers: int) -> None:
    whole = batches(images)
    assert same(batches(images, first_micro=4, num_workers=workers), whole[4:])
    assert not batches(images, first_micro=6, num_workers=workers)


@pytest.mark.parametrize("workers", [0, 2])
def test_random_state_of_the_training_is_left_alone(images: Images, workers: int) -> None:
    seed_everything(5)
    before = random_state()
    assert batches(images, num_workers=workers)
    after = random_state()
    assert after["python"][1].equal(before["python"][1])
    assert after["numpy"][1].equal(before["numpy"][1])
    assert after["numpy"][2:] == before["numpy"][2:]
    assert after["torch"].equal(before["torch"])


def test_seeded() -> None:
    def draw() -> Drawn:
        return random.random(), float(np.random.random()), float(torch.rand(()))

    def drawn(*words: int) -> Drawn:
        with seeded(*words):
            return draw()

    seed_everything(0)
    first, second = draw(), draw()
    seed_everything(0)
    assert draw() == first
    assert drawn(1, 2, 3) == drawn(1, 2, 3)
    words = [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0), (2**40, 0, 0)]
    assert len({drawn(*w) for w in words}) == 5
    with pytest.raises(ZeroDivisionError), seeded(4):
        _ = draw()[0] / 0
    assert draw() == second


def test_no_more_workers_than_cores(images: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    made = config(num_workers=10_000)
    transform = build_transform(made, GREY)

    def workers() -> int:
        return training_loader(images, transform, config=made, world=World(), epoch=0).num_workers

    assert workers() == len(os.sched_getaffinity(0))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1000")
    assert workers() == 1


def test_workers_outlive_the_signals_of_the_process_group(images: Images) -> None:
    """torchrun and a terminal signal the workers, too; the step in progress still gets its images."""
    made = config(num_workers=1, batch_size=1)
    loader = training_loader(images, build_transform(made, GREY), config=made, world=World(), epoch=0)
    assert len(loader) > 2 * PREFETCHED
    found = iter(loader)
    first = next(found)
    (worker,) = found._workers  # type: ignore[attr-defined]
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(worker.pid, number)
    assert same([first, *found], batches(images, batch_size=1, epoch=0))
