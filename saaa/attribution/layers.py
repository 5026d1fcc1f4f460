"""Cut a network at a layer: features below without a graph, gradients only above. What the CAM methods share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from saaa.attribution.base import Explained, Job, target_gradients


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
            return patches.transpose(1, 2).reshape(len(values), -1, *self.grid)
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


def explain_at(job: Job, layer: Layer, combine: Callable[[Tensor, Tensor], Tensor]) -> Explained:
    """One forward, cut at the layer; one backward a target, shared by the images, through what is above the cut.

    Args:
        job: what to explain.
        layer: where to cut.
        combine: makes maps (n, rows, columns) of gradients and activations, both (n, channels, rows, columns).
    """
    features: list[Tensor] = []

    def cut(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        features.append(output.detach().requires_grad_(True))
        return features[-1].clone()  # a layer above may work in place, which a leaf forbids

    # The parameters are frozen and the inputs need no gradient, so the graph begins at the cut.
    handle = layer.module.register_forward_hook(cut)
    try:
        logits = job.classifier(job.inputs)
    finally:
        handle.remove()
    targets = job.choose(logits.detach())
    maps = target_gradients(
        logits,
        features[-1],
        targets,
        lambda gradient, activation: combine(layer.as_maps(gradient), layer.as_maps(activation)),
    )
    return Explained(logits=logits.detach(), targets=targets, maps=maps)
