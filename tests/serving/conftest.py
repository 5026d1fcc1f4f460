"""One real TorchServe for all tests that need one: starting it costs more than all of them together."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.backends.process import TorchServeOptions, TorchServeProcess


@pytest.fixture(scope="session")
def torchserve(tiny_models: Path) -> Iterator[TorchServeProcess]:
    """A running TorchServe with the tiny models, one worker each; a test that breaks it must wait until it is well."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    process = TorchServeProcess(
        tiny_models, options=TorchServeOptions(classifier_workers=1, captioner_workers=1, heap_mb=512)
    )
    asyncio.run_coroutine_threadsafe(process.start(), loop).result()
    try:
        yield process
    finally:
        asyncio.run_coroutine_threadsafe(process.stop(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
