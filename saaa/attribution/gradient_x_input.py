"""Gradient x Input: what each pixel's distance from the neutral colour speaks for, to first order."""

from __future__ import annotations

from torch import Tensor

from saaa.attribution.base import Forward, GradientMethod
from saaa.models.classifier import Classifier
from saaa.work import ExplainOptions


class GradientXInput(GradientMethod):
    """map = sum over channels of x * d logit / d x; signed, one value a pixel."""

    name = "gradient_x_input"
    reference = "Shrikumar et al. 2016, Not Just a Black Box, arXiv:1605.01713"

    def supports(self, classifier: Classifier) -> bool:
        """Any differentiable network."""
        return True

    def cost(self, classifier: Classifier) -> float:
        """One forward with a graph and one backward to the pixels, as measured."""
        return 2.5

    def forward(self, classifier: Classifier, inputs: Tensor, options: ExplainOptions) -> Forward:
        """One forward with a graph to the pixels."""
        pixels = inputs.detach().requires_grad_(True)

        def product(gradient: Tensor) -> Tensor:
            return (gradient * inputs).sum(dim=1)

        return Forward(logits=classifier(pixels), sources=[pixels], combine=product)
