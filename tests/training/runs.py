"""What tests of all trainers ask of a run: its table of steps, and a signal at a chosen step."""

from __future__ import annotations

import csv
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


def rows(output: Path) -> list[dict[str, str]]:
    """The table of steps."""
    with (output / "steps.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def losses(output: Path) -> list[float]:
    """The loss of every step."""
    return [float(row["loss"]) for row in rows(output)]


@contextmanager
def signalled_at(place: Any, name: str, step: int, number: int, *, rank: str = "") -> Iterator[None]:
    """Send this process a signal at the `step`-th call (1 is the first) of a function that a step calls once; in
    several processes only that of `rank`.

    Args:
        place: the module or class that the function is in.
        name: of the function.
        step, number, rank: when, which signal, where.
    """
    seen = 0
    real = getattr(place, name)

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal seen
        seen += 1
        if seen == step and os.environ.get("RANK", "") == rank:
            os.kill(os.getpid(), number)
        return real(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(place, name, counted)
        yield
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
