"""Which images can be decoded."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.ega.readable import unreadable


@pytest.fixture
def paths(tmp_path: Path) -> dict[str, Path]:
    """One sound image, one cut in the middle, one that is none, one that is gone."""
    pixels = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    for name in ("sound.jpg", "cut.jpg"):
        Image.fromarray(pixels).save(tmp_path / name)
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(cut.read_bytes()[:-500])
    (tmp_path / "text.png").write_text("no picture")
    return {name: tmp_path / name for name in ("sound.jpg", "cut.jpg", "text.png", "gone.jpg")}


def test_each_unusable_image_is_named_with_its_reason(paths: dict[str, Path]) -> None:
    found = unreadable(paths)
    assert list(found) == ["cut.jpg", "text.png", "gone.jpg"]
    for name, reason in found.items():
        assert reason.startswith(f"{paths[name]} cannot be read as an image: ")


def test_verdicts_are_kept_until_the_file_changes(paths: dict[str, Path], tmp_path: Path) -> None:
    memory = tmp_path / "kept" / "images.json"
    first = unreadable(paths, memory=memory)
    kept = json.loads(memory.read_text())
    memory.write_text(json.dumps({key: "planted" if key.startswith("sound.jpg") else kept[key] for key in kept}))
    again = unreadable(paths, memory=memory)
    assert again == {"sound.jpg": "planted", **first}, "the sound image was decoded again"
    os.utime(paths["sound.jpg"], (1, 1))
    assert unreadable(paths, memory=memory) == first
    paths["text.png"].write_bytes(paths["sound.jpg"].read_bytes())
    assert "text.png" not in unreadable(paths, memory=memory)


@pytest.mark.parametrize("content", ["cut", "[]"])
def test_a_broken_memory_is_made_anew(paths: dict[str, Path], tmp_path: Path, content: str) -> None:
    memory = tmp_path / "images.json"
    memory.write_text(content)
    assert unreadable(paths, memory=memory) == unreadable(paths)
    assert len(json.loads(memory.read_text())) == 4
