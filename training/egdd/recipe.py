"""MAE's fine-tuning recipe, put together from timm's parts.

He et al. 2022, Masked Autoencoders Are Scalable Vision Learners, arXiv:2111.06377, appendix A.2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import timm
import torch
from PIL import Image, ImageOps
from timm.data import Mixup, create_transform
from timm.data.auto_augment import AugmentOp
from timm.data.auto_augment import posterize as timm_posterize
from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from timm.optim import param_groups_layer_decay
from timm.scheduler import CosineLRScheduler
from torch import Tensor, nn

from saaa.errors import OptionInvalid
from saaa.models.classifier import Classifier, ClassifierConfig, check_architecture
from training.egdd.config import EgddConfig
from training.pretrained import load_efficientnet_lite0


@dataclass(frozen=True)
class Mixing:
    """How a batch becomes network input and target, and the loss for it."""

    mix: Mixup | None
    loss: nn.Module

    def __call__(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Mix a batch when asked to; targets are then distributions (B, K) instead of labels (B,)."""
        return self.mix(inputs, labels) if self.mix is not None else (inputs, labels)


def build_classifier(config: EgddConfig, classes: tuple[str, ...]) -> Classifier:
    """Make the classifier to train, with pretrained weights when asked for.

    Raises:
        OptionInvalid: unknown model, or it cannot be built at this size.
        DataError, CheckpointError: from `load_efficientnet_lite0`.
    """
    check_architecture(config.model)
    known = timm.get_pretrained_cfg(config.model)
    mean, std = (known.mean, known.std) if known is not None else ((0.5,) * 3, (0.5,) * 3)
    classifier = Classifier(
        ClassifierConfig(
            architecture=config.model,
            classes=classes,
            input_size=config.input_size,
            resize=config.resize,
            crop_fraction=config.crop_fraction,
            mean=mean,
            std=std,
        ),
        drop_path=config.drop_path,
    )
    if config.pretrained == "efficientnet_lite0":
        load_efficientnet_lite0(classifier.net)
        # As MAE does: an almost silent new head, so that the first steps do not tear the features apart.
        head = classifier.net.get_classifier()
        nn.init.trunc_normal_(head.weight, std=2e-5)
        nn.init.zeros_(head.bias)
    return classifier


def build_optimizer(config: EgddConfig, net: nn.Module) -> torch.optim.AdamW:
    """Make AdamW whose learning rate decays layer by layer towards the input; freezes what is scaled away."""
    skip = net.no_weight_decay() if hasattr(net, "no_weight_decay") else ()
    groups = param_groups_layer_decay(
        net,
        weight_decay=config.weight_decay,
        no_weight_decay_list=skip,
        layer_decay=config.layer_decay,
        no_opt_scale=config.freeze_below or None,
    )
    return torch.optim.AdamW(groups, lr=config.peak_lr)


def build_schedule(config: EgddConfig, optimizer: torch.optim.Optimizer, steps_per_epoch: int) -> CosineLRScheduler:
    """Make the schedule, to be asked before every step: linear from 0, then a cosine to min_lr.

    It depends on the step's number alone, so a checkpoint needs no state of it.
    """
    warmup = round(config.warmup_epochs * steps_per_epoch)
    return CosineLRScheduler(
        optimizer,
        t_initial=max(1, config.epochs * steps_per_epoch - warmup),
        lr_min=config.min_lr,
        warmup_t=warmup,
        warmup_lr_init=0.0,
        warmup_prefix=True,
        t_in_epochs=False,
    )


def build_mixing(config: EgddConfig, classes: int) -> Mixing:
    """Make Mixup / CutMix when asked for, with the loss that belongs to it."""
    if config.mixup > 0 or config.cutmix > 0:
        mix = Mixup(
            mixup_alpha=config.mixup,
            cutmix_alpha=config.cutmix,
            prob=config.mixup_prob,
            switch_prob=config.mixup_switch_prob,
            mode=config.mixup_mode,
            label_smoothing=config.smoothing,
            num_classes=classes,
        )
        return Mixing(mix, SoftTargetCrossEntropy())
    if config.smoothing > 0:
        return Mixing(None, LabelSmoothingCrossEntropy(config.smoothing))
    return Mixing(None, nn.CrossEntropyLoss())


def build_transform(config: EgddConfig, classifier: ClassifierConfig) -> Callable[[Image.Image], Tensor]:
    """Make the random transform of training images: crop, mirror, auto-augment or jitter, normalise, erase.

    Raises:
        OptionInvalid: timm does not understand the auto-augment policy.
    """
    policy = None if config.aa in ("", "none") else config.aa
    try:
        transform: Callable[[Image.Image], Tensor] = create_transform(
            config.input_size,
            is_training=True,
            scale=(config.min_crop, 1.0),
            hflip=config.hflip,
            color_jitter=None if policy else config.color_jitter,
            auto_augment=policy,
            interpolation="bicubic",
            mean=classifier.mean,
            std=classifier.std,
            re_prob=config.reprob,
            re_mode=config.remode,
            re_count=config.recount,
        )
    except (AssertionError, ValueError, KeyError) as error:
        raise OptionInvalid(f"timm does not understand the policy aa={config.aa!r}: {error}", field="aa") from error
    for part in getattr(transform, "transforms", ()):
        for op in _operations(part):
            if op.aug_fn is timm_posterize:
                op.aug_fn = _posterize
    return transform


def _operations(policy: object) -> list[AugmentOp]:
    """List the operations of one of timm's policies: RandAugment and AugMix have `ops`, AutoAugment `policy`."""
    return [*getattr(policy, "ops", ()), *(op for chain in getattr(policy, "policy", ()) for op in chain)]


def _posterize(image: Image.Image, bits: int, **_: object) -> Image.Image:
    """Posterise to at least 1 bit: timm's policies, MAE's default too, now and then ask Pillow for 0."""
    return ImageOps.posterize(image, max(1, bits)) if bits < 8 else image


def training_mode(net: nn.Module) -> None:
    """Set training mode, but leave the statistics of frozen layers alone."""
    net.train()
    for module in net.modules():
        own = list(module.parameters(recurse=False))
        if own and not any(parameter.requires_grad for parameter in own):
            module.eval()
