"""The trainer's losses, step by step: equal to those of a plain trainer, and to those of twice the processes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import pytest

from benchmarks.exactness import CASES, Case, gaps_of_processes, loss_gap, our_losses, plain_losses, prepare, recipe
from tests.training.several import together
from training.egdd.config import EgddConfig
from training.egdd.train import train

STEPS = 50
LIMIT = 1e-5
FIRST = CASES["one forward a step"]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures and initial weights of the small cases; read only."""
    folder = tmp_path_factory.mktemp("exact")
    prepare(FIRST, folder)
    return folder


@pytest.mark.parametrize("name", CASES)
def test_losses_of_a_plain_trainer(name: str, start: Path, tmp_path: Path) -> None:
    ours, plain = our_losses(CASES[name], start, tmp_path), plain_losses(CASES[name], start)
    assert len(ours) >= STEPS
    assert loss_gap(ours, plain) <= LIMIT
    assert ours[-1] < ours[0] - 0.1, "it learns"


@pytest.fixture(scope="module")
def plain(start: Path) -> list[float]:
    """The plain trainer's losses of the first case."""
    return plain_losses(FIRST, start)


@pytest.mark.parametrize("change", [{"layer_decay": 0.66}, {"min_lr": 1e-4}, {"weight_decay": 0.0}])
def test_the_limit_sees_another_recipe(change: dict[str, float], start: Path, plain: list[float]) -> None:
    other = replace(FIRST, recipe=replace(FIRST.recipe, **change))
    assert loss_gap(plain_losses(other, start), plain) > LIMIT


def test_two_processes_are_one_with_twice_the_batch(start: Path, tmp_path: Path) -> None:
    """Losses of 50 steps, gradients of the first; `benchmarks.training` starts the two by torchrun."""

    def two(config: EgddConfig) -> None:
        meeting = tmp_path / f"meet-{config.output_dir.name}"
        done = together(2, lambda url: train(replace(config, dist_url=url)), meeting)
        assert not [one for one in done if isinstance(one, BaseException)]

    gaps = gaps_of_processes(start, tmp_path, two)
    assert gaps["loss"] <= LIMIT
    assert gaps["gradient"] <= LIMIT


@pytest.mark.slow
@pytest.mark.parametrize("pool", ["token", "avg"])
def test_losses_of_vit_b(pool: Literal["token", "avg"]) -> None:
    """MAE's own network, at an input of four patches."""
    case = Case(
        recipe=replace(recipe(4, epochs=1, warmup_epochs=0.2), blr=0.032),
        images=4 * STEPS,
        model="vit_base_patch16",
        architecture="vit_base_patch16_224",
        pool=pool,
    )
    # Not pytest's folder, which would keep gigabytes of checkpoints.
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        prepare(case, folder)
        ours, plain = our_losses(case, folder, folder / "ours"), plain_losses(case, folder)
    assert len(ours) == STEPS
    assert loss_gap(ours, plain) <= LIMIT
