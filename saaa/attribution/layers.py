"""Where to look into a network: the parts of a vision transformer, and the layer at which the CAM methods cut."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from timm.layers.attention import Attention, AttentionRope
from timm.models.beit import Attention as BeitAttention
from timm.models.beit import Beit
from timm.models.eva import Eva, EvaAttention
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from saaa.attribution.base import Forward
from saaa.models.classifier import Classifier

JOINT = (Attention, AttentionRope, BeitAttention, EvaAttention)


@dataclass(frozen=True)
class Transformer:
    """The parts of a plain vision transformer: patches, blocks of self-attention, pooling, linear head."""

    embedding: nn.Conv2d
    """Makes one token of each patch."""
    blocks: tuple[Any, ...]
    grid: tuple[int, int]
    """Rows and columns of patches."""
    prefix_tokens: int
    """Class and register tokens before the patch tokens."""
    pooling: str
    """As timm names it: "token", "avg", "map" and others."""
    pools_prefix: bool
    """Whether the prefix tokens are pooled too."""

    @property
    def joint_projections(self) -> list[Tensor]:
        """Weights (3 d, d) of the linear layers that make queries, keys and values, in this order, all at once."""
        layers = [block.attn.qkv for block in self.blocks if isinstance(getattr(block, "attn", None), JOINT)]
        return [layer.weight for layer in layers if layer is not None]

    def as_maps(self, tokens: Tensor) -> Tensor:
        """Shape one value a token, (n, tokens), as (n, rows, columns); the prefix is left out."""
        return tokens[:, self.prefix_tokens :].reshape(tokens.shape[0], *self.grid)


def find_transformer(net: nn.Module) -> Transformer | None:
    """Tell the parts of a plain vision transformer of timm; None for any other network."""
    if not isinstance(net, VisionTransformer | Eva | Beit):
        return None
    embed: Any = net.patch_embed
    if not isinstance(getattr(embed, "proj", None), nn.Conv2d):
        return None
    rows, columns = embed.grid_size
    return Transformer(
        embedding=embed.proj,
        blocks=tuple(net.blocks),
        grid=(rows, columns),
        prefix_tokens=net.num_prefix_tokens,
        pooling=net.global_pool,
        pools_prefix=bool(getattr(net, "pool_include_prefix", False)),
    )


@dataclass(frozen=True)
class Layer:
    """Where a network is cut: below, features are computed without a graph; above, with one."""

    module: nn.Module
    grid: tuple[int, int] | None = None
    """Transformers: rows and columns of patches; None for a convolutional feature map."""
    prefix_tokens: int = 0
    """Transformers: class and register tokens before the patch tokens."""
    channels_last: bool = False
    """Feature maps: (n, rows, columns, channels) instead of (n, channels, rows, columns)."""

    @property
    def convolutional(self) -> bool:
        """Whether the features are a map to begin with."""
        return self.grid is None

    def as_maps(self, values: Tensor) -> Tensor:
        """Shape features, or gradients of them, as (n, channels, rows, columns)."""
        if self.grid is not None:
            patches = values[:, self.prefix_tokens :]
            return patches.transpose(1, 2).reshape(values.shape[0], -1, *self.grid)
        return values.permute(0, 3, 1, 2) if self.channels_last else values


def find_layer(net: nn.Module, *, reduction: int | None = None) -> Layer | None:
    """Choose where to cut the network; None when it is of an unknown build.

    CNN: the last stage, or the last one whose cells are at most `reduction` pixels wide. Transformer: the output of the
    last block but one, since under class-token pooling the patch tokens of the last block do not reach the logits.
    """
    blocks, embed = getattr(net, "blocks", None), getattr(net, "patch_embed", None)
    if embed is not None and hasattr(embed, "grid_size") and isinstance(blocks, nn.Sequential | nn.ModuleList):
        rows, columns = embed.grid_size
        prefix = int(getattr(net, "num_prefix_tokens", 0))
        return Layer(blocks[max(len(blocks) - 2, 0)], grid=(rows, columns), prefix_tokens=prefix)
    known = getattr(net, "feature_info", None)
    stages = [known[i] for i in range(len(known))] if known else []
    channels_last = getattr(net, "output_fmt", "NCHW") == "NHWC"
    if not stages or (embed is not None and not channels_last):
        return None
    if reduction is not None:
        stages = [stage for stage in stages if stage["reduction"] <= reduction] or stages
    try:
        stage = net.get_submodule(stages[-1]["module"])
    except AttributeError:
        return None
    # A stage without convolutions works on tokens, unless it is a single layer (a norm, an activation).
    single = not list(stage.children())
    if channels_last or single or any(isinstance(part, nn.Conv2d) for part in stage.modules()):
        return Layer(stage, channels_last=channels_last)
    return None


def forward_from(
    layer: Layer, classifier: Classifier, inputs: Tensor, combine: Callable[[Tensor, Tensor], Tensor]
) -> Forward:
    """One forward, cut at the layer: only what is above the cut has a graph.

    Args:
        layer: where to cut.
        classifier, inputs: as in `Job`.
        combine: makes maps (n, rows, columns) of gradients and activations, both (n, channels, rows, columns).
    """
    features: list[Tensor] = []

    def cut(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        features.append(output.detach().requires_grad_(True))
        return features[-1].clone()  # a layer above may work in place, which a leaf forbids

    # The parameters are frozen and the inputs need no gradient, so the graph begins at the cut.
    handle = layer.module.register_forward_hook(cut)
    try:
        logits = classifier(inputs)
    finally:
        handle.remove()
    source = features[-1]
    activation = layer.as_maps(source.detach())

    def maps(gradient: Tensor) -> Tensor:
        return combine(layer.as_maps(gradient), activation)

    return Forward(logits=logits, sources=[source], combine=maps)
