"""Checkpoints of the published captioner programs (ASG2Caption's and EGA's), made servable.

Such a file holds the weights by submodule: `mp_encoder`, `attn_encoder` and `decoder`. Only the "role graph, memory and
flow decoder" model with tied words is this captioner; another one is refused.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor

from saaa.errors import CheckpointError, OptionInvalid
from saaa.models.captioner import Captioner, CaptionerConfig
from saaa.models.captioner.encoder import order_table
from saaa.models.features import FeatureConfig, FeatureExtractor
from saaa.models.guided import GuidedCaptioner
from training.checkpoint import read_content
from training.ega.published import AnnotationFolder
from training.egdd.weights import read_weights

ORDERS = "attr_order_embeds"
"""The published order table, a buffer; ours is computed."""
MODULES = {
    "encoder.role.roles": "node_embedding",
    "encoder.project": "first_embedding.0",
    "image.project": "ft_embed",
    "decoder.words": "embedding.we",
    "decoder.lstm1": "attn_lstm",
    "decoder.lstm2": "lang_lstm",
    "decoder.gate": "address_layer",
    "decoder.query": "attn.linear_query",
    "decoder.key": "attn_linear_context",
    "decoder.score": "attn.attn_w",
    "decoder.update": "sentinal_layer",
    "decoder.write": "memory_update_layer",
}
"""Where the published programs keep what we keep; below these the names are the same."""
LAYER = re.compile(r"encoder\.layers\.(\d+)\.(own|related)")
LAYER_WEIGHTS = {"own": "loop_weight", "related": "weight"}


def published_name(name: str) -> str:
    """The published programs' name of the captioner's parameter `name`, below its submodule's."""
    if layer := LAYER.fullmatch(name):
        return f"layers.{layer[1]}.{LAYER_WEIGHTS[layer[2]]}"
    module = next(module for module in MODULES if name.startswith(f"{module}."))
    return MODULES[module] + name.removeprefix(module)


def load_published(path: Path) -> Captioner:
    """The captioner of a published checkpoint, sizes told from its weights.

    Raises:
        CheckpointError: it cannot be read, or holds another model.
    """
    state = _flat(read_content(path))
    try:
        width, region_size = _one(state, "first_embedding.0.weight").shape
        orders = _one(state, ORDERS)
        config = CaptionerConfig(
            vocabulary_size=len(_one(state, "embedding.we.weight")),
            region_size=region_size,
            global_size=_one(state, "ft_embed.weight").shape[1] - width,
            width=width,
            layers=sum(name.endswith(".loop_weight") for name in state),
            order_rows=len(orders),
        )
        if not torch.allclose(orders, order_table(*orders.shape).to(orders.dtype), atol=1e-3):
            raise CheckpointError(f"its {ORDERS} is not the published table")
        captioner = Captioner(config)
        names = {name: published_name(name) for name in captioner.state_dict()}
        surplus = [name for name in state if not any(_ends(name, known) for known in (ORDERS, *names.values()))]
        if surplus:
            raise CheckpointError(f"it holds {surplus[0]} (with {len(surplus) - 1} more names unknown here)")
        captioner.load_state_dict({name: _one(state, known) for name, known in names.items()})
    except (CheckpointError, OptionInvalid, RuntimeError, ValueError) as error:
        raise CheckpointError(
            f"{path} is no checkpoint of the published role-graph, memory-and-flow captioner: {error}"
        ) from error
    return captioner.eval()


def import_published(
    path: Path, *, vocabulary: Path, backbone: Path, model: str, input_size: int
) -> tuple[GuidedCaptioner, dict[str, Any]]:
    """A servable captioner of a published checkpoint, and what its model card says.

    The published region features come from a detector that is not public; `stand_in` makes others.

    Args:
        path: the checkpoint.
        vocabulary: folder with int2word.npy and, when there, word2int.json.
        backbone, model, input_size: as for `stand_in`.

    Raises:
        CheckpointError: checkpoint or weights cannot be read or do not fit.
        DataError: the vocabulary cannot be read.
        ArchiveError: the backbone's archive is damaged, or its weights are those of another model.
        OptionInvalid: the model is unknown to timm.
    """
    captioner = load_published(path)
    config = captioner.config
    words = AnnotationFolder(vocabulary).vocabulary()
    if len(words) != config.vocabulary_size:
        raise CheckpointError(
            f"{path} knows {config.vocabulary_size} words, int2word.npy of {vocabulary} has {len(words)}; give the "
            "vocabulary that it was trained with."
        )
    extractor = stand_in(config, backbone=backbone, model=model, input_size=input_size)
    card = {
        "recipe": {"checkpoint": "of a published captioner program", "backbone": model},
        "features": f"{model} at {input_size} pixels in place of the published features, whose extractor is not public",
    }
    return GuidedCaptioner(extractor, captioner, words), card


def stand_in(config: CaptionerConfig, *, backbone: Path, model: str, input_size: int) -> FeatureExtractor:
    """What makes features for a captioner that was trained on features nobody can make of an image: the map of a
    backbone that has as many channels as these, pooled in the nodes' boxes and over the image, as it is.

    Args:
        config: of the captioner.
        backbone: weights of `model`, as `training.egdd.weights.read_weights` takes them; an archive brings them, too.
        model: a timm model, resnet101 as published.
        input_size: width and height of the backbone's input in pixels.

    Raises:
        CheckpointError: the weights cannot be read, or no map fits.
        ArchiveError: the backbone's archive is damaged, or its weights are those of another model.
        OptionInvalid: the model is unknown to timm.
    """
    if config.region_size != config.global_size:
        raise CheckpointError(
            f"The checkpoint reads features of {config.region_size} numbers a region and {config.global_size} an "
            "image; one backbone's map cannot be both."
        )
    extractor = FeatureExtractor(
        FeatureConfig(
            architecture=model,
            levels=(_level(model, config.region_size),),
            grid=1,
            geometry=False,
            input_size=input_size,
            mean=timm.data.IMAGENET_DEFAULT_MEAN,
            std=timm.data.IMAGENET_DEFAULT_STD,
        )
    )
    state, _ = read_weights(backbone)
    extractor.load_backbone(state)
    return extractor


def _level(model: str, channels: int) -> int:
    FeatureConfig(architecture=model)  # known to timm
    net: Any = timm.create_model(model, features_only=True)
    found = list(net.feature_info.channels())
    if channels not in found:
        raise CheckpointError(
            f"The checkpoint reads features of {channels} numbers, and no map of {model} has as many channels "
            f"({', '.join(map(str, found))}); give another --model and its --backbone."
        )
    return len(found) - 1 - found[::-1].index(channels)


def _flat(content: Any, prefix: str = "") -> dict[str, Tensor]:
    """All tensors of nested dicts by their dotted names."""
    if not isinstance(content, dict):
        return {prefix: content} if isinstance(content, Tensor) else {}
    found: dict[str, Tensor] = {}
    for key, value in content.items():
        found |= _flat(value, f"{prefix}.{key}" if prefix else str(key))
    return found


def _ends(name: str, known: str) -> bool:
    return name == known or name.endswith(f".{known}")


def _one(state: dict[str, Tensor], known: str) -> Tensor:
    found = [name for name in state if _ends(name, known)]
    if len(found) != 1:
        raise CheckpointError(f"it holds {len(found)} tensors named {known}, not one")
    return state[found[0]]
