"""The picture of `benchmarks.serving`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

TITLES = {
    "throughput": "calls a second",
    "p50": "p50, ms",
    "p99": "p99, ms",
    "cpu_per_request": "server's processor time a call, ms",
}


def draw(figures: Mapping[str, Any], path: Path) -> None:
    """One panel a figure: a group of bars for each concurrency, a bar a system."""
    from matplotlib.figure import Figure

    sheet = Figure(figsize=(13, 8), layout="constrained")
    for panel, (figure, title) in zip(sheet.subplots(2, 2).flat, TITLES.items(), strict=True):
        table = figures[figure]
        levels = sorted({level for row in table.values() for level in row}, key=int)
        width = 0.85 / max(1, len(table))
        for place, (name, row) in enumerate(table.items()):
            at = [index + place * width for index in range(len(levels))]
            panel.bar(at, [row.get(level, 0.0) for level in levels], width, label=name)
        panel.set_title(title)
        panel.set_xticks([index + 0.4 for index in range(len(levels))], [f"concurrency {level}" for level in levels])
    sheet.legend(*panel.get_legend_handles_labels(), loc="outside lower center", ncols=5)
    sheet.savefig(path, dpi=110)
