"""What CP-LRP and AttnLRP share: relevance of the patches, as gradient x input under local rules."""

from __future__ import annotations

from torch import Tensor

from saaa.attribution.base import Forward
from saaa.attribution.layers import find_transformer
from saaa.attribution.rules import LocalRules
from saaa.models.classifier import Classifier


def forward_by_rules(classifier: Classifier, inputs: Tensor, *, detach_attention: bool, gamma: float) -> Forward:
    """One forward under the rules, with a graph to the patches' tokens.

    A patch's relevance is the sum over channels of its embedding without the bias times the gradient at its token. That
    equals the sum of gradient x pixel over the patch, since the embedding is linear, so the graph begins above it.
    """
    parts = find_transformer(classifier.net)
    assert parts is not None, "the registry asks `supports` first"
    rules = LocalRules(parts.embedding, detach_attention=detach_attention, gamma=gamma, joint=parts.joint_projections)
    with rules:
        logits = classifier(inputs)
    tokens = rules.tokens
    assert tokens is not None, "the network embeds its patches"
    embedded: Tensor = tokens.detach()
    if parts.embedding.bias is not None:
        embedded = embedded - parts.embedding.bias[:, None, None]

    def relevance(gradient: Tensor) -> Tensor:
        return (gradient * embedded).sum(dim=1)

    return Forward(logits=logits, sources=[tokens], combine=relevance)
