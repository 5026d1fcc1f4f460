"""CP-LRP: relevance that flows through values and MLPs only; attention weights are taken as given."""

from __future__ import annotations

from torch import Tensor

from saaa.attribution.base import Forward, GradientMethod
from saaa.attribution.layers import find_transformer
from saaa.attribution.lrp import forward_by_rules
from saaa.models.classifier import Classifier
from saaa.work import ExplainOptions


class CpLrp(GradientMethod):
    """Signed map on the patch grid; without biases in the network it sums to the logit.

    Attention weights and the deviations of the normalisations are constants, so queries and keys need no gradient.
    """

    name = "cp_lrp"
    reference = "Ali et al. 2022, XAI for Transformers, arXiv:2202.07304"

    def supports(self, classifier: Classifier) -> bool:
        """Plain vision transformers of timm, however they pool."""
        return find_transformer(classifier.net) is not None

    def cost(self, classifier: Classifier) -> float:
        """One forward with a graph and one backward, as measured; with gamma above 0 four times as much."""
        return 2.2

    def forward(self, classifier: Classifier, inputs: Tensor, options: ExplainOptions) -> Forward:
        """One forward under the rules."""
        return forward_by_rules(classifier, inputs, detach_attention=True, gamma=options.gamma)
