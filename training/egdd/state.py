"""A training run: what it is made of, where it stands, and how that is saved and brought back."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from timm.scheduler.cosine_lr import CosineLRScheduler
from timm.utils.model_ema import ModelEmaV3
from torch import nn

from saaa.errors import CheckpointError, DataError
from saaa.models.classifier import Classifier
from training.checkpoint import LAST, load_checkpoint, save_checkpoint
from training.distributed import World
from training.egdd.augment import Finish, Transform, build_transform
from training.egdd.config import LARGER_IS_BETTER, EgddConfig
from training.egdd.data import Images, Listing, find_splits, load_for_evaluation, load_for_training
from training.egdd.evaluation import settings_of
from training.egdd.loader import micros_per_epoch
from training.egdd.networks import build_classifier
from training.egdd.recipe import Mixing, build_mixing, build_optimizer, build_schedule
from training.egdd.weights import load_initial
from training.options import check, plain
from training.precision import Precision
from training.seeding import random_state, seed_everything, set_random_state

SAME = ("batch_size", "accum_iter", "epoch_images", "seed")
"""Options that say which images a step takes; a resumed run needs those of its checkpoint."""


@dataclass
class Run:
    """A training run in progress, on one process of its world."""

    config: EgddConfig
    world: World
    classifier: Classifier
    ema: ModelEmaV3 | None
    optimizer: torch.optim.AdamW
    schedule: CosineLRScheduler
    precision: Precision
    transform: Transform
    finish: Finish
    mixing: Mixing
    train: Images
    val: Images

    epoch: int = 0
    """Epochs done, with their evaluation."""
    step: int = 0
    """Steps done since."""
    losses: float = 0.0
    """Sum of the losses of this epoch's micro-batches so far, mean over the processes."""
    history: list[dict[str, float]] = field(default_factory=list)
    """One row an epoch."""
    images: int = 0
    """Images trained on in `seconds`, on all processes together."""
    seconds: float = 0.0
    saved: float = field(default_factory=time.monotonic)
    """When LAST was last written, or the run begun."""

    @property
    def micros(self) -> int:
        """Micro-batches of an epoch on each process."""
        config = self.config
        return micros_per_epoch(len(self.train), config.batch_size, self.world.size, at_most=config.epoch_images)

    @property
    def steps(self) -> int:
        """Steps of an epoch; the last may have fewer micro-batches than accum_iter."""
        return -(-self.micros // self.config.accum_iter)

    @property
    def done(self) -> int:
        """Steps done since the beginning."""
        return self.epoch * self.steps + self.step

    @property
    def served(self) -> nn.Module:
        """The network that is evaluated and served: the moving average when there is one."""
        return self.ema.module if self.ema is not None else self.classifier.net

    @contextmanager
    def serving(self) -> Iterator[Classifier]:
        """The classifier as it is served, in evaluation mode."""
        trained = self.classifier.net
        self.classifier.net = self.served
        self.classifier.eval()
        try:
            yield self.classifier
        finally:
            self.classifier.net = trained

    @property
    def best(self) -> dict[str, float] | None:
        """The first row of the history with the best --best_metric."""
        name = self.config.best_metric
        sign = -1 if name in LARGER_IS_BETTER else 1
        return min(self.history, key=lambda row: sign * row[name], default=None)

    @property
    def over(self) -> bool:
        """Whether all epochs are done, or --patience has run out."""
        best, patience = self.best, self.config.patience
        stale = best is not None and patience is not None and self.epoch - best["epoch"] >= patience
        return stale or self.epoch >= self.config.epochs


def set_up(config: EgddConfig, world: World) -> Run:
    """Read the data, build the model; the same on all processes.

    Raises:
        DataError: the data are missing, malformed, or too few for one batch.
        OptionInvalid: an option cannot be met.
        CheckpointError: the initial weights do not fit.
    """
    seed_everything(config.seed)
    train_list, val_list = splits(config, world)
    _check_enough(len(train_list), config, world)
    classifier = build_classifier(config, train_list.classes)
    if config.finetune is not None:
        world.print(load_initial(classifier, config.finetune))
    classifier.to(world.device).to(memory_format=torch.channels_last)
    train = load_for_training(
        train_list, config.input_size, min_crop=config.min_crop, cache_mb=config.cache_mb, world=world
    )
    _check_enough(len(train), config, world)
    val = load_for_evaluation(val_list, classifier.config, what="val", cache_mb=config.cache_mb, world=world)
    optimizer = build_optimizer(config, classifier.net, world.size)
    run = Run(
        config=config,
        world=world,
        classifier=classifier,
        ema=ModelEmaV3(classifier.net, decay=config.ema) if config.ema > 0 else None,
        optimizer=optimizer,
        schedule=build_schedule(config, optimizer),
        precision=Precision(config.amp, world.device),
        transform=build_transform(config, classifier.config.mean),
        finish=Finish(classifier, config),
        mixing=build_mixing(config, len(train_list.classes)),
        train=train,
        val=val,
        epoch=config.start_epoch,
    )
    # From here on every process draws its own: mixing, erasing, stochastic depth.
    seed_everything(config.seed + world.rank)
    return run


def splits(config: EgddConfig, world: World) -> tuple[Listing, Listing]:
    """List the training and the validation images, once for all processes.

    Raises:
        DataError, OptionInvalid: as `find_splits`.
    """
    return world.first(
        lambda: find_splits(
            config.data_path,
            val_fraction=config.val_fraction,
            seed=config.seed,
            nb_classes=config.nb_classes,
            extra=config.extra_data,
            show=True,
        )
    )


def _check_enough(count: int, config: EgddConfig, world: World) -> None:
    """Refuse a training set or an epoch smaller than the batch of all processes, which would train on nothing."""
    least = config.batch_size * world.size
    check("epoch_images", config.epoch_images, at_least=least, hint="the images of a batch on all processes")
    if count >= least:
        return
    pair = 2 if config.mixes else 1
    fits = count // world.size // pair * pair
    raise DataError(
        f"The training set has {count} images, less than the {config.batch_size} x {world.size} of one batch; "
        + (f"lower --batch_size to {fits}." if fits else "add images, or use fewer processes.")
    )


def save(run: Run, name: str) -> None:
    """Write a checkpoint into output_dir: LAST holds everything that the next step depends on, BEST the model alone.
    All processes must call it; the main one writes.

    Raises:
        CheckpointError: on all processes, when it cannot be written; what was there before is as it was.
    """
    config = run.config
    content: dict[str, Any] = {
        "classifier": settings_of(run.classifier.config),
        "model": run.served.state_dict(),
        "options": {
            **{f.name: plain(getattr(config, f.name)) for f in fields(config)},
            "world_size": run.world.size,  # which the learning rate depends on
        },
        "data": {
            "path": str(config.data_path),
            **{
                what: {"images": len(images), "skipped": len(images.skipped), "digest": images.digest}
                for what, images in (("train", run.train), ("val", run.val))
            },
        },
        "epoch": run.epoch,
        "history": run.history,
    }
    if name == LAST:
        content["training"] = {
            "net": run.classifier.net.state_dict(),
            "optimizer": run.optimizer.state_dict(),
            "scaler": run.precision.scaler.state_dict(),
            "step": run.step,
            "losses": run.losses,
            "images": run.images,
            "seconds": run.seconds,
            # One state a process.
            "random": run.world.gather(random_state(run.world.device)),
        }
    run.world.first(lambda: save_checkpoint(config.output_dir / name, "egdd", content))
    if name == LAST:
        run.saved = time.monotonic()


def resume(run: Run, path: Path) -> None:
    """Bring a run back to where a checkpoint left it.

    Raises:
        CheckpointError: it is no LAST, or of another run: model, classes, images, batches or number of processes.
    """
    content = load_checkpoint(path, "egdd")
    if "training" not in content:
        raise CheckpointError(f"{path} holds weights only; resume from {LAST}, or start from it by --finetune.")
    if content["classifier"] != settings_of(run.classifier.config):
        raise CheckpointError(f"{path} is of another model, input or set of classes; resume needs the same.")
    if content["data"]["train"]["digest"] != run.train.digest:
        raise CheckpointError(f"{path} was trained on other images; resume needs the same.")
    state = content["training"]
    try:
        for name in SAME:
            if content["options"].get(name) != getattr(run.config, name):
                raise CheckpointError(
                    f"{path} was trained with --{name} {content['options'].get(name)}; resume needs the same."
                )
        if len(state["random"]) != run.world.size:
            raise CheckpointError(
                f"{path} was trained by {len(state['random'])} processes, now there are {run.world.size}; resume needs "
                "as many, or start anew from its weights by --finetune."
            )
        run.classifier.net.load_state_dict(state["net"])
        if run.ema is not None:
            run.ema.module.load_state_dict(content["model"])
        run.optimizer.load_state_dict(state["optimizer"])
        run.precision.scaler.load_state_dict(state["scaler"])
        run.epoch, run.step, run.losses = content["epoch"], state["step"], state["losses"]
        run.history, run.images, run.seconds = content["history"], state["images"], state["seconds"]
        set_random_state(state["random"][run.world.rank], run.world.device)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path} does not fit these options: {error}") from error
