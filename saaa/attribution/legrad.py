"""LeGrad: where each block's attention would have to look for the class to gain."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from saaa.attribution.attention import CaptureAttention
from saaa.attribution.base import Explained, Job, target_gradients
from saaa.attribution.layers import Transformer, find_transformer
from saaa.models.classifier import Classifier


class LeGrad:
    """Map on the patch grid, at least 0: mean over blocks l, heads and queries of relu(d y_l / d A_l).

    y_l = head(norm(z_l)) reads the logit from the output of block l by the network's own pooling. All blocks share one
    backward: the input of each block is cut off, so that the gradient of the sum of the y_l with respect to A_l is
    that of y_l alone. Nothing below an attention matrix is differentiated.
    """

    name = "legrad"
    reference = "Bousselham et al. 2024, LeGrad, arXiv:2404.03214"

    def supports(self, classifier: Classifier) -> bool:
        """Plain vision transformers of timm, however they pool."""
        return find_transformer(classifier.net) is not None

    def cost(self, classifier: Classifier) -> float:
        """One forward with a graph and one backward that leaves out queries and keys, as measured."""
        return 2.1

    def run(self, job: Job) -> Explained:
        """One forward, and one backward a target (shared by the images)."""
        net: Any = job.classifier.net
        parts = find_transformer(net)
        assert parts is not None, "the registry asks `supports` first"
        with CaptureAttention() as attention, _cut_between(parts) as outputs:
            logits = job.classifier(job.inputs)
        weights = attention.weights[: len(parts.blocks)]
        layers = torch.stack(outputs).flatten(0, 1)
        read = net.forward_head(net.norm(layers)).unflatten(0, (len(outputs), len(logits))).sum(dim=0)

        def attended(*gradients: Tensor) -> Tensor:
            total = torch.stack([gradient.relu().mean(dim=(1, 2)) for gradient in gradients]).mean(dim=0)
            return parts.as_maps(total)

        targets = job.choose(logits.detach())
        return Explained(
            logits=logits.detach(), targets=targets, maps=target_gradients(read, targets, weights, attended)
        )


@contextmanager
def _cut_between(parts: Transformer) -> Iterator[list[Tensor]]:
    """Collect the output of each block, and give the next one a copy without a graph."""
    outputs: list[Tensor] = []

    def cut(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        outputs.append(output)
        return output.detach()

    handles = [block.register_forward_hook(cut) for block in parts.blocks]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()
