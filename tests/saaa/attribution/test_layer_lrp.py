"""Layer LRP: against relevance propagated layer by layer, conservation, and where the graph begins."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from saaa.attribution.base import Job, frozen
from saaa.attribution.layer_lrp import LayerLrp
from saaa.models.classifier import Classifier
from saaa.work import ExplainOptions
from tests.saaa.attribution.lrp_oracle import propagate
from tests.saaa.attribution.networks import make, make_inputs

TOKEN = {"depth": 3, "embed_dim": 12, "num_heads": 2}
MEAN = {**TOKEN, "global_pool": "avg", "class_token": False, "patch_size": 8}


def double(options: dict[str, Any]) -> tuple[Classifier, torch.Tensor]:
    classifier = make("test_vit", 32, options)
    inputs = make_inputs(classifier, 2)
    return classifier.double(), inputs.double()


def explain(classifier: Classifier, inputs: torch.Tensor, gamma: float = 0.0) -> torch.Tensor:
    job = Job(
        classifier=classifier,
        inputs=inputs,
        choose=lambda logits: [(2,)] * len(logits),
        options=ExplainOptions(gamma=gamma),
    )
    with frozen(classifier):
        return torch.stack([maps[0] for maps in LayerLrp().run(job).maps])


@pytest.mark.parametrize("gamma", [0.0, 0.25])
@pytest.mark.parametrize("options", [TOKEN, MEAN], ids=["class_token", "mean"])
def test_is_the_mean_of_what_enters_the_upper_blocks(options: dict[str, Any], gamma: float) -> None:
    classifier, inputs = double(options)
    net: Any = classifier.net
    found = explain(classifier, inputs, gamma)
    with torch.no_grad():
        for image, own in zip(inputs, found, strict=True):
            _, entering = propagate(net, image, 2, detach=True, gamma=gamma)
            expected = torch.stack(entering[1:]).mean(dim=0)[net.num_prefix_tokens :].view(own.shape)
            torch.testing.assert_close(own, expected, rtol=1e-7, atol=1e-9 * float(expected.abs().max()))


def test_without_biases_the_map_sums_to_the_logit() -> None:
    classifier, inputs = double(MEAN)
    with torch.no_grad():
        for key, parameter in classifier.named_parameters():
            if "bias" in key:
                parameter.zero_()
        logits = classifier(inputs)[:, 2]
    torch.testing.assert_close(explain(classifier, inputs).sum(dim=(1, 2)), logits, rtol=1e-6, atol=1e-9)


def test_nothing_below_the_upper_half_is_differentiated() -> None:
    classifier, inputs = double(MEAN)
    net: Any = classifier.net
    seen: list[bool] = []
    handles = [block.register_forward_hook(lambda _m, _i, out: seen.append(out.requires_grad)) for block in net.blocks]
    explain(classifier, inputs)
    for handle in handles:
        handle.remove()
    assert seen == [False, True, True]
