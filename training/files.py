"""Result files: written whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from saaa.errors import DataError


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Give a path to write to, which becomes `path` at the end; the folder is made when needed.

    A full disk or any other error leaves what was at `path` as it was, and nothing beside it.

    Raises:
        DataError: the file cannot be written.
    """
    aside = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield aside
        aside.replace(path)
    except OSError as error:
        # Libraries put whole pages into an error's text; its number says what is wrong.
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise DataError(f"Cannot write {path}: {reason}") from error
    finally:
        if path.parent.is_dir():
            aside.unlink(missing_ok=True)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON.

    Raises:
        DataError: the file cannot be written.
    """
    with whole(path) as aside:
        aside.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
