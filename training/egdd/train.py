"""`saaa-train egdd`: train a classifier by MAE's recipe, on one process or on several that torchrun started."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from saaa.errors import CheckpointError, TrainingDiverged
from training.agreement import Agreed, agree, diverged, save_due, stopped
from training.books import Books, make_folder, open_books
from training.checkpoint import BEST, LAST, to_continue
from training.distributed import World, world
from training.egdd.books import DRAWN, Row, note_epoch, note_examples, note_setup
from training.egdd.config import EgddConfig
from training.egdd.data import load_for_evaluation
from training.egdd.evaluation import summary
from training.egdd.loader import Batch, training_loader
from training.egdd.networks import build_classifier
from training.egdd.outcome import Outcome, judge, write_outcome
from training.egdd.recipe import training_mode
from training.egdd.state import Run, resume, save, set_up, splits
from training.egdd.weights import load_initial
from training.progress import counter
from training.stopping import Stop, graceful_stop


def train(config: EgddConfig) -> dict[str, Any]:
    """Train a classifier, or under --eval only evaluate one.

    Writes into `config.output_dir`: last.pt after every epoch, every --save_minutes and when stopped (resume from it);
    best.pt (the best --best_metric on val so far); config.yaml, classes.json; steps.csv (a row a step); metrics.json,
    failures.csv, confusion.png, calibration.png (of the last epoch); skipped.txt (files that are no usable image); and
    TensorBoard's files.

    What counts as the result is the last epoch, not the best: val chooses nothing, so its accuracy is an honest figure.

    A run that was stopped and resumed gives the weights of one that was not; on the CPU they are equal to the bit.

    Returns:
        The content of metrics.json.

    Raises:
        DataError: the data are missing, empty or malformed.
        OptionInvalid: an option cannot be met.
        CheckpointError: initial weights or `config.resume` do not fit, or nothing can be written to output_dir.
        TrainingDiverged: the loss is no longer finite; nonfinite.json names the images of the step.
        Stopped: by SIGINT or SIGTERM, after last.pt was written.
    """
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    # Shapes never change, so the fastest convolution is worth finding.
    torch.backends.cudnn.benchmark = True
    with world(config.device, config.dist_url) as processes:
        processes.first(lambda: make_folder(config.output_dir))
        return _evaluate_only(config, processes) if config.eval else _train(config, processes)


def _evaluate_only(config: EgddConfig, processes: World) -> dict[str, Any]:
    """Measure the weights of --resume, --finetune or --pretrained on val."""
    train_list, val_list = splits(config, processes)
    classifier = build_classifier(config, train_list.classes)
    path = config.resume or config.finetune
    if path is not None:
        processes.print(load_initial(classifier, path, whole=True))
    classifier.to(processes.device).eval()
    val = load_for_evaluation(val_list, classifier.config, what="val", cache_mb=config.cache_mb, world=processes)
    outcome = judge(classifier, val, config, processes, show=True)
    metrics = {**outcome.report, "skipped": [list(row) for row in val.skipped]}
    processes.first(lambda: write_outcome(outcome, metrics, config.output_dir))
    processes.print(summary(metrics))
    return metrics


def _train(config: EgddConfig, processes: World) -> dict[str, Any]:
    started = time.monotonic()
    run = set_up(config, processes)
    begun = processes.first(lambda: to_continue(config.output_dir, config.resume, go_on=config.go_on))
    if begun is not None:
        resume(run, begun)
    skipped = processes.first(lambda: note_setup(run))
    processes.print(
        f"{config.model}: {len(run.train)} training and {len(run.val)} validation images of "
        f"{len(run.classifier.config.classes)} classes, {skipped} files skipped; {run.steps} steps an epoch"
    )
    net, outcome = _wrapped(run), None
    with (
        graceful_stop() as stop,
        open_books(
            processes,
            config.output_dir,
            Row,
            drawn=DRAWN,
            log_dir=config.log_dir,
            done=run.done,
            resumed=begun is not None,
        ) as books,
    ):
        while not run.over:
            _train_epoch(run, net, books, stop)
            outcome = _end_epoch(run, books)
            asked = agree(processes, stop).signal
            if asked and not run.over:
                raise stopped(config.output_dir, asked)
    outcome = outcome or _judge(run)
    metrics = _metrics(run, outcome, time.monotonic() - started)
    processes.first(lambda: write_outcome(outcome, metrics, config.output_dir))
    processes.print(f"val accuracy {metrics['accuracy']:.4f} after the last epoch -> {config.output_dir / LAST}")
    return metrics


def _wrapped(run: Run) -> nn.Module:
    """Compile the network when asked to, and let its gradients be averaged over the processes; run.classifier.net stays
    as it is, and so do the names in checkpoints."""
    net = run.classifier.net
    if run.config.compile:
        net = cast(nn.Module, torch.compile(net))
    if run.world.size > 1:
        ids = [run.world.device] if run.world.device.type == "cuda" else None
        net = DistributedDataParallel(net, device_ids=ids, gradient_as_bucket_view=True)
    return net


def _train_epoch(run: Run, net: nn.Module, books: Books | None, stop: Stop) -> None:
    """Go through what is left of the current epoch."""
    config, accum = run.config, run.config.accum_iter
    loader = training_loader(
        run.train,
        run.transform,
        config=config,
        world=run.world,
        epoch=run.epoch,
        first_micro=run.step * accum,
    )
    training_mode(run.classifier.net)
    a_micro = config.batch_size * run.world.size
    trained = [p for group in run.optimizer.param_groups for p in group["params"] if p.requires_grad]
    bar = counter(
        f"epoch {run.epoch + 1}/{config.epochs}",
        total=run.micros * a_micro,
        done=run.step * accum * a_micro,
        show=run.world.main,
    )
    batches, before = iter(loader), time.monotonic()
    with bar:
        while run.step < run.steps:
            first = run.step * accum
            run.schedule.step(run.epoch + first / run.micros)  # type: ignore[arg-type] # fractions are fine
            done = _gradients(run, net, trained, batches, min(accum, run.micros - first))
            # Before the step, so that weights that went wrong are never saved.
            agreed = _agree(run, stop, done)
            if agreed.diverged:
                raise _diverged(run, done, agreed.loss)
            run.precision.step(trained, run.optimizer, done.norm, config.clip_grad)
            if run.ema is not None:
                run.ema.update(run.classifier.net)
            run.step += 1
            now = time.monotonic()
            images = len(done.losses) * a_micro
            run.losses += agreed.loss * len(done.losses)
            run.images, run.seconds = run.images + images, run.seconds + now - before
            bar.update(images)
            bar.set_postfix(loss=f"{run.losses / (first + len(done.losses)):.3f}", refresh=False)
            if books is not None:
                lr = max(group["lr"] for group in run.optimizer.param_groups)
                books.step(Row(run.done, run.epoch + 1, agreed.loss, lr, done.grad_norm, images / (now - before)))
            before = now
            if agreed.save or agreed.signal:
                save(run, LAST)
            if agreed.signal:
                raise stopped(config.output_dir, agreed.signal)


@dataclass
class Done:
    """The micro-batches of a step on this process."""

    losses: list[float] = field(default_factory=list)
    """Mean over each one's images."""
    indices: list[Tensor] = field(default_factory=list)
    """The images of each."""
    norm: Tensor = field(default_factory=lambda: torch.zeros(()))
    """Of the gradients, averaged over the processes; on the device."""
    grad_norm: float = 0.0
    """The same as a number."""

    @property
    def loss(self) -> float:
        """Mean over all its images."""
        return sum(self.losses) / len(self.losses)


def _gradients(run: Run, net: nn.Module, trained: list[nn.Parameter], batches: Iterator[Batch], count: int) -> Done:
    """Compute the gradients of a step: the mean over `count` micro-batches on every process."""
    device, precision, done = run.world.device, run.precision, Done()
    run.optimizer.zero_grad(set_to_none=True)
    losses: list[Tensor] = []
    for micro in range(count):
        pixels, labels, indices = next(batches)
        inputs = run.finish(pixels.to(device, non_blocking=True))
        inputs, targets = run.mixing(inputs, labels.to(device, non_blocking=True))
        # Gradients travel with the last micro-batch only.
        with net.no_sync() if isinstance(net, DistributedDataParallel) and micro + 1 < count else nullcontext():
            with precision.autocast():
                logits = net(inputs)
            loss = run.mixing.loss(logits.float(), targets)
            precision.backward(loss / count)
        losses.append(loss.detach())
        done.indices.append(indices)
    done.norm = precision.norm(trained, run.optimizer)
    # One wait for the device a step.
    *done.losses, done.grad_norm = torch.stack([*losses, done.norm]).tolist()
    return done


def _agree(run: Run, stop: Stop, done: Done) -> Agreed:
    # In fp16 a gradient that overflows only makes the scaler skip the step.
    return agree(
        run.world,
        stop,
        loss=done.loss / run.world.size,
        finite=run.precision.scaled or math.isfinite(done.grad_norm),
        due=save_due(run.world, run.config.save_minutes, run.saved),
    )


def _diverged(run: Run, done: Done, loss: float) -> TrainingDiverged:
    """Write nonfinite.json, the images of the micro-batches whose loss is not finite (of all, when only the gradient is
    not), and give the error."""
    listing = run.train.listing

    def images(by_loss: bool) -> list[str]:
        return [
            str(listing.root / listing.place(i))
            for value, indices in zip(done.losses, done.indices, strict=True)
            if not (by_loss and math.isfinite(value))
            for i in indices.tolist()
        ]

    return diverged(
        run.world,
        run.config.output_dir,
        epoch=run.epoch + 1,
        step=run.step + 1,
        agreed=loss,
        finite=math.isfinite(done.loss),
        what="images",
        suspects=images,
        advice="Lower --blr, or set --clip_grad 1.",
    )


def _end_epoch(run: Run, books: Books | None) -> Outcome:
    """Measure on val, keep the checkpoints, tell the user."""
    config = run.config
    outcome = _judge(run)
    names = ("accuracy", "top5", "loss", "ece")
    row = {"epoch": run.epoch + 1, "train_loss": run.losses / run.micros, **{n: outcome.report[n] for n in names}}
    run.history.append(row)
    run.epoch, run.step, run.losses = run.epoch + 1, 0, 0.0
    if books is not None:
        note_epoch(books, run)
        if config.attributions_every and run.epoch % config.attributions_every == 0:
            note_examples(books, run)
    if run.best is row:
        save(run, BEST)
    save(run, LAST)
    run.world.print(
        f"epoch {run.epoch}/{config.epochs}: train loss {row['train_loss']:.3f}, "
        f"val loss {row['loss']:.3f}, val accuracy {row['accuracy']:.4f}"
    )
    return outcome


def _judge(run: Run) -> Outcome:
    """Measure the served network."""
    run.world.align(run.served)
    try:
        with run.serving() as classifier:
            return judge(classifier, run.val, run.config, run.world)
    except CheckpointError as error:
        raise TrainingDiverged(
            f"After epoch {run.epoch + 1} the network's output is not finite; lower --blr, or set --clip_grad 1."
        ) from error


def _metrics(run: Run, outcome: Outcome, seconds: float) -> dict[str, Any]:
    """Sum the run up."""
    return {
        **outcome.report,
        "epoch": run.epoch,
        "best": run.best,
        "history": run.history,
        "images_per_s": run.images / run.seconds if run.seconds else None,
        "seconds": seconds,
    }
