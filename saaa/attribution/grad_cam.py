"""Grad-CAM: which cells of a feature map speak for a class. Costs little more than the prediction."""

from __future__ import annotations

from torch import Tensor

from saaa.attribution.base import Forward, GradientMethod
from saaa.attribution.layers import find_layer, forward_from
from saaa.models.classifier import Classifier
from saaa.work import ExplainOptions


class GradCam(GradientMethod):
    """map = relu(sum over channels of activation x (mean over cells of d logit / d activation)).

    CNN: the last stage. Transformer: the output of the last block but one.
    """

    name = "grad_cam"
    reference = "Selvaraju et al. 2017, Grad-CAM, arXiv:1610.02391"

    def supports(self, classifier: Classifier) -> bool:
        """Networks for which timm tells the stages, and plain vision transformers."""
        return find_layer(classifier.net) is not None

    def cost(self, classifier: Classifier) -> float:
        """One forward, and one backward through what lies above the layer, as measured."""
        layer = find_layer(classifier.net)
        return 1.1 if layer is None or layer.convolutional else 1.2

    def forward(self, classifier: Classifier, inputs: Tensor, options: ExplainOptions) -> Forward:
        """One forward with a graph from the layer."""
        layer = find_layer(classifier.net)
        assert layer is not None, "the registry asks `supports` first"
        return forward_from(layer, classifier, inputs, _cam)


def _cam(gradient: Tensor, activation: Tensor) -> Tensor:
    return (activation * gradient.mean(dim=(2, 3), keepdim=True)).sum(dim=1).relu()
