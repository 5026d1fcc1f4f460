"""LeGrad in one backward against the published loop over the layers."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from saaa.attribution import attribute
from saaa.work import ExplainOptions
from tests.saaa.attribution.networks import make_inputs, network
from tests.saaa.attribution.test_gae import unfused


@pytest.mark.parametrize("name", ["vit_token", "vit_mean", "vit_registers", "vit_attention_pool", "vit_rms_norm"])
def test_equals_the_loop_over_layers(name: str) -> None:
    classifier = network(name)
    inputs = make_inputs(classifier, 2)
    found = attribute(classifier, inputs, [[0], [2]], ExplainOptions(method="legrad"))
    net: Any
    net, seen = unfused(classifier.net)
    for image, target in ((0, 0), (1, 2)):
        total = torch.zeros(net.patch_embed.grid_size)
        for layer in range(len(net.blocks)):
            seen.clear()
            tokens = net.norm_pre(net._pos_embed(net.patch_embed(inputs[image : image + 1])))
            for block in net.blocks[: layer + 1]:
                tokens = block(tokens)
            logit = net.forward_head(net.norm(tokens))[0, target]
            (gradient,) = torch.autograd.grad(logit, seen[layer])
            row = gradient.clamp(min=0).mean(dim=(0, 1, 2))
            total += row[net.num_prefix_tokens :].view_as(total) / len(net.blocks)
        assert total.max() > 0
        values = torch.from_numpy(found.maps[image][0].values)
        torch.testing.assert_close(values, total, rtol=1e-4, atol=1e-6 * float(total.max()))
