"""Small data sets to explain."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.tiny_models import CLASSES
from tests.training.ega.tiny_world import make

PHOTOS = 22
"""Images of `photos`, two of them unusable."""
TORN, TEXT = "attic/torn.jpg", "den/deep/text.png"


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 pictures of different shapes in class folders, one cut off, one that is text; read only."""
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for index in range(PHOTOS - 2):
        folder = root / CLASSES[index % 3] / ("deep" if index % 2 else "")
        folder.mkdir(parents=True, exist_ok=True)
        coarse = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((70 + index, 60), Image.Resampling.BILINEAR).save(folder / f"{index:02}.jpg")
    whole = next((root / CLASSES[0]).glob("*.jpg")).read_bytes()
    for name, content in ((TORN, whole[: len(whole) // 2]), (TEXT, b"no picture")):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures with graphs in the published formats; read only."""
    return make(tmp_path_factory.mktemp("graphs"), {"trn": 3, "val_sub": 5})
