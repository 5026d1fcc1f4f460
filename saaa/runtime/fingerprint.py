"""What decides, beside archive and batch, to the last bit what a model computes on this machine."""

from __future__ import annotations

import hashlib
import platform
import re
from functools import cache
from pathlib import Path

import numpy as np
import torch

import saaa

_CPU_INFO = Path("/proc/cpuinfo")
_THREADS = re.compile(r"\bthreads (\d+)")


def fingerprint(threads: int) -> str:
    """Versions, threads and processor in one line: equal lines, equal arithmetic.

    Args:
        threads: torch's threads for one batch.
    """
    return (
        f"saaa {saaa.__version__}, torch {torch.__version__}, numpy {np.__version__}, "
        f"python {platform.python_version()}, threads {threads}, {_processor()}"
    )


def threads_of(runtime: str) -> int | None:
    """The threads that a fingerprint tells of; None where it tells of none."""
    found = _THREADS.search(runtime)
    return int(found[1]) if found else None


@cache
def _processor() -> str:
    """Architecture, the widest vectors torch uses, and a digest of the processor's name and features."""
    try:
        lines = _CPU_INFO.read_text().splitlines()
    except OSError:
        lines = [f"flags: {platform.processor()}"]
    told = {line.partition(":")[0].strip(): line.partition(":")[2].strip() for line in lines}
    about = [told.get("model name", ""), *sorted(told.get("flags", told.get("Features", "")).split())]
    digest = hashlib.sha256(" ".join(about).encode()).hexdigest()[:12]
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()} {digest}"
