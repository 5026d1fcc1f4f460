"""A caller of a facade in front of a backend of plain arithmetic."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.serving.pixel_backend import Caller, PixelBackend, calling


@pytest.fixture
def backend() -> PixelBackend:
    return PixelBackend()


@pytest.fixture
async def caller(backend: PixelBackend) -> AsyncIterator[Caller]:
    async with calling(backend) as caller:
        yield caller
