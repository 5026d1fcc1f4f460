"""What the processes of a training run agree on once a step, so that all act alike, and how a run ends early."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saaa.errors import TrainingDiverged
from training.checkpoint import LAST
from training.distributed import World
from training.files import write_json
from training.stopping import Stop, Stopped


@dataclass(frozen=True)
class Agreed:
    """What all processes know at the same step."""

    loss: float
    """The processes' losses added up."""
    diverged: bool
    save: bool
    """Whether it is time to save."""
    signal: int | None
    """By which signal the run was asked to stop."""


def agree(world: World, stop: Stop, *, loss: float = 0.0, finite: bool = True, due: bool = False) -> Agreed:
    """Put together what each process saw; all must call it.

    Args:
        world: the processes.
        stop: whether this one was asked to stop.
        loss: this process's part of the step's loss.
        finite: whether its gradients are finite; for its loss that is found out here.
        due: whether it is time to save, see `save_due`.
    """
    total, bad, save, *signals = world.total(
        [
            loss,
            not (finite and math.isfinite(loss)),
            due,
            stop.signal == signal.SIGINT,
            stop.signal == signal.SIGTERM,
        ]
    )
    asked = [number for number, count in zip((signal.SIGINT, signal.SIGTERM), signals, strict=True) if count]
    return Agreed(total, bad > 0, save > 0, asked[-1] if asked else None)


def save_due(world: World, minutes: float, saved: float) -> bool:
    """Whether the main process wants a checkpoint: `minutes` (0 is never) have passed since `saved`, a time of
    `time.monotonic`."""
    return world.main and 0 < minutes * 60 <= time.monotonic() - saved


def stopped(folder: Path, number: int) -> Stopped:
    """The end of a run whose LAST is in `folder`, asked for by a signal."""
    return Stopped(f"stopped; continue with --resume {folder / LAST}", number)


def diverged(
    world: World,
    folder: Path,
    *,
    epoch: int,
    step: int,
    agreed: float,
    finite: bool,
    what: str,
    suspects: Callable[[bool], list[Any]],
    advice: str,
) -> TrainingDiverged:
    """Write nonfinite.json, what the step was computed from, and give the error; all processes must call it.

    Args:
        world: the processes.
        folder: where the file goes and LAST may be.
        epoch, step: from 1; the step is counted in its epoch.
        agreed: the loss of all processes.
        finite: whether this process's own loss was.
        what: a plural for what `suspects` lists, such as "images".
        suspects: this process's; told whether some process's loss was not finite, or only the gradient.
        advice: what to do, in the imperative.
    """
    by_loss = any(world.gather(not finite))
    found = dict(enumerate(world.gather(suspects(by_loss))))
    world.first(lambda: write_json(folder / "nonfinite.json", {"epoch": epoch, "step": step, what: found}))
    subject = f"The loss became {agreed}" if by_loss else "The gradient became infinite"
    kept = f" {folder / LAST} is from before." if (folder / LAST).exists() else ""
    return TrainingDiverged(
        f"{subject} in epoch {epoch}, step {step}; {folder / 'nonfinite.json'} lists the {what}. {advice}{kept}"
    )
