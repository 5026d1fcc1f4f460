"""CP-LRP read at the upper half of the blocks and averaged: steadier than the patches' own relevance, and cheaper."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from saaa.attribution.base import Forward, GradientMethod
from saaa.attribution.layers import find_transformer
from saaa.attribution.rules import LocalRules
from saaa.models.classifier import Classifier
from saaa.work import ExplainOptions


class LayerLrp(GradientMethod):
    """Signed map on the patch grid: mean over the upper half of the blocks of the relevance that enters a token there.

    Relevance of a token is its state times the gradient of the logit, summed over channels, under the rules of CP-LRP.
    Those rules conserve relevance from layer to layer, so each layer's map tells the same total with other errors:
    further down, the products of more layers make noise; further up, tokens have mixed. Nothing below the first layer
    that is read is differentiated.
    """

    name = "layer_lrp"
    reference = "Ali et al. 2022, XAI for Transformers, arXiv:2202.07304; read at several layers"

    def supports(self, classifier: Classifier) -> bool:
        """Plain vision transformers of timm, however they pool."""
        return find_transformer(classifier.net) is not None

    def cost(self, classifier: Classifier) -> float:
        """One forward with a graph in its upper half, and one backward through it, as measured."""
        return 1.6

    def forward(self, classifier: Classifier, inputs: Tensor, options: ExplainOptions) -> Forward:
        """One forward, with a graph from the first layer that is read."""
        parts = find_transformer(classifier.net)
        assert parts is not None, "the registry asks `supports` first"
        upper = parts.blocks[len(parts.blocks) // 2 :]
        rules = LocalRules(None, detach_attention=True, gamma=options.gamma, joint=parts.joint_projections)
        with rules, _inputs_of(upper) as states:
            logits = classifier(inputs)
        constants = [state.detach() for state in states]

        def relevance(*gradients: Tensor) -> Tensor:
            layers = [(gradient * state).sum(dim=2) for gradient, state in zip(gradients, constants, strict=True)]
            return parts.as_maps(torch.stack(layers).mean(dim=0))

        return Forward(logits=logits, sources=states, combine=relevance)


@contextmanager
def _inputs_of(blocks: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """Collect what enters each block, (images, tokens, channels); the graph begins at the first of them."""
    states: list[Tensor] = []

    def keep(_module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        tokens, *rest = inputs
        states.append(tokens if states else tokens.detach().requires_grad_(True))
        return states[-1], *rest

    handles = [block.register_forward_pre_hook(keep) for block in blocks]
    try:
        yield states
    finally:
        for handle in handles:
            handle.remove()
