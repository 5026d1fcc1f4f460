"""AttnLRP: as CP-LRP, but relevance also flows through the attention weights to queries and keys."""

from __future__ import annotations

from torch import Tensor

from saaa.attribution.base import Forward, GradientMethod
from saaa.attribution.layers import find_transformer
from saaa.attribution.lrp import forward_by_rules
from saaa.models.classifier import Classifier
from saaa.work import ExplainOptions


class AttnLrp(GradientMethod):
    """Signed map on the patch grid; the softmax is differentiated, and products share relevance evenly."""

    name = "attn_lrp"
    reference = "Achtibat et al. 2024, AttnLRP, arXiv:2402.05602"

    def supports(self, classifier: Classifier) -> bool:
        """Plain vision transformers of timm, however they pool."""
        return find_transformer(classifier.net) is not None

    def cost(self, classifier: Classifier) -> float:
        """One forward with a graph and one backward, as measured; with gamma above 0 four times as much."""
        return 2.6

    def forward(self, classifier: Classifier, inputs: Tensor, options: ExplainOptions) -> Forward:
        """One forward under the rules."""
        return forward_by_rules(classifier, inputs, detach_attention=False, gamma=options.gamma)
