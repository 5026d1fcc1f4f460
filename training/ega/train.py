"""`saaa-train ega`: features once, then teacher forcing, on one process or on several that torchrun started."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from saaa.errors import TrainingDiverged
from training.agreement import agree, diverged, save_due, stopped
from training.books import Books, make_folder, open_books
from training.checkpoint import BEST, LAST, to_continue
from training.distributed import World, world
from training.ega.batches import Batch
from training.ega.config import EgaConfig
from training.ega.loader import batches
from training.ega.objective import Totals, Weights, count_totals, loss_and_gradients
from training.ega.state import Run, resume, save, set_up
from training.ega.validation import validate
from training.files import write_json
from training.options import save_config
from training.progress import counter
from training.stopping import Stop, graceful_stop


@dataclass(frozen=True)
class Row:
    """A step in steps.csv; two runs that agree in this table agreed in every step."""

    step: int
    """Steps done, this one included."""
    epoch: int
    """1 is the first."""
    loss: float
    """Of all processes' captions, side tasks included; the caption's part is a mean over words."""
    lr: float
    grad_norm: float
    """Of all gradients together, before clipping."""
    captions_per_s: float
    """On all processes together."""


DRAWN = ("loss", "lr", "captions_per_s")
"""Columns that are curves, too."""


def train(config: EgaConfig, *, before: Callable[[], object] | None = None) -> dict[str, Any]:
    """Train a captioner.

    Writes into `config.output_dir`: last.pt after every epoch, every --save_minutes and when stopped (resume from it);
    best.pt (the best --best_by on val_set so far); config.yaml; steps.csv (a row a step); metrics.json (a row an
    epoch); skipped.txt (what could not be used, and why); the features; and TensorBoard's files.

    A run that was stopped and resumed gives the weights of one that was not; on the CPU they are equal to the bit.

    Args:
        config: the options.
        before: what one of the processes does first, such as making the cache.

    Returns:
        The content of metrics.json.

    Raises:
        DataError: the data are missing or malformed, or fewer than one batch.
        OptionInvalid: an option cannot be met.
        ArchiveError: the backbone's archive cannot be used.
        CheckpointError: `config.resume` does not fit, or nothing can be written to output_dir.
        TrainingDiverged: the loss is no longer finite; nonfinite.json names the captions of the step.
        Stopped: by SIGINT or SIGTERM, after last.pt was written.
    """
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    with world(config.device, config.dist_url) as processes:
        processes.first(lambda: make_folder(config.output_dir))
        if before is not None:
            processes.first(before)
        return _train(config, processes)


def _train(config: EgaConfig, processes: World) -> dict[str, Any]:
    started = time.monotonic()
    run = set_up(config, processes)
    begun = processes.first(lambda: to_continue(config.output_dir, config.resume, go_on=config.go_on))
    if begun is not None:
        resume(run, begun)
        processes.print(f"resumed after epoch {run.epoch}, step {run.step} of the next")
    processes.first(lambda: save_config(config, config.output_dir / "config.yaml"))
    processes.print(
        f"{len(run.data.train)} captions to train on, {len(run.data.val)} to validate; {run.steps} steps an epoch; "
        f"prepared in {time.monotonic() - started:.0f} s"
    )
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
            _train_epoch(run, books, stop)
            _end_epoch(run, books)
            asked = agree(processes, stop).signal
            if asked and not run.over:
                raise stopped(config.output_dir, asked)
    if run.best is not None:
        chosen = f"{config.best_by} {run.best[f'val/{config.best_by}']:.4g}"
        processes.print(f"{config.output_dir / BEST}: epoch {run.best['epoch']}, {chosen}")
    return _metrics(run)


def _train_epoch(run: Run, books: Books | None, stop: Stop) -> None:
    """Go through what is left of the current epoch."""
    config, processes = run.config, run.world
    run.data.train.begin_epoch(run.epoch)
    order = run.order()
    todo = order[run.step :]
    mine = [rows[processes.rank :: processes.size] for rows in todo]
    bar = counter(
        f"epoch {run.epoch + 1}/{config.epochs}",
        total=sum(map(len, order)),
        done=sum(map(len, order[: run.step])),
        unit="caption",
        show=processes.main,
    )
    run.captioner.train()
    before = time.monotonic()
    with bar, closing(batches(run.data.train, mine, processes.device, config.num_workers)) as ready:
        for rows, own, batch in zip(todo, mine, ready, strict=True):
            lr = run.rate
            for group in run.optimiser.param_groups:
                group["lr"] = lr
            done = _gradients(run, batch)
            # Before the step, so that weights that went wrong are never saved.
            agreed = agree(
                processes,
                stop,
                loss=done.loss,
                # In fp16 a gradient that overflows only makes the scaler skip the step.
                finite=run.precision.scaled or math.isfinite(done.grad_norm),
                due=save_due(processes, config.save_minutes, run.saved),
            )
            if agreed.diverged:
                raise _diverged(run, done, own, batch, agreed.loss)
            run.precision.step(run.parameters, run.optimiser, done.norm, config.clip_grad)
            if run.average is not None:
                _follow(run)
            run.step += 1
            now = time.monotonic()
            run.losses, run.words = run.losses + agreed.loss * done.totals.words, run.words + done.totals.words
            run.captions, run.seconds = run.captions + len(rows), run.seconds + now - before
            bar.update(len(rows))
            bar.set_postfix(loss=f"{run.losses / run.words:.3f}", refresh=False)
            if books is not None:
                rate = len(rows) / (now - before)
                books.step(Row(run.done, run.epoch + 1, agreed.loss, lr, done.grad_norm, rate))
            before = now
            if agreed.save or agreed.signal:
                save(run, LAST)
            if agreed.signal:
                raise stopped(config.output_dir, agreed.signal)


@dataclass(frozen=True, kw_only=True)
class Done:
    """The gradients of a step."""

    loss: float
    """This process's part."""
    totals: Totals
    """Of all processes."""
    norm: Tensor
    """Of all gradients; on the device, and as a number."""
    grad_norm: float


def _gradients(run: Run, batch: Batch | None) -> Done:
    """Give the parameters the gradients of all processes' captions together.

    Means are over the whole batch, so what they are divided by is added up before; losses and gradients then just add
    up, and two processes do what one does with twice the batch.
    """
    weights = Weights.at(run.config, run.done / run.steps)
    own = Totals(0, 0, 0) if batch is None else count_totals(batch, weights)
    totals = Totals(*run.world.total(own))
    loss = 0.0
    gradients: list[Tensor | None] = [None] * len(run.parameters)
    if batch is not None:
        loss, gradients = loss_and_gradients(
            run.captioner,
            run.naming,
            batch,
            weights,
            totals,
            seed=(run.config.seed, run.done, run.world.rank),
            parts=run.parts,
            pool=run.pool,
            precision=run.precision,
        )
    added = []
    for parameter, gradient in zip(run.parameters, gradients, strict=True):
        # Nought, not nothing: the processes must send each other the same.
        parameter.grad = torch.zeros_like(parameter) if gradient is None else gradient
        added.append(parameter.grad)
    run.world.add_up(added)
    norm = run.precision.norm(run.parameters, run.optimiser)
    return Done(loss=loss, totals=totals, norm=norm, grad_norm=float(norm))


@torch.no_grad()
def _follow(run: Run) -> None:
    """Let the moving average follow the weights; early on quickly, so that it does not remember the random start."""
    assert run.average is not None
    decay = min(run.config.ema, (1 + run.done) / (10 + run.done))
    torch._foreach_lerp_(list(run.average.parameters()), list(run.captioner.parameters()), 1 - decay)


@torch.no_grad()
def _diverged(run: Run, done: Done, rows: Tensor, batch: Batch | None, loss: float) -> TrainingDiverged:
    """Write nonfinite.json, the captions that the network's output is not finite for (all of the step, when it is only
    the gradient that is not), and give the error."""

    def captions(by_loss: bool) -> list[dict[str, str]]:
        if batch is None:
            return []
        taught = run.captioner.teach(batch.regions, batch.image, batch.graphs, batch.captions, batch.lengths)
        bad = torch.zeros(len(batch), dtype=torch.bool)
        bad[taught.rows[~taught.hidden.isfinite().all(1)].cpu()] = True
        named = rows[bad] if by_loss and (bad.any() or math.isfinite(done.loss)) else rows
        source = run.data.train
        found = []
        for row in named.tolist():
            region = source.regions[int(source.region_of[row])]
            said = int((source.region_of[:row] == source.region_of[row]).sum())
            found.append({"image": region.image_id, "region": region.region_id, "caption": region.captions[said]})
        return found

    return diverged(
        run.world,
        run.config.output_dir,
        epoch=run.epoch + 1,
        step=run.step + 1,
        agreed=loss,
        finite=math.isfinite(done.loss),
        what="captions",
        suspects=captions,
        advice="Lower --lr, or set --clip_grad 1.",
    )


def _end_epoch(run: Run, books: Books | None) -> None:
    """Validate when it is time, keep the checkpoints, tell the user."""
    config, data = run.config, run.data
    row = {
        "epoch": run.epoch + 1,
        "step": run.done,
        "train/loss": run.losses / run.words,
        "train/lr": run.optimiser.param_groups[0]["lr"],
    }
    line = f"epoch {run.epoch + 1}/{config.epochs}: train loss {row['train/loss']:.3f}"
    if (run.epoch + 1) % config.val_every == 0 or run.epoch + 1 == config.epochs:
        found = validate(run.served, data.val, data.vocabulary, run.world)
        if not math.isfinite(found.loss):
            raise TrainingDiverged(
                f"After epoch {run.epoch + 1} the network's output is not finite; lower --lr, or set --clip_grad 1."
            )
        row |= {"val/loss": found.loss, "val/cider": found.cider}
        line += f", val loss {found.loss:.3f}, val CIDEr {found.cider:.1f}"
        if found.node_accuracy is not None:
            row["val/node_accuracy"] = found.node_accuracy
            line += f", val node accuracy {found.node_accuracy:.3f}"
    run.history.append(row)
    run.epoch, run.step, run.losses, run.words = run.epoch + 1, 0, 0.0, 0.0
    if books is not None:
        books.add(run.done, {name: value for name, value in row.items() if name.startswith("val/")})
    if run.best is row:
        save(run, BEST)
    save(run, LAST)
    run.world.first(lambda: write_json(config.output_dir / "metrics.json", _metrics(run)))
    run.world.print(line)


def _metrics(run: Run) -> dict[str, Any]:
    """Sum the run up."""
    return {
        "epochs": run.history,
        "best": run.best,
        "best_epoch": None if run.best is None else run.best["epoch"],
        "captions_per_s": run.captions / run.seconds if run.seconds else None,
    }
