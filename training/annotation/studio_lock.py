"""One process at a time in a folder."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from training.stopping import Stop

_LOOK_S = 0.2


@contextmanager
def held(path: Path, wait: Stop | None = None) -> Iterator[None]:
    """Hold a lock; it falls with the process, however that ends.

    Args:
        path: its file, made when absent; as a file it means nothing.
        wait: wait for another process until stopped; None does not wait.

    Raises:
        BlockingIOError: another process holds it.
        KeyboardInterrupt: stopped.
    """
    with path.open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if wait is None:
                    raise
                if wait:
                    raise KeyboardInterrupt from None
                time.sleep(_LOOK_S)
        yield
