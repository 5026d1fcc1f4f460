"""Stopping a job by signal: note it, let the loop save, end with an error that names the signal. No torch here."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
WORKER_GRACE_S = 30
SAME_REQUEST_S = 2.0


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
    """Turn SIGINT and SIGTERM into a flag, so that the loop can save before it ends.

    A later SIGINT, a person's second Ctrl-C, acts at once. Repeats within two seconds and every further SIGTERM change
    nothing: a terminal or a scheduler signals the whole process group, and torchrun passes the signal on as well, so
    that a process gets the same request twice.

    Outside the main thread signals cannot be caught, and the flag stays down.
    """
    stop = Stop()
    asked = 0.0
    previous: dict[int, Any] = {}

    def note(number: int, _frame: Any) -> None:
        nonlocal asked
        if not stop:
            stop.signal, asked = number, time.monotonic()
        elif number == signal.SIGINT and time.monotonic() - asked > SAME_REQUEST_S:
            raise KeyboardInterrupt

    for number in SIGNALS:
        try:
            previous[number] = signal.signal(number, note)
        except ValueError:  # not the main thread
            break
    try:
        yield stop
    finally:
        for caught, handler in previous.items():
            signal.signal(caught, handler)


def leave_signals_to_parent(_worker: int = 0) -> None:
    """Outlive SIGINT, and SIGTERM for half a minute, in a worker process: a terminal and torchrun send them to the
    whole process group, and the parent still needs its workers to finish the step.

    Not for ever: a parent that dies of an error sends its workers SIGTERM, too, and waits for their end.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(WORKER_GRACE_S))
