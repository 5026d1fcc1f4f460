"""The faithfulness figure on a classifier whose evidence is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from saaa.models.classifier import Classifier, ClassifierConfig
from training.egdd.data import list_images, load_for_evaluation
from training.egdd.faithfulness import faithfulness


class BrightCorner(nn.Module):
    """Decides by the brightest 8 x 8 cell alone; its feature map says where that is."""

    feature_info = [{"module": "cells", "reduction": 8}]  # noqa: RUF012 - as timm's networks have it

    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.Conv2d(3, 1, 8, stride=8, bias=False)
        self.cells.weight.data.fill_(1 / 192)

    def forward(self, x: Tensor) -> Tensor:
        bright = (self.cells(x).flatten(1) * 6).relu().sum(dim=1)
        return torch.stack([bright - 3, torch.zeros_like(bright)], dim=1)


def test_blurring_the_evidence_drops_more(tmp_path: Path) -> None:
    for name in ("bright", "dark"):
        (tmp_path / name).mkdir()
        for i in range(8):
            pixels = np.full((64, 64, 3), 120, np.uint8)
            x, y = 8 * i, 8 * ((3 * i) % 8)
            pixels[y : y + 8, x : x + 8] = 255
            Image.fromarray(pixels).save(tmp_path / name / f"{i}.png")
    config = ClassifierConfig(architecture="test_efficientnet", classes=("bright", "dark"), input_size=64)
    classifier = Classifier(config)
    classifier.net = BrightCorner()
    classifier.eval()
    images = load_for_evaluation(list_images(tmp_path), config, what="val")
    found = faithfulness(classifier, images, count=10)
    assert found["images"] == 10
    assert found["method"] == "hires_cam"
    assert found["drop_top"] > 0.3
    assert found["drop_top"] > 2 * found["drop_random"]
    assert found == faithfulness(classifier, images, count=10)
    assert faithfulness(classifier, images, count=100)["images"] == 16
