"""The registry: what is offered and by default, refusals before computing, undefined maps, deletion drops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from saaa.attribution import attribute, methods_for
from saaa.errors import AttributionFailed, OptionInvalid
from saaa.models.classifier import Classifier, ClassifierConfig
from saaa.work import ExplainOptions, TargetKind
from tests.saaa.attribution.networks import CLASSES, MODELS, OFFERED, make_inputs, network, offered, some_input, tiny


@pytest.mark.parametrize("name", MODELS)
def test_what_is_offered(name: str) -> None:
    classifier = network(name)
    assert offered(classifier) == OFFERED[name]
    for method in methods_for(classifier):
        assert method.cost_forwards >= 1
        assert "arXiv" in method.reference
        assert method.targets == (TargetKind.CLASS,)
    assert attribute(classifier, make_inputs(classifier, 1), [[]]).maps[0][0].method == OFFERED[name][0]


def test_what_needs_a_known_layer_is_not_offered_where_it_is_unknown() -> None:
    config = ClassifierConfig(architecture="mixer_s32_224", classes=CLASSES, input_size=224)
    with torch.device("meta"):
        mixer = Classifier(config)
    assert offered(mixer) == ("integrated_gradients", "gradient_x_input", "occlusion", "rise", "region_shapley")
    with pytest.raises(OptionInvalid, match="does not support"):
        attribute(mixer, torch.zeros((1, 3, 224, 224)), [[0]], ExplainOptions(method="grad_cam"))


def test_gae_needs_a_pooling_that_says_what_it_takes() -> None:
    options = {"global_pool": "max", "class_token": False, "depth": 1}
    config = ClassifierConfig(architecture="test_vit", classes=CLASSES, input_size=32, options=options)
    methods = offered(Classifier(config))
    assert "gae" not in methods
    assert "cp_lrp" in methods


@pytest.mark.parametrize(
    ("targets", "options", "field"),
    [
        ([[0]], {"method": "tea_leaves"}, "attribution.method"),
        ([[0]], {"method": "cp_lrp"}, "attribution.method"),
        ([[4]], {}, "attribution.classes"),
        ([[-1]], {}, "attribution.classes"),
        ([["attic"]], {}, "attribution.classes"),
        ([[0]], {"steps": 0}, "attribution.steps"),
        ([[0]], {"gamma": 2.0}, "attribution.gamma"),
        ([[0], [1]], {}, "targets"),
        ([[0]], {"method": "region_shapley"}, "graph"),
    ],
)
def test_errors_before_any_computing(targets: list[list[int | str]], options: dict[str, Any], field: str) -> None:
    classifier = tiny()
    calls: list[int] = []
    classifier.net.register_forward_pre_hook(lambda *_: calls.append(1))
    with pytest.raises(OptionInvalid) as caught:
        attribute(classifier, some_input(), targets, ExplainOptions(**options))
    assert caught.value.field == field
    assert not calls


def test_a_class_has_a_name_too() -> None:
    classifier = network("vit_mean")
    inputs = make_inputs(classifier, 1)
    by_index, by_name = (attribute(classifier, inputs, [[target]]).maps[0][0] for target in (2, CLASSES[2]))
    assert by_name.target == 2
    np.testing.assert_array_equal(by_name.values, by_index.values)


def test_one_set_of_regions_an_image() -> None:
    with pytest.raises(OptionInvalid) as caught:
        attribute(tiny(), some_input(), [[0]], ExplainOptions(method="region_shapley"), regions=[])
    assert caught.value.field == "graph"


def spoil(x: Tensor) -> Tensor:
    """The identity for small values; its gradient is infinite where the value is 0."""
    return x + x.abs().sqrt() - x.abs().sqrt().detach()


def test_undefined_map_names_image_class_and_method() -> None:
    classifier = tiny(spoil)
    sound = torch.ones((1, 3, 16, 16))
    inputs = torch.cat([sound, sound, some_input()])  # only the last has zeros
    options = ExplainOptions(method="gradient_x_input")
    attribute(classifier, inputs[:2], [[0], [1]], options)
    with pytest.raises(AttributionFailed, match="gradient_x_input for class 1 of image 2"):
        attribute(classifier, inputs, [[0], [1], [1]], options)


def test_undefined_logits_name_the_image() -> None:
    inputs = torch.cat([some_input(), some_input()])
    inputs[1, 0, 0, 0] = torch.nan
    with pytest.raises(AttributionFailed, match="image 1 of the batch"):
        attribute(tiny(), inputs, [[], []])


def test_deletion_drop_by_hand() -> None:
    """A tenth of 16 x 16 is 26 pixels: more than are not zero, so that nothing is left of what spoke for the class."""
    inputs = torch.cat([some_input() * 100, some_input()])
    options = ExplainOptions(method="gradient_x_input", deletion=True)
    found = attribute(tiny(), inputs, [[2], [0, 2]], options)
    for image, maps in enumerate(found.maps):
        for made in maps:
            before = found.probabilities[image, made.target]
            kept = inputs[image : image + 1].clone()
            top = np.argsort(-made.values.ravel(), kind="stable")[:26]
            kept.flatten(2)[..., top] = 0
            after = tiny()(kept).softmax(dim=1)[0, made.target].item()
            assert made.deletion_drop == pytest.approx(before - after, abs=1e-6)
    # Everything that is not zero spoke for class 2.
    for maps, probabilities in zip(found.maps, found.probabilities, strict=True):
        assert maps[-1].deletion_drop == pytest.approx(probabilities[2] - 0.25, abs=1e-6)
    assert attribute(tiny(), inputs, [[1], [0]]).maps[0][0].deletion_drop is None


def test_deletion_drop_of_a_coarse_map_and_many_targets() -> None:
    """The map is enlarged first; 40 targets take two forwards."""
    classifier = network("vit_mean")
    inputs = make_inputs(classifier, 10)
    targets = [[0, 1, 2, 3]] * 10
    found = attribute(classifier, inputs, targets, ExplainOptions(method="cp_lrp", deletion=True))
    for image in (0, 9):
        for made in found.maps[image]:
            large = interpolate(torch.from_numpy(made.values)[None, None], (48, 48), mode="bilinear")
            kept = inputs[image : image + 1].clone()
            kept.flatten(2)[..., large.flatten().topk(230).indices] = 0
            after = classifier(kept).softmax(dim=1)[0, made.target].item()
            assert made.deletion_drop == pytest.approx(found.probabilities[image, made.target] - after, abs=1e-5)
