"""The maps of all methods beside each other, as one picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from benchmarks.quality import Case, explain
from saaa.attribution.metrics import to_pixels
from saaa.models.classifier import Classifier
from saaa.report import colors
from saaa.report.heatmap import Scale
from saaa.report.text import font, shorten
from saaa.work import ExplainOptions

CELL, GAP, LEFT, TOP = 120, 6, 96, 26


def draw_sheet(
    classifier: Classifier, cases: Sequence[Case], methods: Sequence[str], names: Sequence[str]
) -> Image.Image:
    """One row a case: its target's name, the picture, the true mask, and each method's map at its own scale."""
    columns = ("picture", "truth", *methods)
    size = (LEFT + len(columns) * (CELL + GAP), TOP + len(cases) * (CELL + GAP))
    sheet = Image.new("RGB", size, colors.PAPER)
    draw = ImageDraw.Draw(sheet)
    for column, title in enumerate(columns):
        draw.text((LEFT + column * (CELL + GAP), 6), shorten(title, 12, CELL), colors.INK, font(12))
    maps = [explain(classifier, cases, ExplainOptions(method=method)) for method in methods]
    for row, case in enumerate(cases):
        top = TOP + row * (CELL + GAP)
        draw.text((6, top + CELL // 2 - 8), shorten(names[case.target], 13, LEFT - 12), colors.INK, font(13))
        pixels = _picture(classifier, case.inputs)
        truth = np.where(case.regions[0].numpy()[..., None], pixels, 235 + pixels // 13)
        cells = [pixels, truth, *(_colored(of_method[row], len(pixels)) for of_method in maps)]
        for column, cell in enumerate(cells):
            drawn = Image.fromarray(cell.astype(np.uint8)).resize((CELL, CELL), Image.Resampling.BICUBIC)
            sheet.paste(drawn, (LEFT + column * (CELL + GAP), top))
    return sheet


def _picture(classifier: Classifier, inputs: Tensor) -> NDArray[np.uint8]:
    pixels = (inputs[None] * classifier.std + classifier.mean)[0].permute(1, 2, 0)
    return np.asarray(pixels.round().clamp(0, 255).numpy(), np.uint8)


def _colored(values: NDArray[np.float32], size: int) -> NDArray[np.float64]:
    levels = Scale.of(values)
    return colors.apply(levels.table, levels.place(to_pixels(values, size).astype(np.float64)))
