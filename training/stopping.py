"""Stopping a job by signal: note it, let the loop save, end with an error that names the signal. No torch here."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
WORKER_GRACE_S = 30


class Stopped(KeyboardInterrupt):
    """A job ended because it was asked to, with its state saved.

    Args:
        message: how to go on.
        number: the signal that asked for it.
    """

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.signal = number


class Stop:
    """Whether the process was asked to stop; true in a condition once it was."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def __bool__(self) -> bool:
        return self.signal is not None


@contextmanager
def graceful_stop() -> Iterator[Stop]:
    """Turn the first SIGINT or SIGTERM into a flag, so that the loop can save before it ends; a second one
    acts at once.

    Outside the main thread signals cannot be caught, and the flag stays down.
    """
    stop = Stop()
    previous: dict[int, Any] = {}

    def note(number: int, _frame: Any) -> None:
        stop.signal = number
        _restore(previous)

    for number in SIGNALS:
        try:
            previous[number] = signal.signal(number, note)
        except ValueError:  # not the main thread
            break
    try:
        yield stop
    finally:
        _restore(previous)


def leave_signals_to_parent(_worker: int = 0) -> None:
    """Outlive SIGINT, and SIGTERM for half a minute, in a worker process: a terminal and torchrun send them to the
    whole process group, and the parent still needs its workers to finish the step.

    Not for ever: a parent that dies of an error sends its workers SIGTERM, too, and waits for their end.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(WORKER_GRACE_S))


def _restore(previous: dict[int, Any]) -> None:
    while previous:
        number, handler = previous.popitem()
        signal.signal(number, handler)
