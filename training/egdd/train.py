"""`saaa-train egdd`: train a classifier on class folders."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from timm.scheduler import CosineLRScheduler
from timm.utils import ModelEmaV3
from torch import Tensor
from torch.utils.data import DataLoader

from saaa.errors import CheckpointError, OptionInvalid
from saaa.models.classifier import Classifier
from training.checkpoint import Stop, graceful_stop, load_checkpoint, save_checkpoint
from training.egdd.config import EgddConfig
from training.egdd.data import (
    Augmented,
    Images,
    epoch_batches,
    find_splits,
    load_for_evaluation,
    load_for_training,
)
from training.egdd.evaluation import measure, predict, settings_of, torch_device, write_json
from training.egdd.recipe import (
    Mixing,
    build_classifier,
    build_mixing,
    build_optimizer,
    build_schedule,
    build_transform,
    training_mode,
)
from training.progress import Curves, curves, progress
from training.seeding import random_state, seed_everything, set_random_state

EVALUATION_BATCH = 32


@dataclass
class Run:
    """A training run in progress: what changes from step to step, and what it is made of."""

    config: EgddConfig
    classifier: Classifier
    ema: ModelEmaV3 | None
    optimizer: torch.optim.AdamW
    schedule: CosineLRScheduler
    mixing: Mixing
    train: Images
    val: Images
    transform: Callable[..., Tensor]
    batches_an_epoch: int
    epoch: int = 0
    step: int = 0
    """Steps done in this epoch."""
    history: list[dict[str, float]] = field(default_factory=list)
    """One row an epoch."""
    best_accuracy: float = -1.0
    result: dict[str, Any] | None = None
    """What the last evaluation found."""
    seconds: float = 0.0

    @property
    def served(self) -> torch.nn.Module:
        """The network that is evaluated and served: the moving average when there is one."""
        return self.ema.module if self.ema is not None else self.classifier.net


def train(config: EgddConfig) -> dict[str, Any]:
    """Train a classifier.

    Writes into `config.output_dir`: last.pt after every epoch and when stopped (resume from it), best.pt
    (best accuracy on val so far), metrics.json, skipped.txt (files that are no usable image), and
    TensorBoard's files.

    What counts as the result is the last epoch, not the best: val chooses nothing, so its accuracy is an
    honest figure.

    Returns:
        The content of metrics.json.

    Raises:
        DataError: the data are missing, empty or malformed.
        OptionInvalid: an option cannot be met, or the loss is no longer finite.
        CheckpointError: `config.resume` is unusable or does not fit, or nothing can be written to output_dir.
        KeyboardInterrupt: stopped by SIGINT or SIGTERM, after last.pt was written.
    """
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    started = time.monotonic()
    _make_folder(config.output_dir)
    run = _set_up(config)
    skipped = _report_skipped(run, config.output_dir)
    if config.resume is not None:
        _resume(run, config.resume)
    print(
        f"{config.model}: {len(run.train)} training and {len(run.val)} validation images of "
        f"{len(run.classifier.config.classes)} classes, {skipped} files skipped"
    )
    purge = run.epoch * run.batches_an_epoch + run.step
    with graceful_stop() as stop, curves(config.log_dir or config.output_dir, purge_step=purge) as log:
        while run.epoch < config.epochs:
            before = time.monotonic()
            _train_epoch(run, log, stop)
            run.seconds += time.monotonic() - before
            _end_epoch(run, log)
    metrics = _metrics(run, time.monotonic() - started)
    write_json(config.output_dir / "metrics.json", metrics)
    print(f"val accuracy {metrics['accuracy']:.4f} after the last epoch -> {config.output_dir / 'last.pt'}")
    return metrics


def _set_up(config: EgddConfig) -> Run:
    """Read the data, build the model; everything random comes from the seed."""
    seed_everything(config.seed)
    device = torch_device(config.device)
    train_list, val_list = find_splits(config.data_path, val_fraction=config.val_fraction, seed=config.seed)
    classifier = build_classifier(config, train_list.classes)
    transform = build_transform(config, classifier.config)
    train_images = load_for_training(train_list, config.input_size, cache_mb=config.cache_mb)
    val_images = load_for_evaluation(val_list, classifier.config, what="val", cache_mb=config.cache_mb)
    classifier.to(device).to(memory_format=torch.channels_last)
    optimizer = build_optimizer(config, classifier.net)
    mixing = build_mixing(config, len(train_list.classes))
    count = len(_batches(config, len(train_images), mixing, 0))
    return Run(
        config=config,
        classifier=classifier,
        ema=ModelEmaV3(classifier.net, decay=config.ema) if config.ema > 0 else None,
        optimizer=optimizer,
        schedule=build_schedule(config, optimizer, count),
        mixing=mixing,
        train=train_images,
        val=val_images,
        transform=transform,
        batches_an_epoch=count,
    )


def _batches(config: EgddConfig, count: int, mixing: Mixing, epoch: int) -> list[list[int]]:
    return epoch_batches(count, config.batch_size, seed=config.seed, epoch=epoch, even=mixing.mix is not None)


def _train_epoch(run: Run, log: Curves, stop: Stop) -> None:
    """Go through what is left of the current epoch."""
    config, net = run.config, run.classifier.net
    device = next(net.parameters()).device
    trained = [p for p in net.parameters() if p.requires_grad]
    batches = _batches(config, len(run.train), run.mixing, run.epoch)[run.step :]
    loader = DataLoader(
        Augmented(run.train, run.transform),
        batch_sampler=batches,
        num_workers=config.num_workers,
        # Its own generator: opening a loader must not draw from the state that a resumed run continues.
        generator=torch.Generator().manual_seed(config.seed + run.epoch),
    )
    training_mode(net)
    total, seen = 0.0, 0
    bar = progress(loader, f"epoch {run.epoch + 1}/{config.epochs}", total=len(batches))
    for inputs, labels in bar:
        global_step = run.epoch * run.batches_an_epoch + run.step
        run.schedule.step_update(global_step)
        inputs = inputs.to(device).contiguous(memory_format=torch.channels_last)
        inputs, targets = run.mixing(inputs, labels.to(device))
        loss = run.mixing.loss(net(inputs), targets)
        value = loss.item()
        if not math.isfinite(value):
            raise OptionInvalid(
                f"The loss became {value} in epoch {run.epoch + 1}, step {run.step + 1}; lower --blr, or set "
                f"--clip_grad 1. {config.output_dir / 'last.pt'} is as the last complete epoch left it.",
                field="blr",
            )
        run.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if config.clip_grad is not None:
            torch.nn.utils.clip_grad_norm_(trained, config.clip_grad)
        run.optimizer.step()
        if run.ema is not None:
            run.ema.update(net)
        run.step += 1
        total, seen = total + value, seen + 1
        bar.set_postfix(loss=f"{total / seen:.3f}", refresh=False)
        log.add(global_step, {"train/loss": value, "train/lr": max(g["lr"] for g in run.optimizer.param_groups)})
        if stop:
            _save(run, "last.pt", resumable=True)
            raise KeyboardInterrupt(f"stopped; continue with --resume {config.output_dir / 'last.pt'}")
    run.history.append({"epoch": run.epoch + 1, "train_loss": total / max(seen, 1)})
    run.epoch, run.step = run.epoch + 1, 0


def _end_epoch(run: Run, log: Curves) -> None:
    """Measure on val, keep the checkpoints, tell the user."""
    result = run.result = _evaluate(run)
    row = run.history[-1]
    row.update(accuracy=result["accuracy"], loss=result["loss"])
    log.add(run.epoch * run.batches_an_epoch, {"val/accuracy": result["accuracy"], "val/loss": result["loss"]})
    if result["accuracy"] > run.best_accuracy:
        run.best_accuracy = result["accuracy"]
        _save(run, "best.pt", resumable=False)
    _save(run, "last.pt", resumable=True)
    print(
        f"epoch {run.epoch}/{run.config.epochs}: train loss {row['train_loss']:.3f}, "
        f"val loss {row['loss']:.3f}, val accuracy {row['accuracy']:.4f}"
    )


def _evaluate(run: Run) -> dict[str, Any]:
    """Measure the served network on val."""
    trained = run.classifier.net
    run.classifier.net = run.served
    try:
        run.classifier.eval()
        logits = predict(run.classifier, run.val, batch_size=EVALUATION_BATCH)
    finally:
        run.classifier.net = trained
    return measure(logits, run.val.labels, run.classifier.config.classes)


def _save(run: Run, name: str, *, resumable: bool) -> None:
    """Write a checkpoint; a resumable one holds everything that the next step depends on."""
    content: dict[str, Any] = {
        "classifier": settings_of(run.classifier.config),
        "model": run.served.state_dict(),
        "options": {key: str(value) if isinstance(value, Path) else value for key, value in asdict(run.config).items()},
        "data": {
            "path": str(run.config.data_path),
            "train": {
                "images": len(run.train),
                "skipped": len(run.train.skipped),
                "digest": run.train.digest,
            },
            "val": {"images": len(run.val), "skipped": len(run.val.skipped), "digest": run.val.digest},
        },
        "epoch": run.epoch,
        "history": run.history,
    }
    if resumable:
        content["training"] = {
            "net": run.classifier.net.state_dict(),
            "optimizer": run.optimizer.state_dict(),
            "step": run.step,
            "best_accuracy": run.best_accuracy,
            "seconds": run.seconds,
            "random": random_state(),
        }
    save_checkpoint(run.config.output_dir / name, "egdd", content)


def _resume(run: Run, path: Path) -> None:
    """Bring a run back to where a checkpoint left it."""
    content = load_checkpoint(path, "egdd")
    if "training" not in content:
        raise CheckpointError(f"{path} holds weights only; resume from last.pt.")
    if content["classifier"] != settings_of(run.classifier.config):
        raise CheckpointError(f"{path} is of another model, input or set of classes; resume needs the same.")
    if content["data"]["train"]["digest"] != run.train.digest:
        raise CheckpointError(f"{path} was trained on other images; resume needs the same.")
    state = content["training"]
    try:
        run.classifier.net.load_state_dict(state["net"])
        run.optimizer.load_state_dict(state["optimizer"])
        if run.ema is not None:
            run.ema.module.load_state_dict(content["model"])
        run.epoch, run.step = content["epoch"], state["step"]
        run.history, run.best_accuracy = content["history"], state["best_accuracy"]
        run.seconds = state["seconds"]
        set_random_state(state["random"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path} does not fit these options: {error}") from error


def _metrics(run: Run, seconds: float) -> dict[str, Any]:
    """Sum the run up."""
    result = run.result or _evaluate(run)
    steps = len(run.history) * run.batches_an_epoch
    batch = min(run.config.batch_size, len(run.train))
    return {
        **result,
        "epoch": run.epoch,
        "best": max(run.history, key=lambda row: row["accuracy"]),
        "history": run.history,
        "images_per_s": steps * batch / run.seconds if run.seconds else None,
        "seconds": seconds,
    }


def _report_skipped(run: Run, folder: Path) -> int:
    """List the unusable files in skipped.txt, and say how many there are."""
    lines = [
        f"{images.listing.root / file}\t{reason}\n"
        for images in (run.train, run.val)
        for file, reason in images.skipped
    ]
    (folder / "skipped.txt").write_text("".join(lines), encoding="utf-8")
    return len(lines)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"Cannot write to {folder}: {error.strerror or error}") from error
