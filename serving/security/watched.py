"""Files that others replace while the facade runs: the last good content is what counts."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from saaa.errors import SaaaError, StartFailed

log = logging.getLogger(__name__)

T = TypeVar("T")


class Watched(Generic[T]):
    """What some files say, read again when one of them has changed; safe to share between threads.

    A change that cannot be read is logged and leaves the last good content in force, until the next change.

    Args:
        what: the files in a word, for messages.
        paths: the files.
        read: reads them; raises `OSError` or `ValueError`.
        every_s: seconds between two looks at them, at least 0.

    Raises:
        StartFailed: they cannot be read now.
    """

    def __init__(self, what: str, paths: Sequence[Path], read: Callable[[], T], *, every_s: float) -> None:
        self._what = what
        self._paths = tuple(paths)
        self._read = read
        self._every_s = every_s
        self._lock = threading.Lock()
        self._seen = self._look()
        self._looked = time.monotonic()
        try:
            self._value = read()
        except (OSError, ValueError) as error:
            names = ", ".join(map(str, self._paths))
            raise StartFailed(f"The {what} in {names} cannot be used: {_why(error)}.") from None

    def value(self) -> T:
        """What the files say."""
        with self._lock:
            now = time.monotonic()
            if now - self._looked >= self._every_s:
                self._looked = now
                # Taken before the reading: what changes meanwhile is seen by the next look.
                seen = self._look()
                if seen != self._seen:
                    self._seen = seen
                    self._reload()
            return self._value

    def _reload(self) -> None:
        try:
            self._value = self._read()
        except (OSError, ValueError) as error:
            log.error("the changed %s cannot be used, the last ones stay in force: %s", self._what, _why(error))
        else:
            log.info("the %s were read anew", self._what)

    def _look(self) -> tuple[tuple[int, int, int] | None, ...]:
        return tuple(_stamp(path) for path in self._paths)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def _why(error: Exception) -> str:
    if isinstance(error, SaaaError):
        return error.message
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
