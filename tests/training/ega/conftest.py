"""The world that the trainer's tests read."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.ega.tiny_run import SIZES
from tests.training.ega.tiny_world import make


@pytest.fixture(scope="session")
def tiny_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of `SIZES`, names and words stored the published way; read only."""
    return make(tmp_path_factory.mktemp("world"), SIZES, pickled=True)
