"""Runs to make tasks of."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.ega.tiny_world import make
from training.attribute import AttributeConfig, run


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four pictures with graphs and captions in the published formats; read only."""
    return make(tmp_path_factory.mktemp("world"), {"trn": 2, "val_sub": 4})


@pytest.fixture(scope="session")
def captioned(world: Path, tiny_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A captioner's words on them."""
    out = tmp_path_factory.mktemp("captioned") / "run"
    run(AttributeConfig(data=world, out=out, archive=tiny_models / "ega.mar", split="val_sub", threads=1, gallery=0))
    return out


@pytest.fixture(scope="session")
def classified(world: Path, tiny_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier's two best classes on them."""
    out = tmp_path_factory.mktemp("classified") / "run"
    archive = tiny_models / "egdd.mar"
    run(AttributeConfig(data=world, out=out, archive=archive, split="val_sub", targets="top2", threads=1, gallery=0))
    return out
