"""See when a TorchServe has ended, or lives and answers no more."""

from __future__ import annotations

import asyncio
import subprocess

from saaa.errors import SaaaError
from serving.backends.torchserve import TorchServeBackend

LOOK_S = 0.1
_QUESTIONS = 3
"""So many in a row must be left without an answer: one may be lost where the machine stood still."""


async def ended(process: subprocess.Popen[bytes]) -> None:
    """Wait until a process has ended."""
    while process.poll() is None:
        await asyncio.sleep(LOOK_S)


async def ended_or_silent(java: subprocess.Popen[bytes], backend: TorchServeBackend, patience_s: float) -> bool:
    """Wait until Java has ended, or has answered nothing for so long although it is there.

    Args:
        java: the process.
        backend: talks to it.
        patience_s: seconds, above 0.

    Returns:
        Whether it is there.
    """
    watching = {asyncio.create_task(ended(java)), asyncio.create_task(_silent(backend, patience_s / _QUESTIONS))}
    try:
        await asyncio.wait(watching, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in watching:
            task.cancel()
        await asyncio.gather(*watching, return_exceptions=True)
    return java.poll() is None


async def _silent(backend: TorchServeBackend, each_s: float) -> None:
    """Ask every so many seconds, until question after question stays without an answer for as long."""
    clock = asyncio.get_running_loop().time
    unanswered = 0
    while unanswered < _QUESTIONS:
        asked = clock()
        try:
            await backend.ping(each_s)
            unanswered = 0
        except SaaaError:
            unanswered += 1
        await asyncio.sleep(asked + each_s - clock())
