"""CP-LRP and AttnLRP: against relevance propagated layer by layer, conservation, and where the graph begins."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from saaa.attribution import attribute
from saaa.attribution.attn_lrp import AttnLrp
from saaa.attribution.base import Job, frozen
from saaa.attribution.cp_lrp import CpLrp
from saaa.attribution.rules import LocalRules
from saaa.models.classifier import Classifier
from saaa.work import ExplainOptions
from tests.saaa.attribution.lrp_oracle import propagate
from tests.saaa.attribution.networks import MODELS, TRANSFORMERS, make, make_inputs, network

TOKEN = {"depth": 2, "embed_dim": 12, "num_heads": 2}
MEAN = {**TOKEN, "global_pool": "avg", "class_token": False, "patch_size": 8}


def explain(classifier: Classifier, inputs: Tensor, target: int, *, detach: bool, gamma: float = 0.0) -> Tensor:
    """Maps (B, rows, columns) in the classifier's own precision."""
    job = Job(
        classifier=classifier,
        inputs=inputs,
        choose=lambda logits: [(target,)] * len(logits),
        options=ExplainOptions(gamma=gamma),
    )
    with frozen(classifier):
        return torch.stack([maps[0] for maps in (CpLrp() if detach else AttnLrp()).run(job).maps])


def double(architecture: str, size: int, options: dict[str, Any]) -> tuple[Classifier, Tensor]:
    classifier = make(architecture, size, options)
    inputs = make_inputs(classifier, 2)
    return classifier.double(), inputs.double()


@pytest.mark.parametrize("options", [TOKEN, MEAN], ids=["class_token", "mean"])
@pytest.mark.parametrize("gamma", [0.0, 0.25])
@pytest.mark.parametrize("detach", [True, False], ids=["cp_lrp", "attn_lrp"])
def test_equals_relevance_propagated_layer_by_layer(options: dict[str, Any], gamma: float, detach: bool) -> None:
    classifier, inputs = double("test_vit", 32, options)
    found = explain(classifier, inputs, 2, detach=detach, gamma=gamma)
    with torch.no_grad():
        for image, own in zip(inputs, found, strict=True):
            expected, _ = propagate(classifier.net, image, 2, detach=detach, gamma=gamma)
            torch.testing.assert_close(own, expected, rtol=1e-7, atol=1e-9 * float(expected.abs().max()))


def without_constants(name: str) -> tuple[Classifier, Tensor]:
    """No bias, no position, no class or register token: only the patches can make a logit."""
    classifier, inputs = double(*MODELS[name])
    with torch.no_grad():
        for key, parameter in classifier.named_parameters():
            if "bias" in key or key.endswith(("pos_embed", "cls_token", "reg_token")):
                parameter.zero_()
    return classifier, inputs


@pytest.mark.parametrize("gamma", [0.0, 0.5])
@pytest.mark.parametrize("name", [name for name in TRANSFORMERS if name != "vit_attention_pool"])
def test_cp_lrp_conserves_the_logit(name: str, gamma: float) -> None:
    classifier, inputs = without_constants(name)
    with torch.no_grad():
        logits = classifier(inputs)[:, 1]
    total = explain(classifier, inputs, 1, detach=True, gamma=gamma).sum(dim=(1, 2))
    torch.testing.assert_close(total, logits, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("detach", [True, False])
def test_patch_relevance_is_gradient_x_pixel_summed_over_the_patch(detach: bool) -> None:
    classifier, inputs = double("test_vit", 48, MEAN)
    found = explain(classifier, inputs, 0, detach=detach)
    pixels = inputs.clone().requires_grad_(True)
    with LocalRules(None, detach_attention=detach):
        logits = classifier(pixels)
    (gradient,) = torch.autograd.grad(logits[:, 0].sum(), pixels)
    summed = (gradient * inputs).sum(dim=1).unfold(1, 8, 8).unfold(2, 8, 8).sum(dim=(3, 4))
    torch.testing.assert_close(found, summed, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("detach", [True, False])
@pytest.mark.parametrize("name", TRANSFORMERS)
def test_unfused_attention_gives_the_same(name: str, detach: bool) -> None:
    classifier, inputs = double(*MODELS[name])
    fused = explain(classifier, inputs, 1, detach=detach)
    changed = 0
    for part in classifier.modules():
        if getattr(part, "fused_attn", False):
            part.fused_attn = False
            changed += 1
    assert changed >= 2
    plain = explain(classifier, inputs, 1, detach=detach)
    torch.testing.assert_close(plain, fused, rtol=1e-7, atol=1e-9 * float(fused.abs().max()))


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_the_gamma_rule_changes_no_logit(name: str) -> None:
    classifier = network(name)
    inputs = make_inputs(classifier, 2)
    options = ExplainOptions(method="attn_lrp", gamma=0.5)
    with torch.no_grad():
        expected = classifier(inputs).softmax(dim=1).numpy()
    np.testing.assert_allclose(attribute(classifier, inputs, [[0], [1]], options).probabilities, expected, rtol=1e-4)
