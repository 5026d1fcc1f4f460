"""The books of a training run, kept by its main process: a table of steps, curves, and what it was made from."""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from saaa.errors import CheckpointError
from training.egdd.examples import attributions
from training.egdd.listing import save_classes
from training.egdd.recipe import learning_rates
from training.egdd.state import Run
from training.files import whole
from training.options import save_config
from training.progress import Curves, curves

EXAMPLES = 8
"""Validation images whose attributions TensorBoard shows."""


@dataclass(frozen=True)
class Row:
    """A step in steps.csv; two runs that agree in this table agreed in every step."""

    step: int
    """Steps done, this one included."""
    epoch: int
    """1 is the first."""
    loss: float
    """Mean over the step's images, on all processes."""
    lr: float
    """The largest of the groups' learning rates."""
    grad_norm: float
    """Of all gradients together, before clipping."""
    images_per_s: float
    """On all processes together."""


class Books:
    """What is written down while a run goes on. Only the main process has any.

    Args:
        table: where steps go.
        log: where curves go.
    """

    def __init__(self, table: Any, log: Curves) -> None:
        self._table = table
        self._log = log

    def step(self, row: Row) -> None:
        """Note a step."""
        self._table.writerow(astuple(row))
        self._log.add(row.step, {f"train/{name}": getattr(row, name) for name in ("loss", "lr", "images_per_s")})

    def epoch(self, run: Run) -> None:
        """Note the epoch that was just evaluated."""
        row = run.history[-1]
        self._log.add(run.done, {f"val/{name}": row[name] for name in ("accuracy", "top5", "loss", "ece")})
        self._log.add(run.done, {f"lr/{name}": rate for name, rate in learning_rates(run.optimizer).items()})

    def examples(self, run: Run) -> None:
        """Show where the model looks in a few validation images."""
        with run.serving() as classifier:
            self._log.show(run.done, "val/attributions", attributions(classifier, run.val, EXAMPLES))


@contextmanager
def open_books(run: Run) -> Iterator[Books | None]:
    """Open the books of a run on its main process, the others have none; what an interrupted run wrote after the step
    that is resumed from is dropped.

    Raises:
        CheckpointError: they cannot be written.
    """
    if not run.world.main:
        yield None
        return
    folder = run.config.output_dir
    path = folder / "steps.csv"
    names = list(Row.__dataclass_fields__)
    with ExitStack() as stack:
        try:
            kept = _rows(path, run.done) if run.config.resume is not None else []
            with whole(path) as aside:
                aside.write_text("".join(f"{line}\n" for line in [",".join(names), *kept]), encoding="utf-8")
            # A line at a time, so that a killed run loses none.
            file = stack.enter_context(path.open("a", encoding="utf-8", buffering=1, newline=""))
            log = stack.enter_context(curves(run.config.log_dir or folder, purge_step=run.done + 1))
        except (OSError, ValueError) as error:
            raise CheckpointError(f"Cannot write the books of the run: {error}") from error
        yield Books(csv.writer(file, lineterminator="\n"), log)


def _rows(path: Path, done: int) -> list[str]:
    """The first `done` steps of a table, without its head; a line torn by a crash is none."""
    lines = path.read_text(encoding="utf-8").split("\n")[1:-1] if path.exists() else []
    return [line for line in lines if int(line.split(",")[0]) <= done]


def note_setup(run: Run) -> int:
    """Write down what the run is made from: config.yaml, classes.json, and in skipped.txt the files that are no usable
    image.

    Returns:
        How many these are.

    Raises:
        CheckpointError, DataError: they cannot be written.
    """
    folder = run.config.output_dir
    save_config(run.config, folder / "config.yaml")
    save_classes(run.classifier.config.classes, folder / "classes.json")
    lines = [
        f"{images.listing.root / name}\t{reason}\n"
        for images in (run.train, run.val)
        for name, reason in images.skipped
    ]
    with whole(folder / "skipped.txt") as aside:
        aside.write_text("".join(lines), encoding="utf-8")
    return len(lines)


def make_folder(folder: Path) -> None:
    """Make output_dir, before anything is computed.

    Raises:
        CheckpointError: nothing can be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise CheckpointError(f"Cannot write to {folder}: {error.strerror or error}") from error
