"""Features as the captioner sees them: of mean 0 and deviation 1 over the training set."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from saaa.models.features import FeatureExtractor


@dataclass(frozen=True, kw_only=True)
class Standard:
    """What is taken off features, and what they are then divided by; float32 on the CPU."""

    region_mean: Tensor
    """(region size,)"""
    region_scale: Tensor
    image_mean: Tensor
    """(image size,)"""
    image_scale: Tensor

    @classmethod
    def of(cls, extractor: FeatureExtractor) -> Standard:
        """What an extractor standardises by."""
        return cls(
            region_mean=extractor.region_mean.cpu().clone(),
            region_scale=extractor.region_scale.cpu().clone(),
            image_mean=extractor.image_mean.cpu().clone(),
            image_scale=extractor.image_scale.cpu().clone(),
        )

    def give(self, extractor: FeatureExtractor) -> None:
        """Let an extractor standardise so.

        Raises:
            RuntimeError: its features are of other sizes.
        """
        with torch.no_grad():
            for name, value in asdict(self).items():
                getattr(extractor, name).copy_(value)

    def to(self, device: torch.device | str) -> Standard:
        """The same on another device."""
        return Standard(**{name: value.to(device) for name, value in asdict(self).items()})

    def regions(self, raw: Tensor) -> Tensor:
        """Standardised features of boxes, (..., region size), a new tensor."""
        return (raw - self.region_mean).div_(self.region_scale)

    def images(self, raw: Tensor) -> Tensor:
        """Standardised features of images, (..., image size), a new tensor."""
        return (raw - self.image_mean).div_(self.image_scale)
