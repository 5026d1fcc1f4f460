"""Checkpoints of MAE's fine-tuning script, as EGDD's are published: a classifier told by its keys and shapes.

Such a file holds "model" (the weights), "optimizer", "epoch", "scaler" and "args" (the script's options). It does not
name its classes nor, without "args", its network.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from saaa.errors import CheckpointError, DataError, OptionInvalid
from saaa.models.classifier import Classifier
from training.checkpoint import read_content
from training.egdd.config import EgddConfig
from training.egdd.listing import read_classes
from training.egdd.networks import MAE_MODELS, mae_config
from training.egdd.weights import State, put_in, state_of

SHAPES = {
    (768, 12, 16): "vit_base_patch16",
    (1024, 24, 16): "vit_large_patch16",
    (1280, 32, 14): "vit_huge_patch14",
}
"""(width, blocks, pixels of a patch's side) -> MAE's name."""


@dataclass(frozen=True)
class Published:
    """What is known of a published checkpoint."""

    classifier: Classifier
    """Frozen, in evaluation mode; fed as the script feeds it."""
    options: dict[str, Any]
    """The script's options that are ours, too; none where the file has none."""
    epoch: int | None
    """Epochs done; None where the file does not say."""


def read_published(path: Path, classes: Path) -> Published:
    """Read a checkpoint of MAE's fine-tuning script.

    Mean pooling is told by its norm (fc_norm), the input size by the position embedding, the network by "args", or else
    by its shapes.

    Args:
        path: the checkpoint.
        classes: the class names in order, see `read_classes`.

    Raises:
        CheckpointError: unreadable, or no fine-tuned vision transformer of MAE's script.
        DataError: the class names cannot be read, or are not as many as the head's outputs.
        OptionInvalid: a checkpoint of `saaa-train egdd`, which names its classes.
    """
    content = read_content(path)
    if isinstance(content, dict) and "kind" in content:
        raise OptionInvalid(
            f"{path} is a checkpoint of saaa-train, which names its classes; leave --classes out.", field="classes"
        )
    state = state_of(content, path)
    args = content.get("args")
    options = vars(args) if isinstance(args, argparse.Namespace) else {}
    needed = ("head.weight", "patch_embed.proj.weight", "pos_embed", "cls_token")
    if lacking := [key for key in needed if key not in state]:
        raise CheckpointError(
            f"{path} holds no classifier of MAE's fine-tuning script: {', '.join(lacking)} missing."
            + (" It comes from pretraining; train from it by --finetune." if "mask_token" in state else "")
        )
    names = read_classes(classes)
    outputs = len(state["head.weight"])
    if len(names) != outputs:
        raise DataError(f"{path} tells {outputs} classes apart; {classes} names {len(names)}.")
    size = math.isqrt(state["pos_embed"].shape[1] - 1) * state["patch_embed.proj.weight"].shape[-1]
    name = options.get("model") or _model_of(state, path)
    config = mae_config(
        MAE_MODELS.get(name, name),
        names,
        mean_pooling="fc_norm.weight" in state,
        input_size=size,
        crop_fraction=EgddConfig(input_size=size).evaluation_crop,
    )
    classifier = Classifier(config)
    put_in(classifier, state, path, whole=True)
    ours = {field.name for field in fields(EgddConfig)}
    epoch = content.get("epoch")
    return Published(
        classifier.eval().requires_grad_(False),
        {key: value for key, value in options.items() if key in ours},
        epoch + 1 if isinstance(epoch, int) else None,  # the script counts from 0
    )


def _model_of(state: State, path: Path) -> str:
    """Tell MAE's network by its shapes."""
    shape = state["patch_embed.proj.weight"].shape
    width, patch = shape[0], shape[-1]
    blocks = len({key.split(".")[1] for key in state if key.startswith("blocks.")})
    try:
        return SHAPES[width, blocks, patch]
    except KeyError:
        raise CheckpointError(
            f"{path} is of none of {', '.join(MAE_MODELS)}: width {width}, {blocks} blocks, patches of {patch} pixels."
        ) from None
