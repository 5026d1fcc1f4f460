"""The recipe against MAE's description, written out here by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from saaa.errors import OptionInvalid
from training.egdd.config import EgddConfig
from training.egdd.networks import build_classifier
from training.egdd.recipe import (
    build_mixing,
    build_optimizer,
    build_schedule,
    learning_rates,
    training_mode,
)

CLASSES = ("bath", "den", "hall")


def config(**options: Any) -> EgddConfig:
    return EgddConfig(**{"data_path": Path(), "model": "test_vit", "input_size": 32, **options})


def network(options: EgddConfig) -> Any:
    torch.manual_seed(0)
    return build_classifier(options, CLASSES).net


def mae_group(
    name: str, parameter: Tensor, blocks: int, *, layer_decay: float, weight_decay: float
) -> tuple[float, float]:
    """MAE's scale of the learning rate and weight decay of a parameter.

    Layer 0 is the stem (class token, position embedding, patches), block k is layer k + 1, and all that follows the
    blocks is layer blocks + 1, whose scale is 1. Vectors, the class token and the position embedding do not decay.
    """
    if name in ("cls_token", "pos_embed") or name.startswith("patch_embed."):
        layer = 0
    elif name.startswith("blocks."):
        layer = int(name.split(".")[1]) + 1
    else:
        layer = blocks + 1
    free = parameter.ndim == 1 or name in ("cls_token", "pos_embed")
    return layer_decay ** (blocks + 1 - layer), 0.0 if free else weight_decay


@pytest.mark.parametrize("mean_pooling", [False, True])
def test_groups_of_vit_b(mean_pooling: bool) -> None:
    """Every one of its 152 parameters, in exactly one group, as MAE groups them."""
    options = EgddConfig(layer_decay=0.65, weight_decay=0.05, blr=5e-4, accum_iter=4, global_pool=mean_pooling)
    with torch.device("meta"):
        net = network(options)
    net.to_empty(device="cpu")  # what the weights are does not matter, and drawing them takes seconds
    optimizer = build_optimizer(options, net, processes=4)
    groups = [(p, g["lr_scale"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]]
    found = {id(p): (scale, decay) for p, scale, decay in groups}
    assert len(groups) == len(found) == 152
    for name, parameter in net.named_parameters():
        expected = mae_group(name, parameter, 12, layer_decay=0.65, weight_decay=0.05)
        assert found[id(parameter)] == pytest.approx(expected), name
    build_schedule(options, optimizer).step(5.0)
    by_hand = {name: 2e-3 * 0.65**i for i, name in enumerate(["head", *(f"head-{i}" for i in range(1, 14))])}
    assert learning_rates(optimizer) == pytest.approx(by_hand), "64 x 4 x 4 images a step: 5e-4 * 1024 / 256"


@pytest.mark.parametrize("model", ["test_vit", "test_efficientnet"])
def test_plain_adamw_without_layer_decay(model: str) -> None:
    options = config(model=model, layer_decay=1.0, lr=0.1)
    net = network(options)
    optimizer = build_optimizer(options, net, processes=1)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(net.parameters()))
    assert {group["lr_scale"] for group in optimizer.param_groups} == {1.0}
    assert {(group["betas"], group["eps"]) for group in optimizer.param_groups} == {((0.9, 0.999), 1e-8)}
    build_schedule(options, optimizer).step(5)
    assert learning_rates(optimizer) == {"head": 0.1}


def mae_rate(epoch: float, *, peak: float, least: float, warmup: float, epochs: float) -> float:
    """MAE's learning rate at a time in epochs."""
    if epoch < warmup:
        return peak * epoch / warmup
    return least + (peak - least) * 0.5 * (1 + math.cos(math.pi * (epoch - warmup) / (epochs - warmup)))


@given(
    epochs=st.integers(1, 20),
    part=st.integers(0, 9).map(lambda tenths: tenths / 10),
    micros=st.integers(1, 12),
    accum=st.integers(1, 8),
    least=st.floats(0, 0.3),
)
def test_schedule(epochs: int, part: float, micros: int, accum: int, least: float) -> None:
    """Set at the first micro-batch of every step, as MAE does; an epoch's last step may be shorter than the others."""
    warmup = part * epochs
    options = config(epochs=epochs, warmup_epochs=warmup, lr=0.4, min_lr=least, accum_iter=accum)
    layers = [{"params": [nn.Parameter(torch.zeros(1))], "lr_scale": scale} for scale in (1.0, 0.65, 0.01)]
    optimizer = torch.optim.AdamW(layers, lr=options.peak_lr(1))
    schedule = build_schedule(options, optimizer)
    for epoch in range(epochs):
        for micro in range(0, micros, accum):
            schedule.step(epoch + micro / micros)
            expected = mae_rate(epoch + micro / micros, peak=0.4, least=least, warmup=warmup, epochs=epochs)
            for group in optimizer.param_groups:
                assert group["lr"] == pytest.approx(expected * group["lr_scale"], abs=1e-9)


def test_schedule_begins_at_nothing() -> None:
    options = config(lr=0.4)
    optimizer = build_optimizer(options, network(options), processes=1)
    build_schedule(options, optimizer).step(0.0)
    assert max(learning_rates(optimizer).values()) == 0.0


def test_schedule_needs_no_memory() -> None:
    """Asked at a time it gives the same whatever came before, also to an optimiser that was read from a checkpoint."""
    options = config(epochs=10, warmup_epochs=2, lr=0.4)
    once = build_optimizer(options, network(options), processes=1)
    build_schedule(options, once).step(6.25)
    again = build_optimizer(options, network(options), processes=1)
    schedule = build_schedule(options, again)
    again.load_state_dict(once.state_dict())
    for time in (1.0, 9.0, 6.25):
        schedule.step(time)
    assert learning_rates(again) == learning_rates(once)


def test_peak_lr_grows_with_the_images_of_a_step() -> None:
    assert config(batch_size=64, blr=1e-3).peak_lr(1) == pytest.approx(0.25e-3)
    assert config(batch_size=64, blr=5e-4, accum_iter=4).peak_lr(4) == pytest.approx(2e-3)
    assert config(lr=0.02).peak_lr(4) == 0.02


def test_frozen_layers() -> None:
    options = config(model="test_efficientnet", layer_decay=0.5, freeze_below=0.2)
    net = network(options)
    optimizer = build_optimizer(options, net, processes=1)
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


def test_final_norm_is_frozen_with_the_head_only() -> None:
    """Its scale is the head's, so what freezes the last block leaves it alone."""
    options = config(layer_decay=0.5, freeze_below=0.9)
    net = network(options)
    build_optimizer(options, net, processes=1)
    trained = {name for name, parameter in net.named_parameters() if parameter.requires_grad}
    assert trained == {"norm.weight", "norm.bias", "head.weight", "head.bias"}


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


def mixed(count: int = 4, **options: Any) -> tuple[Tensor, Tensor]:
    """One-coloured pictures, each its number, of the classes 0, 1, 2, 0, ..., through a mixing."""
    np.random.seed(0)
    inputs = torch.arange(count, dtype=torch.float32).view(-1, 1, 1, 1).expand(count, 3, 32, 32).clone()
    inputs, targets = build_mixing(config(**options), 3)(inputs, torch.arange(count) % 3)
    return inputs, targets


@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
def test_mixup_targets_follow_the_pictures(mode: str) -> None:
    """A picture that is a share of its partner (the batch backwards) has that share of the partner's label; then the
    labels are smoothed.
    """
    inputs, targets = mixed(mixup=0.8, smoothing=0.1, mixup_mode=mode)
    for own in range(4):
        partner = 3 - own
        share = ((inputs[own, 0, 0, 0] - partner) / (own - partner)).item()
        expected = torch.full((3,), 0.1 / 3)
        expected[own % 3] += 0.9 * share
        expected[partner % 3] += 0.9 * (1 - share)
        assert torch.allclose(targets[own], expected, atol=1e-6)
        assert inputs[own].unique().numel() == 1


def test_cutmix_targets_follow_the_area() -> None:
    inputs, targets = mixed(cutmix=1.0, smoothing=0.0)
    own = (inputs[1, 0] == 1).float().mean()
    assert 0 < own < 1
    assert set(inputs[1].unique().tolist()) == {1.0, 2.0}
    assert targets[1].tolist() == pytest.approx([0.0, own.item(), 1 - own.item()])


def test_cutmix_minmax_turns_cutmix_on() -> None:
    """Sides between the two shares of the picture's, whatever --cutmix says."""
    for _ in range(20):
        inputs, targets = mixed(cutmix_minmax=(0.25, 0.5), smoothing=0.0)
        foreign = inputs[1, 0] == 2
        sides = [int(foreign.any(dim=axis).sum()) for axis in (0, 1)]
        assert all(8 <= side < 16 for side in sides)
        assert targets[1, 2].item() == pytest.approx(sides[0] * sides[1] / 32**2)


def test_cutmix_minmax_without_a_pixel_between() -> None:
    with pytest.raises(OptionInvalid, match="6 to 6 of 32 pixels") as caught:
        build_mixing(config(cutmix_minmax=(0.2, 0.21)), 3)
    assert caught.value.field == "cutmix_minmax"


def test_mixing_now_and_then() -> None:
    assert mixed(mixup=0.8, mixup_prob=0.0)[0].unique().tolist() == [0.0, 1.0, 2.0, 3.0]
    whole, cut = (
        mixed(mixup=0.8, cutmix=1.0, mixup_switch_prob=0.0),
        mixed(mixup=0.8, cutmix=1.0, mixup_switch_prob=1.0),
    )
    assert whole[0][1].unique().numel() == 1
    assert cut[0][1].unique().numel() == 2


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
