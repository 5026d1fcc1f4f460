"""What decides, beside archive and batch, to the last bit what a model computes on this machine."""

from __future__ import annotations

import hashlib
import platform
import re
from functools import cache
from importlib.metadata import version
from pathlib import Path

import numpy as np

import saaa

_CPU_INFO = Path("/proc/cpuinfo")
_THREADS = re.compile(r"\bthreads (\d+)")


def fingerprint(engine: str, threads: int) -> str:
    """Versions, threads and processor in one line: equal lines, equal arithmetic.

    Args:
        engine: what computes, with version and precision, and what was refused.
        threads: for one batch.
    """
    return (
        f"saaa {saaa.__version__}, {engine}, numpy {np.__version__}, "
        f"python {platform.python_version()}, threads {threads}, {processor()}"
    )


def torch_name() -> str:
    """torch with its version, without importing it."""
    return f"torch {version('torch')}"


def threads_of(runtime: str) -> int | None:
    """The threads that a fingerprint tells of; None where it tells of none."""
    found = _THREADS.search(runtime)
    return int(found[1]) if found else None


@cache
def processor() -> str:
    """Architecture, and a digest of the processor's name and features."""
    try:
        lines = _CPU_INFO.read_text().splitlines()
    except OSError:
        lines = [f"flags: {platform.processor()}"]
    told = {line.partition(":")[0].strip(): line.partition(":")[2].strip() for line in lines}
    about = [told.get("model name", ""), *sorted(told.get("flags", told.get("Features", "")).split())]
    return f"{platform.machine()} {hashlib.sha256(' '.join(about).encode()).hexdigest()[:12]}"
