"""The parts of a training step by themselves: how fast batches come, how fast they are learned from.

    python -m benchmarks.pace --data FOLDER     (prints JSON; `benchmarks.training` runs it)

On a GPU, also what 16 bits and torch.compile gain for ViT-B/16.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import islice, repeat
from pathlib import Path
from typing import Any

# Read when torch loads its threads; what `saaa-train` sets.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch
import tyro
from torch import Tensor

from training.distributed import World, torch_device
from training.egdd.config import EgddConfig
from training.egdd.loader import training_loader
from training.egdd.recipe import training_mode
from training.egdd.state import Run, set_up

GPU_MODEL, GPU_BATCH, GPU_WARM_UP, GPU_STEPS = "vit_base_patch16", 128, 8, 40


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to time."""

    data: Path
    """Folder with train/ and val/, a folder of pictures a class in each."""
    model: str = "vit_tiny_patch16_224"
    batch_size: int = 32
    warm_up: int = 2
    """Steps before the clock starts."""
    steps: int = 6


def main(options: Options) -> None:
    """Print images a second of the loader (decoded pictures in memory, and not), of the step, and the GPU's gain."""
    with tempfile.TemporaryDirectory() as folder:
        config = EgddConfig(
            data_path=options.data,
            output_dir=Path(folder),
            model=options.model,
            batch_size=options.batch_size,
            mixup=0.8,
            cutmix=1.0,
            amp="none",
        )
        world = World(device=torch_device(config.device))
        run, undecoded = set_up(config, world), set_up(replace(config, cache_mb=0), world)
        found: dict[str, Any] = {
            "loader_per_s": loader_rate(run, options.warm_up),
            "loader_uncached_per_s": loader_rate(undecoded, options.warm_up),
            "step_per_s": step_rate(run, options.warm_up, options.steps),
        }
        print(json.dumps(found | gpu_gain(config, world)))


def loader_rate(run: Run, warm_up: int) -> float:
    """Images a second of an epoch's batches when nobody uses them."""
    batches = training_loader(run.train, run.transform, config=run.config, world=run.world, epoch=0)
    return rate((len(labels) for _, labels, _ in batches), warm_up, len(batches) - warm_up)


def step_rate(run: Run, warm_up: int, steps: int, *, compiled: bool = False) -> float:
    """Images a second of the trainer's step on one batch, over and over."""
    net = run.classifier.net
    training_mode(net)
    model = torch.compile(net) if compiled else net
    loader = training_loader(run.train, run.transform, config=run.config, world=run.world, epoch=0)
    pixels, labels, _ = next(iter(loader))
    pixels, labels = pixels.to(run.world.device), labels.to(run.world.device)

    def step() -> int:
        inputs, targets = run.mixing(run.finish(pixels), labels)
        with run.precision.autocast():
            loss: Tensor = run.mixing.loss(model(inputs), targets)
        run.optimizer.zero_grad(set_to_none=True)
        run.precision.backward(loss)
        norm = run.precision.norm(net.parameters(), run.optimizer)
        run.precision.step(net.parameters(), run.optimizer, norm, None)
        loss.item()  # as the trainer does; it waits for the GPU
        return len(labels)

    return rate((do() for do in repeat(step)), warm_up, steps)


def rate(counts: Iterable[int], warm_up: int, steps: int) -> float:
    """Sum of what the timed steps give / the seconds that they take."""
    steps_to_do = iter(counts)
    for _ in islice(steps_to_do, warm_up):
        pass
    started = time.perf_counter()
    done = sum(islice(steps_to_do, steps))
    return done / (time.perf_counter() - started)


def gpu_gain(config: EgddConfig, world: World) -> dict[str, Any]:
    """Images a second of ViT-B/16's step in float32 and, compiled, in bf16; null and the reason without a GPU."""
    if world.device.type != "cuda":
        return {"gpu": None, "gpu_gain": None, "gpu_reason": "no GPU here"}
    big = replace(config, model=GPU_MODEL, batch_size=GPU_BATCH)
    exact = step_rate(set_up(big, world), GPU_WARM_UP, GPU_STEPS)
    fast = step_rate(set_up(replace(big, amp="bf16"), world), GPU_WARM_UP, GPU_STEPS, compiled=True)
    return {
        "gpu": {"name": torch.cuda.get_device_name(), "float32": exact, "bf16_compiled": fast},
        "gpu_gain": fast / exact,
    }


if __name__ == "__main__":
    main(tyro.cli(Options, prog="python -m benchmarks.pace", description=__doc__))
