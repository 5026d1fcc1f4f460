"""Grad-CAM: which cells of a feature map speak for a class. Costs little more than the prediction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from saaa.attribution.base import Explained, Job, target_gradients
from saaa.models.classifier import Classifier


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


class GradCam:
    """map = relu(sum over channels of activation x (mean over cells of d logit / d activation)).

    CNN: the last stage of the network. Transformer: the output of the last block but one, since under
    class-token pooling the patch tokens of the last block do not reach the logits.
    """

    name = "grad_cam"
    reference = "Selvaraju et al. 2017, Grad-CAM, arXiv:1610.02391"

    def supports(self, classifier: Classifier) -> bool:
        """Networks for which timm tells the stages, and plain vision transformers."""
        return find_layer(classifier.net) is not None

    def cost(self, classifier: Classifier) -> float:
        """One forward, and one backward through what lies above the layer, as measured."""
        layer = find_layer(classifier.net)
        return 1.1 if layer is None or layer.grid is None else 1.6

    def run(self, job: Job) -> Explained:
        """One forward, cut at the layer; one backward a target, shared by the images, above the cut."""
        layer = find_layer(job.classifier.net)
        assert layer is not None, "the registry asks `supports` first"
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

        def cam(gradient: Tensor, activation: Tensor) -> Tensor:
            gradient, activation = _as_maps(gradient, layer), _as_maps(activation, layer)
            return (activation * gradient.mean(dim=(2, 3), keepdim=True)).sum(dim=1).relu()

        return Explained(
            logits=logits.detach(),
            targets=targets,
            maps=target_gradients(logits, features[-1], targets, cam),
        )


def find_layer(net: nn.Module) -> Layer | None:
    """Choose where to cut the network; None when it is of an unknown build."""
    blocks, embed = getattr(net, "blocks", None), getattr(net, "patch_embed", None)
    if embed is not None and hasattr(embed, "grid_size") and isinstance(blocks, nn.Sequential | nn.ModuleList):
        rows, columns = embed.grid_size
        prefix = int(getattr(net, "num_prefix_tokens", 0))
        return Layer(blocks[max(len(blocks) - 2, 0)], grid=(rows, columns), prefix_tokens=prefix)
    stages = getattr(net, "feature_info", None)
    channels_last = getattr(net, "output_fmt", "NCHW") == "NHWC"
    if not stages or (embed is not None and not channels_last):
        return None
    try:
        stage = net.get_submodule(stages[len(stages) - 1]["module"])
    except AttributeError:
        return None
    # A stage without convolutions works on tokens, unless it is a single layer (a norm, an activation).
    single = not list(stage.children())
    if channels_last or single or any(isinstance(part, nn.Conv2d) for part in stage.modules()):
        return Layer(stage, channels_last=channels_last)
    return None


def _as_maps(values: Tensor, layer: Layer) -> Tensor:
    """Shape features as (n, channels, rows, columns)."""
    if layer.grid is not None:
        patches = values[:, layer.prefix_tokens :]
        return patches.transpose(1, 2).reshape(len(values), -1, *layer.grid)
    return values.permute(0, 3, 1, 2) if layer.channels_last else values
