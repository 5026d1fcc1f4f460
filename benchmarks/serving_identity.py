"""Which measurements of `benchmarks.serving` are of the same thing: code, settings, runtime and machine.

A part's rows are kept in a file whose name has a digest of these, so that none is used for anything else.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Iterable
from functools import cache
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parent.parent
SERVED = ("saaa", "serving", "handlers", "benchmarks/serving*.py")
"""What runs when servers are measured; ours is one of them, and blocks of all are compared."""
OTHERS = ("saaa/models", "saaa/archive*.py", "saaa/runtime/lean.py", "benchmarks/serving_*.py")
"""What runs when another server is tuned."""
JUDGED = (
    "saaa/attribution",
    "saaa/models",
    "benchmarks/attribution.py",
    "benchmarks/objects.py",
    "benchmarks/quality.py",
)
"""What runs when maps are judged."""
PACKAGES = ("torch", "numpy", "pillow", "grpcio", "torchserve", "captum", "timm", "openvino")


def identity(code: Iterable[str], **settings: object) -> str:
    """Twelve hexadecimal digits of these files' contents, of settings, packages, Python, processor and cores.

    Args:
        code: files, folders and patterns, from the project's root.
        settings: what else matters, as JSON takes it.
    """
    facts = [*map(digest, code), _machine(), json.dumps(settings, sort_keys=True, default=str)]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:12]


@cache
def digest(pattern: str) -> str:
    """Of the names and contents of the Python files that a pattern, from the project's root, means."""
    found = hashlib.sha256()
    for path in sorted(ROOT.glob(pattern)):
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            found.update(f"{file.relative_to(ROOT)}\n".encode() + hashlib.sha256(file.read_bytes()).digest())
    return found.hexdigest()


@cache
def _machine() -> str:
    processor = platform.processor()
    information = Path("/proc/cpuinfo")
    if information.is_file():
        names = [line for line in information.read_text().splitlines() if line.startswith("model name")]
        processor = names[0] if names else processor
    packages = [f"{name} {version(name)}" for name in PACKAGES]
    return "\n".join([processor, str(os.cpu_count()), platform.python_version(), *packages])
