"""A sheet of pictures with their attributions, to see during training what the network looks at."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from saaa.attribution import attribute
from saaa.client.attributions import Region
from saaa.errors import AttributionFailed
from saaa.models.classifier import Classifier
from saaa.report import colors
from saaa.report.text import font, shorten
from training.attribute.gallery import overlay
from training.egdd.data import Images
from training.egdd.faithfulness import spread_evenly

SIDE = 224
"""Side of a picture, pixels."""
COLUMNS = 2
_GAP, _LINE, _TEXT = 12, 22, 16
_WRONG: colors.Color = (213, 94, 0)


def attributions(classifier: Classifier, images: Images, count: int) -> NDArray[np.uint8]:
    """Draw images beside the default attribution of the predicted class, laid over them.

    Nothing random is drawn from, and the network is left as it was.

    Args:
        classifier: explained in evaluation mode.
        images: as `load_for_evaluation` loads them.
        count: how many to take, spread evenly over the set; at least 1.

    Returns:
        RGB, (3, height, width), as TensorBoard takes it. Under each pair of pictures stand the predicted class with its
        probability and the true one, in orange where they differ.
    """
    chosen = spread_evenly(len(images), count)
    cells = [_cell(classifier, images[i], classifier.config.classes[images.labels[i]]) for i in chosen]
    width, height = cells[0].size
    rows = [cells[start : start + COLUMNS] for start in range(0, len(cells), COLUMNS)]
    sheet = Image.new("RGB", (len(rows[0]) * (width + _GAP) + _GAP, len(rows) * (height + _GAP) + _GAP), colors.PAPER)
    for y, row in enumerate(rows):
        for x, cell in enumerate(row):
            sheet.paste(cell, (_GAP + x * (width + _GAP), _GAP + y * (height + _GAP)))
    return np.ascontiguousarray(np.asarray(sheet).transpose(2, 0, 1))


def _cell(classifier: Classifier, pixels: NDArray[np.uint8], truth: str) -> Image.Image:
    """Draw one image, its map over it, and what was predicted."""
    device = next(classifier.parameters()).device
    cell = Image.new("RGB", (2 * SIDE, SIDE + 2 * _LINE), colors.PAPER)
    draw = ImageDraw.Draw(cell)
    # One image at a time: this runs beside a training, whose memory is spoken for.
    inputs = classifier.preprocess(torch.from_numpy(pixels[None]).to(device))
    try:
        found = attribute(classifier, inputs, [()])
    except AttributionFailed as error:  # no reason to end a training
        cell.paste(Image.fromarray(pixels).resize((SIDE, SIDE)), (0, 0))
        draw.text((0, SIDE + 2), shorten(error.message, _TEXT, 2 * SIDE), _WRONG, font(_TEXT))
        return cell
    made = found.maps[0][0]
    side = pixels.shape[0]
    photo, blend = overlay(pixels, made.values, Region(x=0, y=0, width=side, height=side), (SIDE, SIDE))
    cell.paste(photo, (0, 0))
    cell.paste(blend, (SIDE, 0))
    predicted = classifier.config.classes[made.target]
    color = colors.INK if predicted == truth else _WRONG
    share = f"{found.probabilities[0, made.target]:.1%}"
    for line, words in enumerate((f"{share} {predicted}", f"true: {truth}")):
        draw.text((0, SIDE + 2 + line * _LINE), shorten(words, _TEXT, 2 * SIDE), color, font(_TEXT))
    return cell
