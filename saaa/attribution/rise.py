"""RISE: look at the image through many random masks; a pixel matters if the target is likelier when it is seen."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from saaa.attribution.base import Explained, Job
from saaa.attribution.removal import chunks, masked_logits
from saaa.models.classifier import Classifier
from saaa.work import ExplainOptions

CELLS = 7
"""Rows and columns of a mask before it is enlarged, as published."""
SEEN = 0.5
"""Probability that a cell is seen, as published."""


class Rise:
    """map = sum over masks of (p - mean p) * mask / (number of masks * probability of being seen), one value a pixel.

    p is the target's probability under the mask. The published map is the same without "- mean p": it estimates the
    probability given that the pixel is seen; here its expectation over all masks is subtracted, so that the map is
    signed, and flat where nothing matters. Every image sees the same masks, made from `ExplainOptions.seed` alone.
    """

    name = "rise"
    reference = "Petsiuk et al. 2018, RISE, arXiv:1806.07421"

    def supports(self, classifier: Classifier) -> bool:
        """Any network."""
        return True

    def cost(self, classifier: Classifier) -> float:
        """One prediction, and one forward a mask, whatever the number of targets."""
        return 1 + ExplainOptions.masks

    def run(self, job: Job) -> Explained:
        """One forward a mask and image, shared by the image's targets."""
        size = job.inputs.shape[-1]
        generator = torch.Generator().manual_seed(job.options.seed)
        with torch.no_grad():
            logits = job.classifier(job.inputs)
        targets = job.choose(logits)
        # Sums over the masks, so that they never exist all at once. Probabilities are counted from that of the whole
        # image: the mean is subtracted at the end, and this keeps the difference from drowning in rounding.
        chosen = [list(of_image) for of_image in targets]
        whole = [row[wanted] for row, wanted in zip(logits.double().softmax(dim=1), chosen, strict=True)]
        sums = [logits.new_zeros((len(wanted), size * size), dtype=torch.float64) for wanted in chosen]
        totals = [torch.zeros_like(start) for start in whole]
        coverage = logits.new_zeros(size * size, dtype=torch.float64)
        for piece in chunks(job.options.masks):
            masks = random_masks(piece.stop - piece.start, size, generator).to(job.inputs.device)
            flat = masks.flatten(1).double()
            coverage += flat.sum(dim=0)
            for image, wanted in enumerate(chosen):
                found = masked_logits(job.classifier, job.inputs[image], [masks])
                excess = found.double().softmax(dim=1)[:, wanted] - whole[image]
                sums[image] += excess.T @ flat
                totals[image] += excess.sum(dim=0)
        count = job.options.masks
        maps = [
            list(((total_weighted - total[:, None] / count * coverage) / (count * SEEN)).view(-1, size, size).float())
            for total_weighted, total in zip(sums, totals, strict=True)
        ]
        return Explained(logits=logits, targets=targets, maps=maps)


def random_masks(count: int, size: int, generator: torch.Generator) -> Tensor:
    """Draw masks: random cells, enlarged bilinearly to a little more than the input and shifted by less than a cell.

    Args:
        count: how many.
        size: width and height of the input.
        generator: on the CPU; drawing 3 and then 2 gives what drawing 5 at once gives.

    Returns:
        float32, (count, size, size), in [0, 1].
    """
    cell = math.ceil(size / CELLS)
    # All that one mask needs is drawn together, so that the pieces in which masks are drawn do not matter.
    drawn = torch.rand((count, CELLS * CELLS + 2), generator=generator)
    grids = (drawn[:, 2:] < SEEN).float().view(-1, 1, CELLS, CELLS)
    large = interpolate(grids, size=((CELLS + 1) * cell,) * 2, mode="bilinear", align_corners=False)[:, 0]
    shifts = (drawn[:, :2] * cell).long().tolist()
    return torch.stack([mask[y : y + size, x : x + size] for mask, (y, x) in zip(large, shifts, strict=True)])
