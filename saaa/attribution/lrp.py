"""What CP-LRP and AttnLRP share: relevance of the patches, as gradient x input under local rules."""

from __future__ import annotations

from torch import Tensor

from saaa.attribution.base import Explained, Job, target_gradients
from saaa.attribution.layers import find_transformer
from saaa.attribution.rules import LocalRules


def explain_by_rules(job: Job, *, detach_attention: bool) -> Explained:
    """One forward under the rules, and one backward a target (shared by the images) to the patches' tokens.

    A patch's relevance is the sum over channels of its embedding without the bias times the gradient at its token. That
    equals the sum of gradient x pixel over the patch, since the embedding is linear, so the graph begins above it.
    """
    parts = find_transformer(job.classifier.net)
    assert parts is not None, "the registry asks `supports` first"
    rules = LocalRules(
        parts.embedding, detach_attention=detach_attention, gamma=job.options.gamma, joint=parts.joint_projections
    )
    with rules:
        logits = job.classifier(job.inputs)
    tokens = rules.tokens
    assert tokens is not None, "the network embeds its patches"
    embedded: Tensor = tokens.detach()
    if parts.embedding.bias is not None:
        embedded = embedded - parts.embedding.bias[:, None, None]

    def relevance(gradient: Tensor) -> Tensor:
        return (gradient * embedded).sum(dim=1)

    targets = job.choose(logits.detach())
    return Explained(
        logits=logits.detach(), targets=targets, maps=target_gradients(logits, targets, [tokens], relevance)
    )
