"""Result files and folders: written whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
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


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Give a new folder to write to, which takes the place of `folder` at the end; parents are made when needed.

    On any error what was there stays, and nothing beside it.

    Raises:
        DataError: the folder cannot be written.
    """
    target = folder.resolve()
    aside = target.with_name(f".{target.name}.partial")
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        yield aside
        shutil.rmtree(target, ignore_errors=True)
        aside.rename(target)
    except OSError as error:
        raise DataError(f"{folder} cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def read_json(path: Path, *, advice: str = "") -> dict[str, Any]:
    """Read a JSON object.

    Args:
        path: the file.
        advice: the end of the sentence that tells of a missing file.

    Raises:
        DataError: there is no such file, or something else is in it.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"There is no file {path}{f'; {advice}' if advice else ''}.") from error
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} must hold a JSON object.")
    return content


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON.

    Raises:
        DataError: the file cannot be written.
    """
    with whole(path) as aside:
        aside.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
