"""The plain fine-tuner's parts against figures worked out by hand; it must be right to be a yardstick."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import Tensor, nn

from benchmarks.plain_finetune import (
    Pictures,
    Recipe,
    as_it_is,
    finetune,
    learning_rate,
    parameter_groups,
    smoothed,
)


class OneBlock(nn.Module):
    """The least that has every kind of parameter: logits are the mean colour, scaled, through a head."""

    def __init__(self) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 3))
        self.patch_embed = nn.Linear(3, 3)
        self.blocks = nn.ModuleList([nn.Linear(3, 3)])
        self.norm = nn.LayerNorm(3)
        self.head = nn.Linear(3, 2)

    def forward(self, images: Tensor) -> Tensor:
        colours = self.patch_embed(images.mean(dim=(2, 3))) + self.cls_token[:, 0]
        found: Tensor = self.head(self.norm(self.blocks[0](colours)))
        return found


@pytest.fixture
def pictures(tmp_path: Path) -> Pictures:
    """Five dark and five bright pictures."""
    rng = np.random.default_rng(0)
    for label, name in enumerate(("bright", "dark")):
        (tmp_path / name).mkdir()
        for i in range(5):
            pixels = rng.integers(0, 256, (4, 4, 3)) // (1 + label)
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / name / f"{i}.png")
    return Pictures(tmp_path, as_it_is)


def one_block() -> OneBlock:
    torch.manual_seed(3)
    return OneBlock()


def test_groups_of_a_small_network() -> None:
    net = one_block()
    found = {
        name: (group["share"], group["weight_decay"])
        for group in parameter_groups(net, weight_decay=0.1, layer_decay=0.5)
        for name, parameter in net.named_parameters()
        if parameter is group["params"][0]
    }
    assert found == {
        "cls_token": (0.25, 0.0),
        "patch_embed.weight": (0.25, 0.1),
        "patch_embed.bias": (0.25, 0.0),
        "blocks.0.weight": (0.5, 0.1),
        "blocks.0.bias": (0.5, 0.0),
        "norm.weight": (1.0, 0.0),
        "norm.bias": (1.0, 0.0),
        "head.weight": (1.0, 0.1),
        "head.bias": (1.0, 0.0),
    }


def test_groups_of_vit_b() -> None:
    """152 parameters; the stem has 0.65 to the power of 13, the final norm and the head have 1."""
    with torch.device("meta"):
        net = timm.create_model("vit_base_patch16_224", num_classes=12, global_pool="token", weight_init="skip")
    groups = parameter_groups(net, weight_decay=0.05, layer_decay=0.65)
    shares = [group["share"] for group in groups]
    assert len(groups) == 152
    assert min(shares) == 0.65**13
    assert shares.count(1.0) == 4
    assert shares.count(0.65) == 12, "the last of the 12 blocks"
    assert sum(group["weight_decay"] > 0 for group in groups) == 1 + 12 * 4 + 1, "patches, four a block, head"


def test_learning_rate() -> None:
    rate = partial(learning_rate, peak=1.0, recipe=Recipe(epochs=9, warmup_epochs=5, min_lr=0.2))
    assert [rate(epoch) for epoch in (0, 2.5, 5)] == [0, 0.5, 1]
    assert rate(7) == pytest.approx(0.6)
    assert rate(6) == pytest.approx(0.2 + 0.8 * (1 + math.sqrt(0.5)) / 2)
    assert rate(9) == pytest.approx(0.2)


def test_smoothing_and_normalisation() -> None:
    torch.testing.assert_close(smoothed(torch.tensor([1]), 4, 0.2), torch.tensor([[0.05, 0.85, 0.05, 0.05]]))
    picture = Image.new("RGB", (3, 2), (0, 51, 255))
    found = as_it_is(picture, mean=(0.5, 0.2, 0.5), std=(0.5, 0.5, 0.25))
    assert found.shape == (3, 2, 3)
    torch.testing.assert_close(found[:, 0, 0], torch.tensor([-1.0, 0.0, 2.0]))


def test_accumulation_is_one_large_batch(pictures: Pictures) -> None:
    """Ten pictures: two forwards of four make one step, or one of eight; the last two are dropped."""
    recipes = (Recipe(batch_size=4, accum_iter=2, blr=0.5, epochs=20), Recipe(batch_size=8, blr=0.5, epochs=20))
    runs = [list(finetune(one_block(), pictures, recipe, order=lambda _: range(10))) for recipe in recipes]
    assert len(runs[0]) == 20
    assert runs[0] == pytest.approx(runs[1], rel=1e-5)
    assert runs[0][0] == pytest.approx(runs[0][1]), "warm-up begins at a learning rate of 0"
    assert runs[0][-1] < runs[0][0] - 0.1, "it learns"


def test_leftover_batches_make_a_step(pictures: Pictures) -> None:
    """Five batches of two, three to a step: the second step is the mean of the two that are left."""
    net = one_block()
    recipe = Recipe(batch_size=2, accum_iter=3, epochs=1, warmup_epochs=1, blr=1e-9, min_lr=0)
    losses = list(finetune(net, pictures, recipe, order=lambda _: range(10)))
    images, labels = zip(*(pictures[i] for i in range(6, 10)), strict=True)
    wanted = nn.functional.cross_entropy(net(torch.stack(images)), torch.tensor(labels), label_smoothing=0.1)
    assert len(losses) == 2
    assert losses[1] == pytest.approx(wanted.item(), rel=1e-5)


def test_clipping_bounds_the_step(pictures: Pictures) -> None:
    """AdamW ignores the gradient's size but for its epsilon, which a gradient clipped to nothing falls below."""
    before, after = one_block(), one_block()
    recipe = Recipe(batch_size=10, epochs=1, warmup_epochs=0, blr=25.6, clip_grad=1e-14, weight_decay=0)
    list(finetune(after, pictures, recipe, order=lambda _: range(10)))
    torch.testing.assert_close(after.head.weight, before.head.weight, rtol=0, atol=1e-4)
