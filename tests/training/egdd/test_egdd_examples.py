"""The sheet of attributions: what stands where, and that drawing it leaves the training alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from saaa.models.classifier import Classifier, ClassifierConfig
from saaa.report.text import font
from training.egdd.data import Images, list_images, load_for_evaluation
from training.egdd.examples import SIDE, attributions
from training.egdd.faithfulness import spread_evenly
from training.seeding import random_state

GAP = 12


class BrightCell(nn.Module):
    """Decides by the brightest 8 x 8 cell alone; its feature map says where that is."""

    feature_info = [{"module": "cells", "reduction": 8}]  # noqa: RUF012 - as timm's networks have it

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.cells = nn.Conv2d(3, 1, 8, stride=8, bias=False)
        self.cells.weight.data.fill_(scale / 192)

    def forward(self, x: Tensor) -> Tensor:
        bright = (self.cells(x).flatten(1) * 6).relu().sum(dim=1)
        return torch.stack([bright, torch.zeros_like(bright)], dim=1)


def build(folder: Path, scale: float = 1.0) -> tuple[Classifier, Images]:
    """A classifier that says "bright", and two images, the second of the other class; one cell is white."""
    for name, (x, y) in {"bright": (8, 40), "dark": (48, 16)}.items():
        (folder / name).mkdir(parents=True)
        pixels = np.full((64, 64, 3), 100, np.uint8)
        pixels[y : y + 8, x : x + 8] = 255
        Image.fromarray(pixels).save(folder / name / "0.png")
    config = ClassifierConfig(architecture="test_efficientnet", classes=("bright", "dark"), input_size=64)
    classifier = Classifier(config)
    classifier.net = BrightCell(scale)
    return classifier, load_for_evaluation(list_images(folder), config, what="val")


def parts(sheet: NDArray[np.uint8], column: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]:
    """The picture, the map over it and the caption of a cell in the first row, each (height, width, 3)."""
    cell = sheet.transpose(1, 2, 0)[GAP:, GAP + column * (2 * SIDE + GAP) :][: SIDE + 44, : 2 * SIDE]
    return cell[:SIDE, :SIDE], cell[:SIDE, SIDE:], cell[SIDE:]


def test_map_lies_over_the_evidence_and_mistakes_are_marked(tmp_path: Path) -> None:
    classifier, images = build(tmp_path)
    sheet = attributions(classifier, images, 8)
    assert sheet.dtype == np.uint8
    assert sheet.shape == (3, SIDE + 44 + 2 * GAP, 2 * (2 * SIDE + GAP) + GAP)
    for column, (x, y) in enumerate([(8, 40), (48, 16)]):
        picture, blend, caption = parts(sheet, column)
        scale = SIDE / 64
        middle = (round((y + 4) * scale), round((x + 4) * scale))
        assert (picture[middle] > 240).all(), "the picture itself"
        warm = blend.astype(int)[..., 0] - blend.astype(int)[..., 2]
        hottest = np.unravel_index(warm.argmax(), warm.shape)
        assert np.hypot(hottest[0] - middle[0], hottest[1] - middle[1]) < 12 * scale
        orange = (np.abs(caption.astype(int) - (213, 94, 0)).max(axis=2) < 10).any()
        assert orange == (column == 1)
        assert (caption < 128).any(), "words are there"


def test_caption_names_the_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = []
    face = type(font(16))
    getmask2 = face.getmask2
    monkeypatch.setattr(
        face, "getmask2", lambda self, text, *a, **k: (said.append(text), getmask2(self, text, *a, **k))[1]
    )
    attributions(*build(tmp_path), 2)
    assert said[1::2] == ["true: bright", "true: dark"]
    assert all(words.endswith("% bright") for words in said[::2])


def test_training_is_left_alone(class_folders: Path) -> None:
    torch.manual_seed(0)
    config = ClassifierConfig(architecture="test_vit", classes=("blue", "green", "red"), input_size=32)
    classifier = Classifier(config)
    classifier.net.blocks[0].requires_grad_(False)
    classifier.net.blocks[0].eval()
    images = load_for_evaluation(list_images(class_folders / "val"), config, what="val")
    weights = {key: value.clone() for key, value in classifier.net.state_dict().items()}
    flags = [(m.training, [p.requires_grad for p in m.parameters(recurse=False)]) for m in classifier.modules()]
    before = random_state()
    sheet = attributions(classifier, images, 3)
    assert sheet.shape[1] > 2 * SIDE, "three in two rows"
    after = random_state()
    assert torch.equal(before["torch"], after["torch"])
    assert torch.equal(before["numpy"][1], after["numpy"][1])
    assert torch.equal(before["python"][1], after["python"][1])
    assert flags == [(m.training, [p.requires_grad for p in m.parameters(recurse=False)]) for m in classifier.modules()]
    assert all(p.grad is None for p in classifier.parameters())
    assert all(torch.equal(weights[key], value) for key, value in classifier.net.state_dict().items())
    np.testing.assert_array_equal(sheet, attributions(classifier, images, 3))


def test_map_that_is_not_finite_does_not_end_a_training(tmp_path: Path) -> None:
    picture, blend, caption = parts(attributions(*build(tmp_path, scale=float("inf")), 1), 0)
    assert picture.min() < 240
    assert (blend == 255).all(), "no map"
    assert (caption < 128).any(), "but the reason"


def test_evenly_spread() -> None:
    assert spread_evenly(10, 4) == [0, 3, 6, 9]
    assert spread_evenly(3, 8) == [0, 1, 2]
    assert spread_evenly(5, 1) == [0]
