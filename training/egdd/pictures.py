"""Pictures of a report: who is taken for whom, and how far confidence can be trusted."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from training.files import whole

WRITTEN = 20
"""With at most so many classes the counts are written into the cells."""
NAMED = 60
"""With at most so many classes their names are along the sides."""
LONGEST = 24
"""Longest name, characters."""
_DPI = 120
_INK, _BAR, _MODEST, _PROUD = "#1b1f26", "#0072b2", "#56b4e9", "#e69f00"


def write_pictures(report: dict[str, Any], folder: Path, *, prefix: str = "") -> None:
    """Draw confusion.png and calibration.png.

    Args:
        report: as `measure` makes it.
        folder: made when needed.
        prefix: put before both names.

    Raises:
        DataError: they cannot be written.
    """
    for name, figure in (("confusion", confusion(report)), ("calibration", reliability(report))):
        with whole(folder / f"{prefix}{name}.png") as aside, warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing from")  # names in scripts that the font lacks: boxes
            figure.savefig(aside, format="png", dpi=_DPI)


def confusion(report: dict[str, Any]) -> Figure:
    """Draw the confusion matrix: a row a true class, coloured by the share of its images that each class got."""
    counts = np.array(report["confusion"], dtype=np.int64)
    known = len(counts)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = float(np.clip(0.5 * known, 4, 14))
    figure = Figure(figsize=(side + 3, side + 2), layout="constrained")
    axes = figure.add_subplot()
    # The root brings out the small shares, which are the confusions.
    image = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, 0, 1), interpolation="nearest")
    figure.colorbar(image, ax=axes, label="share of the true class", fraction=0.04, aspect=30)
    axes.set(xlabel="predicted", ylabel="true")
    axes.set_title(f"accuracy {report['accuracy']:.1%} of {report['images']} images", loc="left")
    if known <= NAMED:
        names = [_short(name) for name in report["classes"]]
        size = 9 if known <= WRITTEN else 7
        axes.set_xticks(range(known), names, rotation=90, fontsize=size, parse_math=False)
        axes.set_yticks(range(known), names, fontsize=size, parse_math=False)
    if known <= WRITTEN:
        for row, column in zip(*np.nonzero(counts), strict=True):
            colour = "white" if shares[row, column] > 0.3 else _INK
            axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=colour, fontsize=9)
    return figure


def reliability(report: dict[str, Any]) -> Figure:
    """Draw the reliability diagram: accuracy against confidence, and below it how many images each bin has."""
    bins = report["calibration"]
    edges = np.linspace(0, 1, len(bins) + 1)
    filled = [i for i, b in enumerate(bins) if b["count"]]
    centres = (edges[:-1] + edges[1:])[filled] / 2
    accuracy, confidence = (np.array([bins[i][key] for i in filled]) for key in ("accuracy", "confidence"))
    common: dict[str, Any] = {"width": edges[1], "edgecolor": "white"}
    figure = Figure(figsize=(5.5, 6.5), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    both = np.minimum(accuracy, confidence)
    upper.bar(centres, both, color=_BAR, label="accuracy", **common)
    upper.bar(centres, accuracy - both, bottom=both, color=_MODEST, label="accuracy above confidence", **common)
    upper.bar(centres, confidence - both, bottom=both, color=_PROUD, label="confidence above accuracy", **common)
    upper.plot((0, 1), (0, 1), color=_INK, linestyle="--", linewidth=1)
    upper.set(xlim=(0, 1), ylim=(0, 1), ylabel="accuracy")
    upper.set_title(f"calibration error {report['ece']:.1%} on {report['images']} images", loc="left")
    lower.bar(centres, [bins[i]["count"] for i in filled], color=_BAR, **common)
    lower.set(xlabel="confidence", ylabel="images")
    figure.legend(loc="outside lower left", frameon=False)
    return figure


def _short(name: str) -> str:
    """One line of at most `LONGEST` characters."""
    line = " ".join(name.split())
    return line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"
