"""The network to train: MAE's three vision transformers under their published names, or any timm model.

MAE's networks are timm's VisionTransformer (models_vit.py of the published script): pre-norm blocks, LayerNorm with
eps 1e-6, bias in qkv, a learned class token and position embedding. The head sees the class token after the final norm,
or, under --global_pool, the mean of the patch tokens, normalised after the mean by a norm called fc_norm.
"""

from __future__ import annotations

from typing import cast

import timm
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from saaa.errors import OptionInvalid
from saaa.models.classifier import Classifier, ClassifierConfig, check_architecture
from training.egdd.config import EgddConfig
from training.pretrained import load_efficientnet_lite0, renew_head

MAE_MODELS = {
    "vit_base_patch16": "vit_base_patch16_224",
    "vit_large_patch16": "vit_large_patch16_224",
    "vit_huge_patch14": "vit_huge_patch14_224",
}
"""MAE's name -> timm's name; timm's number is a default that the input size overrides."""

Channels = tuple[float, float, float]
"""A value each for red, green and blue."""


def build_classifier(config: EgddConfig, classes: tuple[str, ...]) -> Classifier:
    """Make the classifier to train: fresh from torch's random state, or with the weights of --pretrained.

    The weights of --finetune are put in afterwards, by `training.egdd.weights.load_initial`.

    Args:
        config: model, pooling, input size, resize and crop, drop_path, pretrained.
        classes: names in the order of the outputs.

    Raises:
        OptionInvalid: unknown model, it cannot be built at this size, or pooling was asked of a model that has its own.
        DataError, CheckpointError: from `load_efficientnet_lite0`.
    """
    classifier = Classifier(classifier_config(config, classes), drop_path=config.drop_path)
    if config.pretrained == "efficientnet_lite0":
        load_efficientnet_lite0(classifier.net)
        renew_head(classifier.net)
    return classifier


def classifier_config(config: EgddConfig, classes: tuple[str, ...]) -> ClassifierConfig:
    """Describe the classifier of these options; MAE's names come with ImageNet's mean and std, timm's with their own.

    Raises:
        OptionInvalid: as `build_classifier`.
    """
    if config.model in MAE_MODELS:
        return mae_config(
            MAE_MODELS[config.model],
            classes,
            mean_pooling=config.global_pool,
            input_size=config.input_size,
            resize=config.resize,
            crop_fraction=config.evaluation_crop,
        )
    check_architecture(config.model)
    if config.global_pool or config.cls_token:
        flag = "global_pool" if config.global_pool else "cls_token"
        raise OptionInvalid(
            f"--{flag} is for {', '.join(MAE_MODELS)}; {config.model} pools in its own way. Leave it out.", field=flag
        )
    known = timm.get_pretrained_cfg(config.model)
    mean, std = (known.mean, known.std) if known is not None else ((0.5,) * 3, (0.5,) * 3)
    return ClassifierConfig(
        architecture=config.model,
        classes=classes,
        input_size=config.input_size,
        resize=config.resize,
        crop_fraction=config.evaluation_crop,
        mean=cast("Channels", mean),
        std=cast("Channels", std),
    )


def mae_config(
    architecture: str,
    classes: tuple[str, ...],
    *,
    mean_pooling: bool,
    input_size: int,
    resize: str = "crop",
    crop_fraction: float,
) -> ClassifierConfig:
    """Describe a vision transformer of timm as MAE's script builds and feeds it.

    Args:
        architecture: timm's name.
        classes: names in the order of the outputs.
        mean_pooling: whether the head sees the mean of the patch tokens instead of the class token.
        input_size, resize, crop_fraction: see `Preprocessing`.
    """
    return ClassifierConfig(
        architecture=architecture,
        classes=classes,
        options={"global_pool": "avg" if mean_pooling else "token"},
        input_size=input_size,
        resize=resize,
        crop_fraction=crop_fraction,
        mean=IMAGENET_DEFAULT_MEAN,
        std=IMAGENET_DEFAULT_STD,
    )
