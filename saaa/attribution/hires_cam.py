"""HiResCAM: Grad-CAM without averaging the gradients over the cells, so that a finer feature map can be used.

Grad-CAM's average is harmless at the last stage of a CNN, whose cells are 32 pixels wide: a grid of 4 x 4 for an input
of 128 pixels. At the stage before (16 pixels, 8 x 8) the average throws away where the gradient comes from.
"""

from __future__ import annotations

from torch import Tensor, nn

from saaa.attribution.base import Forward, GradientMethod
from saaa.attribution.layers import Layer, find_layer, forward_from
from saaa.models.classifier import Classifier
from saaa.work import ExplainOptions

CELL = 16
"""Width of a cell in pixels of the input; the same as a patch of the usual vision transformers."""


SCALE_FREE = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


class HiResCam(GradientMethod):
    """map = relu(sum over channels of activation x d logit / d activation), at cells of 16 pixels; CNNs."""

    name = "hires_cam"
    reference = "Draelos and Carin 2020, Use HiResCAM instead of Grad-CAM, arXiv:2011.08891"

    def supports(self, classifier: Classifier) -> bool:
        """Convolutional networks with batch norm for which timm tells the stages.

        A layer norm above the cut does not feel how large a cell's features are, so there the sum over the channels is
        zero: such networks are left to Grad-CAM.
        """
        return self._layer(classifier) is not None

    def cost(self, classifier: Classifier) -> float:
        """One forward, and one backward through what lies above the layer, as measured on EfficientNet-Lite0."""
        return 1.4

    def forward(self, classifier: Classifier, inputs: Tensor, options: ExplainOptions) -> Forward:
        """One forward with a graph from the layer."""
        layer = self._layer(classifier)
        assert layer is not None, "the registry asks `supports` first"
        return forward_from(layer, classifier, inputs, _cam)

    @staticmethod
    def _layer(classifier: Classifier) -> Layer | None:
        layer = find_layer(classifier.net, reduction=CELL)
        if layer is None or not layer.convolutional:
            return None
        return None if any(isinstance(part, SCALE_FREE) for part in classifier.net.modules()) else layer


def _cam(gradient: Tensor, activation: Tensor) -> Tensor:
    return (activation * gradient).sum(dim=1).relu()
