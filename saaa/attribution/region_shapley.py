"""Region Shapley: share the logit's rise fairly among regions of the image, such as a scene graph's objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from saaa.attribution.base import Explained, Job
from saaa.attribution.metrics import completeness_gap
from saaa.attribution.removal import coalition_logits
from saaa.attribution.shapley import all_coalitions, kernel_shap, sampled_coalitions, shapley_values
from saaa.concepts import EXACT_REGIONS
from saaa.models.classifier import Classifier
from saaa.work import ExplainOptions


class RegionShapley:
    """map = sum over the regions of (Shapley value / number of the region's pixels), one value a pixel; signed.

    The value of a coalition of regions is the target's logit when the others are the mean colour; the background, which
    is in no region, always stays. The map's pixels sum to the logit minus that of the background alone; the
    completeness gap compares the two. Above `EXACT_REGIONS` regions, the Shapley values are estimated by KernelSHAP
    from `ExplainOptions.masks` coalitions.
    """

    name = "region_shapley"
    reference = "Lundberg and Lee 2017, A Unified Approach to Interpreting Model Predictions, arXiv:1705.07874"

    def supports(self, classifier: Classifier) -> bool:
        """Any network."""
        return True

    def cost(self, classifier: Classifier) -> float:
        """2^R forwards, here for the most regions that are exact, whatever the number of targets; the image with all
        regions is the prediction.
        """
        return float(2**EXACT_REGIONS)

    def run(self, job: Job) -> Explained:
        """One forward a coalition and image, shared by the image's targets."""
        assert job.regions is not None, "the registry asks for regions first"
        regions = [of_image.to(job.inputs.device) for of_image in job.regions]
        games = [
            play(job.classifier, image, of_image, job.options)
            for image, of_image in zip(job.inputs, regions, strict=True)
        ]
        logits = torch.stack([game.logits[-1] for game in games])
        targets = job.choose(logits)
        maps, gaps = [], []
        for of_image, game, chosen in zip(regions, games, targets, strict=True):
            shares = game.shapley(chosen)
            flat = of_image.flatten(1).double()
            a_pixel = shares / flat.sum(dim=1, keepdim=True).clamp_min(1)
            maps.append(list((a_pixel.T @ flat).view(-1, *of_image.shape[1:]).float()))
            rises = (game.logits[-1] - game.logits[0])[list(chosen)].tolist()
            gaps.append([completeness_gap(s, rise) for s, rise in zip(shares.sum(dim=0).tolist(), rises, strict=True)])
        return Explained(logits=logits, targets=targets, maps=maps, gaps=gaps)


@dataclass(frozen=True)
class Game:
    """What the network says of one image with only some of its regions present.

    All 2^R coalitions up to `EXACT_REGIONS` regions, else a sample; the first has no region, the last all of them.
    """

    coalitions: Tensor
    """bool, (n, R)."""
    logits: Tensor
    """(n, classes)."""

    @property
    def exact(self) -> bool:
        """Whether there are all coalitions."""
        return self.coalitions.shape[1] <= EXACT_REGIONS

    def shapley(self, chosen: Sequence[int]) -> Tensor:
        """Give the regions' Shapley values for some classes: float64, (R, chosen)."""
        values = self.logits[:, list(chosen)]
        return shapley_values(values) if self.exact else kernel_shap(self.coalitions, values)


def play(classifier: Classifier, image: Tensor, regions: Tensor, options: ExplainOptions) -> Game:
    """Ask the network about every coalition of the regions, or above `EXACT_REGIONS` about a sample.

    Args:
        classifier: frozen, in evaluation mode.
        image: (3, S, S), preprocessed.
        regions: bool, (R, S, S); they may overlap.
        options: masks and seed, for the sample.
    """
    if len(regions) <= EXACT_REGIONS:
        coalitions = all_coalitions(len(regions))
    else:
        generator = torch.Generator().manual_seed(options.seed)
        coalitions = sampled_coalitions(len(regions), options.masks, generator)
    return Game(coalitions, coalition_logits(classifier, image, regions, coalitions))
