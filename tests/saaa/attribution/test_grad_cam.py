"""Grad-CAM: by hand, against captum on CNNs, against a plain backward on transformers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from captum.attr import LayerGradCam

from saaa.attribution import attribute
from saaa.attribution.layers import find_layer
from saaa.work import ExplainOptions
from tests.saaa.attribution.networks import CELLS, make, make_inputs, network, some_input, tiny

GRAD_CAM = ExplainOptions(method="grad_cam")


def test_by_hand() -> None:
    maps = attribute(tiny(), some_input(), [[0, 1, 3]], GRAD_CAM).maps[0]
    first, second, third = (m.values for m in maps)
    expected = np.zeros((16, 16), np.float32)
    expected[2, 3] = 4.0 * 1.0 / CELLS  # the other place is negative for class 0
    np.testing.assert_allclose(first, expected, rtol=1e-6)
    expected = np.zeros((16, 16), np.float32)
    expected[5, 6] = 2.0 * 3.0 / CELLS
    np.testing.assert_allclose(second, expected, rtol=1e-6)
    assert not third.any()
    assert maps[0].completeness_gap is None


@pytest.mark.parametrize("name", ["efficientnet", "resnet"])
def test_equals_captum(name: str) -> None:
    classifier = network(name)
    inputs = make_inputs(classifier, 3)
    layer = find_layer(classifier.net)
    assert layer is not None
    targets = [2, 0, 3]
    oracle = LayerGradCam(classifier, layer.module).attribute(inputs, target=targets, relu_attributions=True)
    found = attribute(classifier, inputs, [[t] for t in targets], GRAD_CAM)
    for own, other in zip(found.maps, oracle.detach().numpy()[:, 0], strict=True):
        np.testing.assert_allclose(own[0].values, other, rtol=1e-4, atol=1e-6 * max(1e-3, other.max()))


def test_on_transformer_equals_plain_backward() -> None:
    classifier = make("test_vit", 64)
    inputs = make_inputs(classifier, 1)
    net: Any = classifier.net
    tokens = net._pos_embed(net.patch_embed(inputs))
    tokens = net.norm_pre(tokens)
    for block in net.blocks[:-1]:
        tokens = block(tokens)
    tokens = tokens.detach().requires_grad_()
    logits = net.forward_head(net.norm(net.blocks[-1](tokens)))
    logits[0, 1].backward()
    start = net.num_prefix_tokens
    assert start == 1, "the test is to see the class token left out"
    weights = tokens.grad[0, start:].mean(dim=0)
    expected = (tokens.detach()[0, start:] @ weights).relu().view(4, 4).numpy()
    assert expected.max() > 0
    found = attribute(classifier, inputs, [[1]], GRAD_CAM).maps[0][0].values
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * expected.max())
