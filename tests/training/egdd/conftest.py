"""Class folders that a tiny network can learn in seconds: which corner is bright, in what colour."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

CLASSES = ("blue", "green", "red")
SIZE = 40


def draw(folder: Path, count: int, seed: int) -> None:
    """Write `count` pictures a class into folder/<class>/."""
    rng = np.random.default_rng(seed)
    for index, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(60, 120, (SIZE, SIZE, 3), dtype=np.uint8)
            y, x = rng.integers(0, SIZE - 16, 2)
            pixels[y : y + 16, x : x + 16, 2 - index] = 255
            Image.fromarray(pixels).save(folder / name / f"{i:02}.png")


@pytest.fixture(scope="session")
def class_folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train/ with 8 and val/ with 4 pictures of each of 3 classes; read only."""
    root = tmp_path_factory.mktemp("folders")
    draw(root / "train", 8, seed=1)
    draw(root / "val", 4, seed=2)
    return root


@pytest.fixture
def own_folders(tmp_path: Path) -> Path:
    """As `class_folders`, to be changed by the test, and without val/."""
    draw(tmp_path / "data" / "train", 5, seed=3)
    return tmp_path / "data"
