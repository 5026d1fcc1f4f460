"""A progress bar of one line, for terminals only."""

from __future__ import annotations

import sys
import time
from typing import TextIO

_WIDTH = 30


class Bar:
    """Says how far a command is; says nothing when it is not looked at, or there is but one thing to do.

    Args:
        total: how many things there are.
        done: how many of them are done from before.
        what: what is being done, before the bar.
        stream: where to; None is standard error.
    """

    def __init__(self, total: int, done: int = 0, *, what: str = "", stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._shown = total > 1 and self._stream.isatty()
        self._what = what
        self._total, self._done, self._failed, self._before = total, done, 0, done
        self._started = time.monotonic()
        self._draw()

    def step(self, *, failed: bool = False) -> None:
        """One more is done."""
        self._done += 1
        self._failed += failed
        self._draw()

    def clear(self) -> None:
        """Make room for other lines; the next step draws the bar again."""
        if self._shown:
            self._stream.write("\r\x1b[K")
            self._stream.flush()

    def _draw(self) -> None:
        if not self._shown:
            return
        filled = _WIDTH * self._done // self._total
        rate = (self._done - self._before) / max(time.monotonic() - self._started, 1e-9)
        left = f", {(self._total - self._done) / rate:.0f} s left" if rate and self._done < self._total else ""
        failed = f", {self._failed} failed" if self._failed else ""
        bar = "#" * filled + "." * (_WIDTH - filled)
        self._stream.write(f"\r\x1b[K{self._what}[{bar}] {self._done}/{self._total}{left}{failed}")
        self._stream.flush()
