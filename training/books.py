"""The books of a training run, kept by its main process: a table of steps, and curves."""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, astuple, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saaa.errors import CheckpointError
from training.distributed import World
from training.files import whole
from training.progress import Curves, curves


class Books:
    """What is written down while a run goes on.

    Args:
        table: where steps go.
        log: where curves go.
        drawn: which columns of the table are curves, too.
    """

    def __init__(self, table: Any, log: Curves, drawn: tuple[str, ...]) -> None:
        self._table = table
        self._log = log
        self._drawn = drawn

    def step(self, row: Any) -> None:
        """Note a step, a dataclass whose first field is `step`: steps done, this one included."""
        self._table.writerow(astuple(row))
        values = asdict(row)
        self._log.add(row.step, {f"train/{name}": values[name] for name in self._drawn})

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Put one value on each of the named curves."""
        self._log.add(step, values)

    def show(self, step: int, name: str, picture: NDArray[np.uint8]) -> None:
        """Show a picture, RGB (3, height, width)."""
        self._log.show(step, name, picture)


@contextmanager
def open_books(
    world: World, folder: Path, row: type, *, drawn: tuple[str, ...], log_dir: Path | None, done: int, resumed: bool
) -> Iterator[Books | None]:
    """Open the books of a run on its main process, the others have none; what an interrupted run wrote after the step
    that is resumed from is dropped.

    Args:
        world: the processes.
        folder: where steps.csv is.
        row: the dataclass of a step; its fields are the table's columns.
        drawn: which of these are curves, too.
        log_dir: where curves go; None is `folder`.
        done: steps done so far.
        resumed: whether these are in the table.

    Raises:
        CheckpointError: they cannot be written.
    """
    if not world.main:
        yield None
        return
    path = folder / "steps.csv"
    names = [field.name for field in fields(row)]
    with ExitStack() as stack:
        try:
            kept = _rows(path, done) if resumed else []
            with whole(path) as aside:
                aside.write_text("".join(f"{line}\n" for line in [",".join(names), *kept]), encoding="utf-8")
            # A line at a time, so that a killed run loses none.
            file = stack.enter_context(path.open("a", encoding="utf-8", buffering=1, newline=""))
            log = stack.enter_context(curves(log_dir or folder, purge_step=done + 1))
        except (OSError, ValueError) as error:
            raise CheckpointError(f"Cannot write the books of the run: {error}") from error
        yield Books(csv.writer(file, lineterminator="\n"), log, drawn)


def _rows(path: Path, done: int) -> list[str]:
    """The first `done` steps of a table, without its head; a line torn by a crash is none."""
    lines = path.read_text(encoding="utf-8").split("\n")[1:-1] if path.exists() else []
    return [line for line in lines if int(line.split(",")[0]) <= done]


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
