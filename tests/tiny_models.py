"""Tiny untrained archives, for tests that need a model but not a good one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from saaa import archive
from saaa.models.captioner import Captioner, CaptionerConfig, Vocabulary
from saaa.models.classifier import Classifier, ClassifierConfig
from saaa.models.features import FeatureConfig, FeatureExtractor
from saaa.models.guided import GuidedCaptioner
from saaa.scene_graph import RoleGraph

CLASSES = ("attic", "bathroom", "cellar", "den", "entrance")
WORDS = ("<BOS>", "<EOS>", "<UNK>", "a", "red", "green", "chair", "table", "lamp", "on", "is", "near")
SIZE = 64
EGDD_NAME, EGA_NAME, VERSION = "tiny-egdd", "tiny-ega", "1"


def make_classifier(seed: int = 0) -> Classifier:
    """A convolutional network with lively (not fresh) batch statistics, so that its outputs differ."""
    torch.manual_seed(seed)
    config = ClassifierConfig(architecture="test_efficientnet", classes=CLASSES, input_size=SIZE)
    classifier = Classifier(config).train()
    with torch.no_grad():
        for _ in range(3):
            classifier(classifier.preprocess(torch.randint(0, 256, (8, SIZE, SIZE, 3), dtype=torch.uint8)))
        classifier.net.get_classifier().weight.mul_(30)
    return classifier.eval()


def make_captioner(seed: int = 0) -> GuidedCaptioner:
    """A captioner of a few thousand weights."""
    torch.manual_seed(seed)
    features = FeatureExtractor(FeatureConfig(architecture="test_efficientnet", input_size=SIZE))
    config = CaptionerConfig(
        vocabulary_size=len(WORDS),
        region_size=features.region_size,
        global_size=features.image_size,
        width=24,
        max_words=8,
    )
    return GuidedCaptioner(features, Captioner(config), Vocabulary(WORDS))


def make_archives(folder: Path) -> None:
    """Write one archive of each kind into `folder`."""
    card = {"about": "untrained, for tests"}
    archive.write(folder / "egdd.mar", make_classifier().to_archive(EGDD_NAME, VERSION, card))
    archive.write(folder / "ega.mar", make_captioner().to_archive(EGA_NAME, VERSION, card))


def make_pixels(count: int, seed: int = 0) -> np.ndarray:
    """Smooth random pictures, uint8 (count, SIZE, SIZE, 3)."""
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    return coarse.repeat(SIZE // 8, axis=1).repeat(SIZE // 8, axis=2)


def make_graph(seed: int = 0) -> RoleGraph:
    """Two objects, an attribute and a relationship, with random boxes of the objects."""
    left, top = np.random.default_rng(seed).uniform(0, SIZE / 2, (2, 2)).astype(np.float32)
    first = [*left, *(left + 20)]
    second = [*top, *(top + 30)]
    union = [*np.minimum(left, top), *np.maximum(left + 20, top + 30)]
    return RoleGraph(
        types=np.array([0, 1, 0, 2]),
        orders=np.array([0, 1, 0, 0]),
        boxes=np.array([first, first, second, union], np.float32),
        edges=np.array([[0, 1, 0], [1, 0, 1], [0, 3, 2], [3, 0, 3], [3, 2, 4], [2, 3, 5]]),
    )
