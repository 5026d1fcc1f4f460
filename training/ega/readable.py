"""Which images can be decoded: found out before anything is made of them; a damaged one costs its regions only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from saaa.errors import ImageRejected
from saaa.images import decode
from training.files import write_json
from training.progress import progress

DECODERS = 2
"""Threads; decoding leaves the interpreter to others."""


def unreadable(paths: Mapping[str, Path], *, memory: Path | None = None) -> dict[str, str]:
    """Decode every image once.

    Args:
        paths: of the images, by file name.
        memory: a JSON file that keeps the verdicts: an image whose file has the size and time it had is not decoded
            again. A file that cannot be read is made anew.

    Returns:
        Why an image cannot be used, by file name; those that can are not in it.

    Raises:
        DataError: `memory` cannot be written.
    """
    known = _remembered(memory)
    keys = {name: _key(path) for name, path in paths.items()}
    new = [name for name, key in keys.items() if key not in known]
    with ThreadPoolExecutor(DECODERS) as threads:
        reasons = threads.map(lambda name: _fault(paths[name]), new)
        found = dict(zip((keys[name] for name in new), progress(reasons, "images", total=len(new)), strict=True))
    verdicts = {key: found[key] if key in found else known[key] for key in keys.values()}
    if memory is not None and new:
        write_json(memory, known | found)
    return {name: reason for name, key in keys.items() if (reason := verdicts[key]) is not None}


def _fault(path: Path) -> str | None:
    try:
        decode(path.read_bytes())
    except (OSError, ImageRejected) as error:
        return f"{path} cannot be read as an image: {error}"
    return None


def _key(path: Path) -> str:
    try:
        stat = path.stat()
    except OSError:  # gone since it was found: reading it will say so
        return f"{path.name} gone"
    return f"{path.name} {stat.st_size} {stat.st_mtime_ns}"


def _remembered(memory: Path | None) -> dict[str, str | None]:
    try:
        known: Any = {} if memory is None else json.loads(memory.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
