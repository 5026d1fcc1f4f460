"""MAE's fine-tuning recipe, put together from timm's parts.

He et al. 2022, Masked Autoencoders Are Scalable Vision Learners, arXiv:2111.06377, appendix A.2.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch
from timm.data.mixup import Mixup
from timm.loss.cross_entropy import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from timm.models.vision_transformer import VisionTransformer
from timm.optim import param_groups_layer_decay  # type: ignore[attr-defined]
from timm.scheduler.cosine_lr import CosineLRScheduler
from torch import Tensor, nn

from saaa.errors import OptionInvalid
from training.egdd.config import EgddConfig


@dataclass(frozen=True)
class Mixing:
    """How a batch becomes network input and target, and the loss for it."""

    mix: Mixup | None
    loss: nn.Module

    def __call__(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Mix a batch when asked to; targets are then distributions (B, K) instead of labels (B,)."""
        return self.mix(inputs, labels) if self.mix is not None else (inputs, labels)


def build_optimizer(config: EgddConfig, net: nn.Module, processes: int) -> torch.optim.AdamW:
    """Make AdamW whose learning rate decays layer by layer towards the input (--layer_decay ^ distance from the head);
    weight decay is for matrices only. Layers scaled below --freeze_below are frozen.

    Each group holds "lr_scale", which the schedule multiplies its learning rate by.

    Args:
        config: the optimiser's options.
        net: timm's network.
        processes: how many share the step; without --lr the peak grows with the images of a step.
    """
    skip: Collection[str] = getattr(net, "no_weight_decay", tuple)()
    groups = param_groups_layer_decay(
        net,
        weight_decay=config.weight_decay,
        no_weight_decay_list=skip,
        layer_decay=config.layer_decay,
        no_opt_scale=config.freeze_below or None,
    )
    if isinstance(net, VisionTransformer):
        # timm puts the norm before the head into the last block's layer, MAE into the head's. Under mean pooling the
        # norm is fc_norm, on which both agree, and this one is empty.
        final = list(net.norm.parameters())
        groups = [{**group, "params": [p for p in group["params"] if not _among(p, final)]} for group in groups]
        groups.append({"params": [p.requires_grad_(True) for p in final], "lr_scale": 1.0, "weight_decay": 0.0})
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(groups, lr=config.peak_lr(processes), fused=True)


def _among(parameter: nn.Parameter, others: list[nn.Parameter]) -> bool:
    return any(parameter is other for other in others)


def build_schedule(config: EgddConfig, optimizer: torch.optim.Optimizer) -> CosineLRScheduler:
    """Make the schedule: linear from 0, then a cosine to --min_lr.

    It depends on time alone, so a checkpoint needs no state of it. Before every step, and at no other time, give it the
    time in epochs: `schedule.step(epoch + micro / micros_per_epoch)`, micro being the index within the epoch of the
    step's first micro-batch; so MAE's script does.
    """
    return CosineLRScheduler(
        optimizer,
        # timm's annotations know whole epochs only; its arithmetic takes parts of them.
        t_initial=config.epochs - config.warmup_epochs,  # type: ignore[arg-type]
        lr_min=config.min_lr,
        warmup_t=config.warmup_epochs,  # type: ignore[arg-type]
        warmup_lr_init=0.0,
        warmup_prefix=True,
        cycle_decay=0.5,  # of a second cosine, which never begins; at 1 timm warns of cosines over one epoch
    )


def learning_rates(optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """Name the learning rates in use, for the curves: "head", "head-1" (the layer before it), and so on."""
    rates = {group["lr_scale"]: group["lr"] for group in optimizer.param_groups}
    return {f"head-{i}" if i else "head": rates[scale] for i, scale in enumerate(sorted(rates, reverse=True))}


def build_mixing(config: EgddConfig, classes: int) -> Mixing:
    """Make Mixup / CutMix when asked for, with the loss that belongs to it.

    Mixing draws from NumPy's global state, smooths the labels itself, and writes into its inputs.

    Raises:
        OptionInvalid: cutmix_minmax leaves no whole number of pixels to draw.
    """
    if config.mixes:
        # timm draws the sides from the whole pixels of this range, the upper end excluded, and fails on none.
        sides = [int(config.input_size * share) for share in config.cutmix_minmax or (0, 1)]
        if sides[0] >= sides[1]:
            raise OptionInvalid(
                f"cutmix_minmax is {config.cutmix_minmax}, which is {sides[0]} to {sides[1]} of {config.input_size} "
                "pixels; give shares at least a pixel apart.",
                field="cutmix_minmax",
            )
        mix = Mixup(  # type: ignore[no-untyped-call]
            mixup_alpha=config.mixup,
            cutmix_alpha=config.cutmix,
            cutmix_minmax=config.cutmix_minmax,
            prob=config.mixup_prob,
            switch_prob=config.mixup_switch_prob,
            mode=config.mixup_mode,
            label_smoothing=config.smoothing,
            num_classes=classes,
        )
        return Mixing(mix, SoftTargetCrossEntropy())  # type: ignore[no-untyped-call]
    if config.smoothing > 0:
        return Mixing(None, LabelSmoothingCrossEntropy(config.smoothing))  # type: ignore[no-untyped-call]
    return Mixing(None, nn.CrossEntropyLoss())


def training_mode(net: nn.Module) -> None:
    """Set training mode, but leave the statistics of frozen layers alone."""
    net.train()
    for module in net.modules():
        own = list(module.parameters(recurse=False))
        if own and not any(parameter.requires_grad for parameter in own):
            module.eval()
