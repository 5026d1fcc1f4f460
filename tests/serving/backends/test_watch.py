"""Whether a TorchServe is alive, asked of a real one."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess

import pytest

from saaa.errors import BackendUnavailable, DeadlineExceeded
from serving.backends.process import TorchServeProcess
from serving.backends.torchserve import TorchServeBackend
from serving.backends.watch import ended_or_silent

PATIENCE_S = 6.0


async def test_what_answers_is_left_alone_and_what_stands_still_is_seen(torchserve: TorchServeProcess) -> None:
    java = torchserve._java
    assert java is not None
    async with torchserve.backend() as backend:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ended_or_silent(java, backend, PATIENCE_S), 2 * PATIENCE_S)
        watching = asyncio.create_task(ended_or_silent(java, backend, PATIENCE_S))
        await backend.ping(PATIENCE_S)
        os.kill(java.pid, signal.SIGSTOP)
        try:
            # Its ports still take connections.
            with pytest.raises((DeadlineExceeded, BackendUnavailable)):
                await backend.ping(0.5)
            assert await asyncio.wait_for(watching, 4 * PATIENCE_S)
        finally:
            os.kill(java.pid, signal.SIGCONT)
        await backend.ping(PATIENCE_S)


async def test_an_end_is_seen_at_once() -> None:
    with subprocess.Popen(["sleep", "0.3"]) as process:
        backend = TorchServeBackend("127.0.0.1:1", "127.0.0.1:1")
        try:
            assert not await asyncio.wait_for(ended_or_silent(process, backend, 1000.0), 60)
        finally:
            await backend.close()
