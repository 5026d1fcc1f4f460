"""Which images show a class with what it was confounded with, and which with another class's.

A model that follows the confound is right on the first and wrong on the second, so reports give accuracy on each. Real
data may bring slices of their own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from saaa.errors import DataError
from training.scenes.records import SCENES, read_scenes

ALIGNED, COUNTER = "aligned", "counter"
"""An image with its own class's cue, and one with another class's."""
SLICES = "slices.json"


def find_slices(data: Path, split: str) -> dict[str, str]:
    """Find in which slice the images of a data set's split are.

    Args:
        data: with `slices.json` {image's path below `data`: name of a slice}; or a world (`saaa-train scenes`), whose
            `confound_held_out` gave the images of `val` and `test` their cues.
        split: such as "test".

    Returns:
        Slice by the image's path below the split's folder, such as "kitchen/000123.jpg", as its `Listing` names it.
        Images without a slice are left out; nothing where the data tell of none.

    Raises:
        DataError: what is there cannot be read, or is no such file.
    """
    start = f"{split}/"
    found = _given(data / SLICES) if (data / SLICES).exists() else _carried(data)
    return {image.removeprefix(start): name for image, name in found if image.startswith(start)}


def _given(path: Path) -> Iterator[tuple[str, str]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if not isinstance(content, dict) or not all(isinstance(name, str) and name for name in content.values()):
        raise DataError(f'{path} must hold {{"test/<class>/<image>": "<slice>", ...}}.')
    yield from content.items()


def _carried(world: Path) -> Iterator[tuple[str, str]]:
    for scene in read_scenes(world) if (world / SCENES).exists() else ():
        confound = scene.get("confound")
        if isinstance(confound, dict):
            # A world whose training scenes alone carry cues, each class its own, does not say whose they are.
            yield scene["file"], ALIGNED if confound.get("of", scene["class"]) == scene["class"] else COUNTER
