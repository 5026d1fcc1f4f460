"""Figures in the documents: a command puts what it printed between its own marks, and nobody else writes there."""

from __future__ import annotations

import os
import platform
from pathlib import Path

END = "<!-- end -->"


def into_doc(document: Path, command: str, text: str) -> None:
    """Put a command's figures between its marks.

    Args:
        document: Markdown with a line `<!-- COMMAND: begin -->` and, after it, `<!-- end -->`.
        command: as people type it.
        text: Markdown.

    Raises:
        ValueError: the document has no such marks.
    """
    begin = f"<!-- {command}: begin -->"
    before, found, rest = document.read_text().partition(begin)
    _, ended, after = rest.partition(END)
    if not found or not ended:
        raise ValueError(f"{document} has no place for figures: it needs the lines {begin} and {END}")
    document.write_text(f"{before}{begin}\n\n{text.strip()}\n\n{END}{after}")


def machine() -> str:
    """Its processor, cores and load, as the documents name where figures are from."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = models[0] if models else platform.processor() or platform.machine()
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    return f"{name}, {os.cpu_count()} cores, load average {load} (1, 5, 15 minutes)"
