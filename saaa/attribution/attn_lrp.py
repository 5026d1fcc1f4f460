"""AttnLRP: as CP-LRP, but relevance also flows through the attention weights to queries and keys."""

from __future__ import annotations

from saaa.attribution.base import Explained, Job
from saaa.attribution.layers import find_transformer
from saaa.attribution.lrp import explain_by_rules
from saaa.models.classifier import Classifier


class AttnLrp:
    """Signed map on the patch grid; the softmax is differentiated, and products share relevance evenly."""

    name = "attn_lrp"
    reference = "Achtibat et al. 2024, AttnLRP, arXiv:2402.05602"

    def supports(self, classifier: Classifier) -> bool:
        """Plain vision transformers of timm, however they pool."""
        return find_transformer(classifier.net) is not None

    def cost(self, classifier: Classifier) -> float:
        """One forward with a graph and one backward, as measured; with gamma above 0 four times as much."""
        return 2.6

    def run(self, job: Job) -> Explained:
        """One forward, and one backward a target (shared by the images)."""
        return explain_by_rules(job, detach_attention=False)
