"""Augmentation: the split between host and device changes nothing; policies do not end a training."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from timm.data.transforms_factory import create_transform

from saaa.errors import OptionInvalid
from saaa.models.classifier import Classifier, ClassifierConfig
from training.egdd.augment import Finish, build_transform
from training.egdd.config import EgddConfig
from training.seeding import seed_everything

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
GREY = (0.5, 0.5, 0.5)


def config(**options: Any) -> EgddConfig:
    return EgddConfig(**{"data_path": Path(), "input_size": 32, **options})


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return Classifier(
        ClassifierConfig(architecture="test_efficientnet", classes=("a", "b"), input_size=32, mean=MEAN, std=STD)
    )


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 70, 3), dtype=np.uint8))


def test_split_equals_one_transform(classifier: Classifier, picture: Image.Image) -> None:
    """What timm does on the host in one go is what MAE does; here it ends on the device."""
    options = config(reprob=0.0)
    split, finish = build_transform(options, MEAN), Finish(classifier, options)
    whole = create_transform(
        32,
        is_training=True,
        color_jitter=None,  # type: ignore[arg-type]
        auto_augment=options.aa,
        interpolation="bicubic",
        mean=MEAN,
        std=STD,
        re_prob=0.0,
    )
    for seed in range(10):
        seed_everything(seed)
        pixels = split(picture)
        seed_everything(seed)
        assert torch.allclose(finish(pixels[None])[0], whole(picture), atol=1e-6)


def test_nothing_random_gives_the_picture_itself() -> None:
    square = Image.fromarray(np.random.default_rng(1).integers(0, 256, (32, 32, 3), dtype=np.uint8))
    transform = build_transform(config(aa="none", hflip=0.0, min_crop=1.0), GREY)
    for _ in range(5):
        out = transform(square)
        assert out.dtype == torch.uint8
        assert torch.equal(out, torch.from_numpy(np.array(square)).permute(2, 0, 1))


def test_mirroring(picture: Image.Image) -> None:
    plain = build_transform(config(aa="none", hflip=0.0, min_crop=1.0), GREY)(picture)
    mirrored = build_transform(config(aa="none", hflip=1.0, min_crop=1.0), GREY)(picture)
    assert torch.equal(mirrored, plain.flip(2))


def test_colour_jitter_only_without_a_policy(picture: Image.Image) -> None:
    def names(**options: Any) -> list[str]:
        return [type(part).__name__ for part in build_transform(config(**options), GREY).transforms]  # type: ignore[attr-defined]

    assert "ColorJitter" in names(aa="none", color_jitter=0.4)
    assert "ColorJitter" not in names(color_jitter=0.4)
    assert "ColorJitter" not in names(aa="none")


def test_erased_after_normalising(classifier: Classifier) -> None:
    """Zeros are then the mean colour, and noise has the inputs' scale."""
    white = torch.full((200, 3, 32, 32), 255, dtype=torch.uint8)
    value = classifier.normalise(white[:1])[0, :, :1, :1]
    random.seed(0)
    torch.manual_seed(0)
    for mode, mean, std in (("const", 0.0, 0.0), ("pixel", 0.0, 1.0)):
        out = Finish(classifier, config(reprob=0.5, remode=mode))(white)
        assert out.is_contiguous(memory_format=torch.channels_last)
        erased = (out != value).any(dim=1)
        share = erased.flatten(1).any(dim=1).float().mean().item()
        assert share == pytest.approx(0.5, abs=0.12)
        assert 0.02 * 0.8 < erased.float().mean().item() / share < 1 / 3
        inside = out.permute(0, 2, 3, 1)[erased]
        assert inside.mean().item() == pytest.approx(mean, abs=0.02)
        assert inside.std().item() == pytest.approx(std, abs=0.02)


def test_no_erasing_draws_nothing(classifier: Classifier) -> None:
    random.seed(3)
    before = random.getstate()
    Finish(classifier, config(reprob=0.0))(torch.zeros(4, 3, 32, 32, dtype=torch.uint8))
    assert random.getstate() == before


@pytest.mark.parametrize("policy", ["rand-m9-mstd0.5-inc1", "rand-m1-mstd2", "augmix-m3-w2", "original"])
def test_weak_and_strong_posterising(policy: str, picture: Image.Image) -> None:
    """timm asks Pillow for 0 bits at either end of the scale; that must not end a training."""
    seed_everything(0)
    transform = build_transform(config(aa=policy), GREY)
    for _ in range(150):
        assert transform(picture).shape == (3, 32, 32)
    with pytest.raises(ValueError, match="bits"):
        ImageOps.posterize(picture, 0)


@pytest.mark.parametrize("policy", ["tea-m9", "rand-q3", "originalx"])
def test_unknown_policy(policy: str) -> None:
    with pytest.raises(OptionInvalid, match=policy) as caught:
        build_transform(config(aa=policy), GREY)
    assert caught.value.field == "aa"
