"""Fixtures that every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# The same examples on every run, so that a change is judged by what it changed; `make test-slow` draws new ones.
# No deadlines: how long an example takes depends on what else the machine does.
settings.register_profile("default", deadline=None)
settings.register_profile("fixed", derandomize=True, deadline=None)
settings.load_profile("fixed")

# As the console commands do, before any test loads torch: waiting threads sleep instead of spinning.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the checkout; skips the test where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip("needs the real data sets in ../shared/data, which are not part of the project")
    return SHARED_DATA


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the archives of a tiny untrained classifier and a tiny untrained captioner."""
    from tests.tiny_models import make_archives  # brings torch, which most tests do without

    folder = tmp_path_factory.mktemp("tiny-models")
    make_archives(folder)
    return folder
