"""What a person sees of a running job: progress bars on the terminal, curves in TensorBoard."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sized
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

T = TypeVar("T")


def progress(items: Iterable[T], what: str, *, total: int | None = None, unit: str = "batch") -> tqdm[T]:
    """Wrap an iterable in a progress bar; without a terminal it is redrawn every 10 seconds only."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    return tqdm(items, desc=what, total=total, unit=unit, **_manner())


def counter(what: str, *, total: int, done: int = 0, unit: str = "image", show: bool = True) -> tqdm[Any]:
    """Make a progress bar that is moved by `update(n)`; it shows n a second and the time left."""
    return tqdm(desc=what, total=total, initial=done, unit=unit, disable=not show, **_manner())


def _manner() -> dict[str, Any]:
    watched = sys.stderr.isatty()
    return {"dynamic_ncols": watched, "mininterval": 0.2 if watched else 10, "leave": False}


class Curves:
    """Scalars and pictures for TensorBoard."""

    def __init__(self, folder: Path, *, purge_step: int | None = None) -> None:
        # Imported here: it takes a second, and jobs without curves should not wait for it.
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=purge_step)

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Put one value on each of the named curves."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def show(self, step: int, name: str, picture: NDArray[np.uint8]) -> None:
        """Show a picture, RGB (3, height, width)."""
        self._writer.add_image(name, picture, step)

    def close(self) -> None:
        """Write what is pending."""
        self._writer.close()


@contextmanager
def curves(folder: Path, *, purge_step: int | None = None) -> Iterator[Curves]:
    """Open the curves of a run; `purge_step` drops what an interrupted run wrote from that step on."""
    writer = Curves(folder, purge_step=purge_step)
    try:
        yield writer
    finally:
        writer.close()
