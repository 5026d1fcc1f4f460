"""What a world on disk says of its scenes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from saaa.errors import DataError

SCENES = "scenes.jsonl"


def read_scenes(world: Path) -> Iterator[dict[str, Any]]:
    """Read the records of a world, in the order of its ids.

    Raises:
        DataError: they cannot be read, or a line is none.
    """
    path = world / SCENES
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                scene = json.loads(line)
                if not isinstance(scene, dict) or not {"id", "split", "class", "file", "objects"} <= scene.keys():
                    raise DataError(f"{path}, line {number}, is not a scene; make the world again.")
                yield scene
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
