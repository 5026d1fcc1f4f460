"""MAE's fine-tuning recipe a second time, straight from its description: what our trainer is checked and timed against.

It shares nothing with `training/`: its own parameter groups, schedule, loss, normalisation and reading of pictures,
one plain loop in float32. Augmentation and mixing are timm's, as in the published script.

    python -m benchmarks.plain_finetune --data FOLDER     (or under torchrun; prints its speed as JSON)
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import tyro
from PIL import Image
from timm.data.mixup import Mixup
from timm.data.transforms_factory import create_transform
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset, Subset

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SUFFIXES = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The recipe's numbers; the defaults are those of the published command."""

    batch_size: int = 64
    """Images of one forward on one process."""
    accum_iter: int = 1
    epochs: int = 100
    warmup_epochs: float = 5
    blr: float = 5e-4
    """Learning rate for 256 images a step."""
    min_lr: float = 1e-6
    weight_decay: float = 0.05
    layer_decay: float = 0.65
    smoothing: float = 0.1
    clip_grad: float | None = None


class Pictures(Dataset[tuple[Tensor, int]]):
    """The pictures of FOLDER/<class>/, decoded anew each time.

    Args:
        folder: one folder of pictures a class.
        transform: PIL image -> network input, float32 (3, S, S).
    """

    def __init__(self, folder: Path, transform: Callable[[Image.Image], Tensor]) -> None:
        self.classes = sorted(path.name for path in folder.iterdir() if path.is_dir())
        self.items = [
            (path, label)
            for label, name in enumerate(self.classes)
            for path in sorted((folder / name).iterdir())
            if path.suffix in SUFFIXES
        ]
        self.transform = transform

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        path, label = self.items[index]
        with Image.open(path) as picture:
            return self.transform(picture.convert("RGB")), label


def as_it_is(picture: Image.Image, mean: Sequence[float] = MEAN, std: Sequence[float] = STD) -> Tensor:
    """Normalise and do nothing else: (3, height, width)."""
    pixels = torch.from_numpy(np.array(picture, dtype=np.float32)).permute(2, 0, 1) / 255
    return (pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]


def parameter_groups(net: nn.Module, *, weight_decay: float, layer_decay: float) -> list[dict[str, Any]]:
    """Give each parameter of a vision transformer its weight decay and its share of the learning rate.

    Class token, position embedding and patch embedding are layer 0, block k is layer k + 1, the final norm and the head
    are the last layer, whose share is 1; each layer below has `layer_decay` times the share of the next. Biases, norms,
    class token and position embedding have no weight decay.
    """
    parameters = dict(net.named_parameters())
    last = 1 + len({name.split(".")[1] for name in parameters if name.startswith("blocks.")})
    groups = []
    for name, parameter in parameters.items():
        token = name in ("cls_token", "pos_embed")
        if token or name.startswith("patch_embed."):
            layer = 0
        elif name.startswith("blocks."):
            layer = int(name.split(".")[1]) + 1
        else:
            layer = last
        decay = 0.0 if token or parameter.ndim == 1 else weight_decay
        groups.append({"params": [parameter], "weight_decay": decay, "share": layer_decay ** (last - layer)})
    return groups


def learning_rate(epoch: float, peak: float, recipe: Recipe) -> float:
    """Linear from 0 during warm-up, then half a cosine down to min_lr.

    Args:
        epoch: epochs done, fractions included.
        peak: the rate where warm-up ends.
        recipe: how long each part is.
    """
    if epoch < recipe.warmup_epochs:
        return peak * epoch / recipe.warmup_epochs
    done = (epoch - recipe.warmup_epochs) / (recipe.epochs - recipe.warmup_epochs)
    return recipe.min_lr + (peak - recipe.min_lr) * (1 + math.cos(math.pi * done)) / 2


def smoothed(labels: Tensor, classes: int, smoothing: float) -> Tensor:
    """Turn labels (B,) into targets (B, classes): `smoothing` is spread evenly over all classes."""
    targets = torch.full((len(labels), classes), smoothing / classes, device=labels.device)
    targets[torch.arange(len(labels)), labels] += 1 - smoothing
    return targets


def finetune(
    net: nn.Module,
    pictures: Pictures,
    recipe: Recipe,
    *,
    order: Callable[[int], Sequence[int]],
    mix: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None,
    workers: int = 0,
    rank: int = 0,
    processes: int = 1,
) -> Iterator[float]:
    """Train `net` in place; gives the loss of each optimiser step, the mean over its images on this process.

    An incomplete last batch of an epoch is dropped; a step for which fewer than accum_iter batches are left is made of
    those.

    Args:
        net: a vision transformer of timm, on its device.
        pictures: what to train on.
        recipe: how.
        order: epoch -> indices into `pictures`.
        mix: (images, labels) -> mixed images, targets (B, classes) with the smoothing in them.
        workers: processes that read pictures.
        rank, processes: this process's place when several train together.
    """
    device = next(net.parameters()).device
    groups = parameter_groups(net, weight_decay=recipe.weight_decay, layer_decay=recipe.layer_decay)
    optimizer = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.999))
    peak = recipe.blr * recipe.batch_size * recipe.accum_iter * processes / 256
    model = DistributedDataParallel(net) if processes > 1 else net
    model.train()
    for epoch in range(recipe.epochs):
        own = Subset(pictures, order(epoch)[rank::processes])
        batches = DataLoader(own, recipe.batch_size, num_workers=workers, drop_last=True)
        step_loss = 0.0
        for number, (images, labels) in enumerate(batches):
            images, labels = images.to(device), labels.to(device)
            begins = number % recipe.accum_iter == 0
            ends = (number + 1) % recipe.accum_iter == 0 or number + 1 == len(batches)
            if begins:
                rate = learning_rate(epoch + number / len(batches), peak, recipe)
                for group in optimizer.param_groups:
                    group["lr"] = rate * group["share"]
                optimizer.zero_grad()
                step_loss, parts = 0.0, min(recipe.accum_iter, len(batches) - number)
            if mix is not None:
                images, targets = mix(images, labels)
            else:
                targets = smoothed(labels, len(pictures.classes), recipe.smoothing)
            log_probabilities = torch.log_softmax(model(images), dim=1)
            loss = -(targets * log_probabilities).sum(dim=1).mean() / parts
            loss.backward()  # type: ignore[no-untyped-call]
            step_loss += loss.item()
            if ends:
                if recipe.clip_grad is not None:
                    nn.utils.clip_grad_norm_(net.parameters(), recipe.clip_grad)
                optimizer.step()
                yield step_loss


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to time: the published command's augmentation and mixing."""

    data: Path
    """Folder with train/ and a folder of pictures a class in it."""
    model: str = "vit_tiny_patch16_224"
    input_size: int = 224
    batch_size: int = 64
    steps: int = 6
    warm_up: int = 2
    """Steps before the clock starts."""
    workers: int = 0


def main(options: Options) -> None:
    """Train for some steps and print {"images_per_s": of all processes together}; under torchrun, too."""
    rank, processes = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if processes > 1:
        torch.distributed.init_process_group("gloo")
    torch.manual_seed(rank)
    transform = create_transform(
        options.input_size,
        is_training=True,
        auto_augment="rand-m9-mstd0.5-inc1",
        interpolation="bicubic",
        re_prob=0.25,
        re_mode="pixel",
        re_count=1,
        mean=MEAN,
        std=STD,
    )
    pictures = Pictures(options.data / "train", transform)
    classes = len(pictures.classes)
    mix = Mixup(mixup_alpha=0.8, cutmix_alpha=1.0, label_smoothing=0.1, num_classes=classes)  # type: ignore[no-untyped-call]
    net = timm.create_model(options.model, img_size=options.input_size, num_classes=classes, drop_path_rate=0.1)
    losses = finetune(
        net,
        pictures,
        Recipe(batch_size=options.batch_size),
        order=lambda epoch: torch.randperm(len(pictures), generator=torch.Generator().manual_seed(epoch)).tolist(),
        mix=mix,
        workers=options.workers,
        rank=rank,
        processes=processes,
    )
    started = 0.0
    for step, _ in zip(range(1, options.warm_up + options.steps + 1), losses, strict=False):
        if step == options.warm_up:
            started = time.perf_counter()
    seconds = time.perf_counter() - started
    if rank == 0:
        print(json.dumps({"images_per_s": options.steps * options.batch_size * processes / seconds}))
    if processes > 1:
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(tyro.cli(Options, prog="python -m benchmarks.plain_finetune", description=__doc__))
