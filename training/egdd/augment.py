"""What happens to training images: the host's part on pictures, the device's part on batches."""

from __future__ import annotations

from collections.abc import Callable

import torch
from PIL import Image, ImageOps
from timm.data.auto_augment import AugmentOp
from timm.data.auto_augment import posterize as timm_posterize
from timm.data.random_erasing import RandomErasing
from timm.data.transforms_factory import create_transform
from torch import Tensor

from saaa.errors import OptionInvalid
from saaa.models.classifier import Classifier
from training.egdd.config import EgddConfig

Transform = Callable[[Image.Image], Tensor]
"""A picture in, uint8 (3, S, S) out."""


def build_transform(config: EgddConfig, mean: tuple[float, float, float]) -> Transform:
    """Make the host's part: random crop, mirror, auto-augment or jitter.

    It stops at bytes, a quarter of what floats would take on the way to the device; `Finish` does the rest. It draws
    from Python's, NumPy's and torch's global generators.

    Args:
        config: which parts, how strong, and the input size S.
        mean: the network's mean colour, channels in [0, 1]; it fills what rotations and shifts uncover.

    Returns:
        PIL image (RGB) -> uint8 (3, S, S).

    Raises:
        OptionInvalid: timm does not understand the auto-augment policy.
    """
    policy = None if config.aa in ("", "none") else config.aa
    try:
        transform: Transform = create_transform(
            config.input_size,
            is_training=True,
            use_prefetcher=True,
            scale=(config.min_crop, 1.0),
            hflip=config.hflip,
            color_jitter=None if policy else config.color_jitter,  # type: ignore[arg-type]  # None is none
            auto_augment=policy,
            interpolation="bicubic",
            mean=mean,
        )
    except (AssertionError, ValueError, KeyError) as error:
        raise OptionInvalid(f"timm does not understand the policy aa={config.aa!r}: {error}", field="aa") from error
    for part in getattr(transform, "transforms", ()):
        for op in _operations(part):
            if op.aug_fn is timm_posterize:
                op.aug_fn = _posterize
    return transform


class Finish:
    """The device's part: normalise, then erase rectangles, in MAE's order; the noise of --remode pixel is thus of the
    inputs' scale, and that of const their mean.

    Erasing draws from the generators of the training itself, which its checkpoints hold.

    Args:
        classifier: whose normalisation, already on its device.
        config: how often and how to erase.
    """

    def __init__(self, classifier: Classifier, config: EgddConfig) -> None:
        self._normalise = classifier.normalise
        self._erase: RandomErasing | None = None
        if config.reprob > 0:
            self._erase = RandomErasing(  # type: ignore[no-untyped-call]
                config.reprob, mode=config.remode, max_count=config.recount, device=str(classifier.mean.device)
            )

    def __call__(self, pixels: Tensor) -> Tensor:
        """Turn uint8 (B, 3, S, S), on the classifier's device, into its float32 input, channels last in memory."""
        inputs = self._normalise(pixels.contiguous(memory_format=torch.channels_last))
        return self._erase(inputs) if self._erase is not None else inputs


def _operations(policy: object) -> list[AugmentOp]:
    """List the operations of one of timm's policies: RandAugment and AugMix have `ops`, AutoAugment `policy`."""
    return [*getattr(policy, "ops", ()), *(op for chain in getattr(policy, "policy", ()) for op in chain)]


def _posterize(image: Image.Image, bits: int, **_: object) -> Image.Image:
    """Posterise to at least 1 bit: timm's policies, MAE's default too, now and then ask Pillow for 0."""
    return ImageOps.posterize(image, max(1, bits)) if bits < 8 else image
