"""Occlusion: remove one cell after the other, and see how much the logit falls."""

from __future__ import annotations

import torch

from saaa.attribution.base import Explained, Job
from saaa.attribution.removal import cells_of, chunks, grid_of, masked_logits
from saaa.models.classifier import Classifier


class Occlusion:
    """map = logit - logit with this cell as the mean colour; signed.

    A cell is a patch of a vision transformer, 16 x 16 pixels elsewhere.

    Own batching rather than captum's Occlusion: that computes all the forwards again for every target, and keeps a map
    of the input's size for every cell.
    """

    name = "occlusion"
    reference = "Zeiler and Fergus 2014, Visualizing and Understanding Convolutional Networks, arXiv:1311.2901"

    def supports(self, classifier: Classifier) -> bool:
        """Any network."""
        return True

    def cost(self, classifier: Classifier) -> float:
        """One prediction, and one forward a cell, whatever the number of targets."""
        rows, columns = grid_of(classifier)
        return 1 + rows * columns

    def run(self, job: Job) -> Explained:
        """One forward a cell and image, shared by the image's targets."""
        grid = grid_of(job.classifier)
        count = grid[0] * grid[1]
        cells = cells_of(grid, job.inputs.shape[-1])
        with torch.no_grad():
            logits = job.classifier(job.inputs)
        targets = job.choose(logits)
        maps = []
        for image, chosen in enumerate(targets):
            masks = (cells != torch.arange(count)[piece, None, None] for piece in chunks(count))
            without = masked_logits(job.classifier, job.inputs[image], masks)
            falls = logits[image, list(chosen)] - without[:, list(chosen)]
            maps.append(list(falls.T.reshape(-1, *grid)))
        return Explained(logits=logits, targets=targets, maps=maps)
