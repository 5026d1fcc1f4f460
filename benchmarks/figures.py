"""The file that holds a benchmark's figures; it grows part by part."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def add_figures(path: Path, measured: Mapping[str, Any], keys: Iterable[str]) -> None:
    """Put a part's figures beside what the file says of the others.

    Args:
        path: the file; it is read again each time, because another process may have measured another part meanwhile.
        measured: the part's figures; they replace older ones.
        keys: what the file always has; null is not measured.
    """
    figures = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**dict.fromkeys(keys), **figures, **measured}, indent=1) + "\n")
