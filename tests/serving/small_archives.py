"""Archives without a network: enough for whatever only reads, lists and loads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from saaa import archive
from saaa.archive import Archive
from saaa.work import ModelKind

CONFIG = {
    "preprocessing": {"input_size": 16, "resize": "squash", "crop_fraction": 1.0},
    "classes": ["a", "b"],
    "methods": [{"name": "m", "cost_forwards": 3.0, "reference": "r"}],
}


def write(folder: Path, name: str, version: str, *, weight: float = 0.0, file: str = "") -> tuple[str, str]:
    """Write one; gives its file name and digest."""
    file = file or f"{name}-{version}.mar"
    tensors = {"weight": np.array([weight], np.float32)}
    made = Archive(kind=ModelKind.EGDD, name=name, version=version, config=CONFIG, tensors=tensors, card={})
    return file, archive.write(folder / file, made)
