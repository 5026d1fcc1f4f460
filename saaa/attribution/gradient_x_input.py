"""Gradient x Input: what each pixel's distance from the neutral colour speaks for, to first order."""

from __future__ import annotations

from torch import Tensor

from saaa.attribution.base import Explained, Job, target_gradients
from saaa.models.classifier import Classifier


class GradientXInput:
    """map = sum over channels of x * d logit / d x; signed, one value a pixel."""

    name = "gradient_x_input"
    reference = "Shrikumar et al. 2016, Not Just a Black Box, arXiv:1605.01713"

    def supports(self, classifier: Classifier) -> bool:
        """Any differentiable network."""
        return True

    def cost(self, classifier: Classifier) -> float:
        """One forward with a graph and one backward to the pixels, as measured."""
        return 2.5

    def run(self, job: Job) -> Explained:
        """One forward, and one backward a target (shared by the images)."""
        pixels = job.inputs.detach().requires_grad_(True)
        logits = job.classifier(pixels)
        targets = job.choose(logits.detach())

        def product(gradient: Tensor) -> Tensor:
            return (gradient * job.inputs).sum(dim=1)

        return Explained(
            logits=logits.detach(), targets=targets, maps=target_gradients(logits, targets, [pixels], product)
        )
