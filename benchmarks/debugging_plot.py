"""debugging.png: how much of the confound's cost each strategy gives back, and what it costs elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")
from matplotlib import pyplot

OURS_COLOUR, OTHERS, CONTROL = "#0b6e4f", "#5b6b82", "#b9a27a"


def draw(figures: Mapping[str, Any], path: Path) -> None:
    """Draw the recoveries of the main run and of the weaker confound with their 95 % intervals, a dot a seed."""
    runs = [("co-occurrence 0.95", figures)]
    if figures.get("weaker"):
        runs.append(("co-occurrence 0.80", figures["weaker"]))
    sheet, axes = pyplot.subplots(1, len(runs), figsize=(6.4 * len(runs), 4.4), sharex=True, squeeze=False)
    sheet.set_layout_engine("constrained", w_pad=0.12, h_pad=0.12)
    for axis, (title, found) in zip(axes[0], runs, strict=True):
        rows = {**found["strategies"], **found["controls"]}
        for place, (name, row) in enumerate(reversed(rows.items())):
            colour = OURS_COLOUR if name == "ours" else CONTROL if name in found["controls"] else OTHERS
            low, high = row["interval"]
            axis.barh(place, row["recovery"], color=colour, height=0.62)
            axis.plot([low, high], [place, place], color="#1b1f24", linewidth=1.6)
            axis.scatter(row["by_seed"], [place] * len(row["by_seed"]), s=9, color="#1b1f24", alpha=0.35, zorder=3)
        axis.set_yticks(range(len(rows)), list(reversed(rows)))
        axis.axvline(0, color="#1b1f24", linewidth=0.8)
        axis.axvline(1, color="#1b1f24", linewidth=0.8, linestyle=":")
        points = 100 * found["confound_drop"]
        axis.set_title(f"{title}, {found['seeds']} seeds: the confound costs {points:.0f} points", fontsize=10)
        axis.set_xlabel("share of it recovered on counter-confound test scenes")
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
    sheet.supxlabel("simulated annotator; bars: means, lines: 95 % intervals, dots: seeds", fontsize=9)
    sheet.savefig(path, dpi=150)
    pyplot.close(sheet)
