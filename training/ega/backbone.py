"""The backbone whose features are trained on."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import timm

from saaa import archive
from saaa.models.classifier import Classifier
from saaa.models.features import FeatureConfig, FeatureExtractor
from training.pretrained import load_efficientnet_lite0


class BackboneOptions(Protocol):
    """The options of a backbone, as in `training.ega.config.EgaConfig`."""

    @property
    def model(self) -> str: ...
    @property
    def pretrained(self) -> Literal["none", "efficientnet_lite0"]: ...
    @property
    def backbone_archive(self) -> Path | None: ...
    @property
    def levels(self) -> tuple[int, ...]: ...
    @property
    def grid(self) -> int: ...
    @property
    def input_size(self) -> int: ...
    @property
    def resize(self) -> Literal["squash", "crop"]: ...
    @property
    def crop_fraction(self) -> float: ...


def make_extractor(config: BackboneOptions) -> FeatureExtractor:
    """The feature extractor of a configuration, with its weights.

    Raises:
        ArchiveError: backbone_archive is no EGDD archive, or does not fit.
        CheckpointError, DataError: see `load_efficientnet_lite0`.
        OptionInvalid: the model gives no such feature maps.
    """
    wanted = FeatureConfig(
        architecture=config.model,
        levels=config.levels,
        grid=config.grid,
        input_size=config.input_size,
        resize=config.resize,
        crop_fraction=config.crop_fraction,
    )
    if config.backbone_archive is None:
        extractor = FeatureExtractor(wanted)
        if config.pretrained == "efficientnet_lite0":
            net = timm.create_model(config.model)
            load_efficientnet_lite0(net)
            extractor.load_backbone(net.state_dict())
        return extractor
    classifier = Classifier.from_archive(archive.read(config.backbone_archive))
    trained = classifier.config
    extractor = FeatureExtractor(replace(wanted, architecture=trained.architecture, mean=trained.mean, std=trained.std))
    extractor.load_backbone(classifier.net.state_dict())
    return extractor


def identity(extractor: FeatureExtractor) -> dict[str, Any]:
    """What makes features these and no others: the backbone, its weights and its input; as JSON holds it."""
    digest = hashlib.sha256()
    for value in extractor.state_dict().values():
        digest.update(value.cpu().contiguous().numpy().tobytes())
    return json.loads(json.dumps({**asdict(extractor.config), "weights": digest.hexdigest()}))  # type: ignore[no-any-return]
