"""GAE in row form against the published matrix form, with attention read by hooks from an unfused copy."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from saaa.attribution import attribute
from saaa.work import ExplainOptions
from tests.saaa.attribution.networks import make_inputs, network

GAE = ExplainOptions(method="gae")


def unfused(net: Any) -> tuple[Any, list[Tensor]]:
    """A copy of the network whose attention matrices fill the list at every forward, the pooling's last."""
    twin = copy.deepcopy(net)
    seen: list[Tensor] = []
    layers = [block.attn for block in twin.blocks]

    def keep(_module: Any, inputs: tuple[Tensor], _output: Any) -> None:
        seen.append(inputs[0])

    for layer in layers:
        layer.fused_attn = False
        layer.attn_drop.register_forward_hook(keep)
    return twin, seen


@pytest.mark.parametrize("name", ["vit_token", "vit_mean", "vit_registers", "vit_rms_norm", "eva", "beit"])
def test_equals_the_matrix_form(name: str) -> None:
    classifier = network(name)
    inputs = make_inputs(classifier, 2)
    found = attribute(classifier, inputs, [[1], [3]], GAE)
    net, seen = unfused(classifier.net)
    for image, target in ((0, 1), (1, 3)):
        seen.clear()
        logits = net(inputs[image : image + 1])
        gradients = torch.autograd.grad(logits[0, target], seen)
        tokens = seen[0].shape[-1]
        spread = torch.eye(tokens)
        for weights, gradient in zip(seen, gradients, strict=True):
            spread = spread + (weights * gradient).clamp(min=0).mean(dim=1)[0] @ spread
        prefix = net.num_prefix_tokens
        row = spread[0] if net.global_pool == "token" else spread[prefix:].mean(dim=0)
        expected = row[prefix:].detach().view(*net.patch_embed.grid_size)
        values = torch.from_numpy(found.maps[image][0].values)
        # Under mean pooling every patch has its own share of the pool besides what attention adds.
        assert expected.std() > 1e-6
        torch.testing.assert_close(values, expected, rtol=1e-4, atol=1e-6 * float(expected.max()))


def test_attention_pooling_begins_with_its_own_row() -> None:
    classifier = network("vit_attention_pool")
    inputs = make_inputs(classifier, 1)
    found = torch.from_numpy(attribute(classifier, inputs, [[2]], GAE).maps[0][0].values)
    net, seen = unfused(classifier.net)
    tokens = net.norm(net.blocks(net._pos_embed(net.patch_embed(inputs))))
    pool = net.attn_pool
    heads, width = pool.num_heads, pool.head_dim
    assert net.pool_include_prefix, "else the row would need a place for the prefix"
    query = pool.q_norm(pool.q(pool.latent).view(1, 1, heads, width).transpose(1, 2))
    key, value = pool.kv(tokens).view(1, -1, 2, heads, width).permute(2, 0, 3, 1, 4)
    pooling = (query @ pool.k_norm(key).transpose(-2, -1) * width**-0.5).softmax(dim=-1)
    pooled = pool.proj((pooling @ value).transpose(1, 2).reshape(1, 1, -1))
    pooled = (pooled + pool.mlp(pool.norm(pooled)))[:, 0]
    logits = net.head(net.fc_norm(pooled))
    torch.testing.assert_close(logits, classifier(inputs))
    *gradients, of_pooling = torch.autograd.grad(logits[0, 2], [*seen, pooling])
    row = (pooling * of_pooling).clamp(min=0).mean(dim=1)[0]
    spread = torch.eye(row.shape[-1])
    for weights, gradient in zip(seen, gradients, strict=True):
        spread = spread + (weights * gradient).clamp(min=0).mean(dim=1)[0] @ spread
    expected = (row @ spread)[0, net.num_prefix_tokens :].detach().view(*net.patch_embed.grid_size)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6 * float(expected.max()))
