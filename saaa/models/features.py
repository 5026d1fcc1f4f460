"""Region and image features from a timm backbone: what the captioner sees of a picture.

The published features come from an external detector and a ResNet-101. Here one backbone makes both:
RoIAlign (He et al., "Mask R-CNN", ICCV 2017) over several of its levels for each node's box, and the levels'
means for the image.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torchvision.ops import roi_align  # type: ignore[import-untyped]

from saaa.errors import ArchiveError, OptionInvalid
from saaa.models.classifier import check_architecture
from saaa.models.preprocessing import Preprocessing, check_pixels, described

FREQUENCIES = 4
"""Sine and cosine pairs for each side of a box."""
GEOMETRY_SIZE = 4 * 2 * FREQUENCIES
SAMPLES = 2
"""Bilinear samples a cell and axis of RoIAlign."""


@dataclass(frozen=True, kw_only=True)
class FeatureConfig(Preprocessing):
    """What makes the features.

    Raises:
        OptionInvalid: an option is outside its range, or the architecture is unknown to timm.
    """

    architecture: str = "tf_efficientnet_lite0"
    """Name of a timm model that gives feature maps."""
    levels: tuple[int, ...] = (2, 3, 4)
    """Which of its maps, in timm's numbering; for EfficientNet strides 8, 16 and 32."""
    grid: int = 2
    """Cells a side into which a box is pooled; more than 1 keeps where in the box something is."""
    geometry: bool = True
    """Whether a box's feature also says where the box lies; published features do not."""
    input_size: int = 160
    """Width and height of the input in pixels, 16 to 1024."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_architecture(self.architecture)
        if not self.levels or min(self.levels) < 0 or list(self.levels) != sorted(set(self.levels)):
            raise OptionInvalid(
                f"levels is {self.levels}; name one or more maps of the backbone in ascending order.",
                field="levels",
            )
        if not 1 <= self.grid <= 7:
            raise OptionInvalid(f"grid is {self.grid}; choose 1 to 7 cells a side.", field="grid")


def box_geometry(boxes: Tensor, size: int) -> Tensor:
    """Where boxes lie, as sines and cosines: (K, 32) from (K, 4) left, top, right, bottom in pixels of an
    input of `size` pixels a side."""
    rates = math.pi / 2 * 2.0 ** torch.arange(FREQUENCIES, device=boxes.device, dtype=boxes.dtype)
    angles = (boxes / size)[..., None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(1)


class FeatureExtractor(nn.Module):
    """Features of boxes and of the whole image; frozen.

    They are standardised with the mean and scale of the training set (`standardise_by`), because the levels'
    values differ in size by an order of magnitude.
    """

    mean: Tensor
    std: Tensor
    region_mean: Tensor
    region_scale: Tensor
    image_mean: Tensor
    image_scale: Tensor

    def __init__(self, config: FeatureConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = _build(config)
        channels = sum(self.backbone.feature_info.channels())
        self.image_size = channels
        """Length of an image's feature."""
        self.region_size = channels * config.grid**2 + (GEOMETRY_SIZE if config.geometry else 0)
        """Length of a box's feature."""
        self.register_buffer("mean", torch.tensor(config.mean).view(1, 3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(config.std).view(1, 3, 1, 1) * 255, persistent=False)
        for name, size in (("region", self.region_size), ("image", self.image_size)):
            self.register_buffer(f"{name}_mean", torch.zeros(size))
            self.register_buffer(f"{name}_scale", torch.ones(size))
        self.eval().requires_grad_(False)

    def load_backbone(self, weights: Mapping[str, Tensor]) -> None:
        """Take the backbone's weights from those of a timm classifier of the same architecture.

        Raises:
            ArchiveError: a weight that the backbone needs is missing or has another shape.
        """
        own = self.backbone.state_dict()
        # timm wraps some backbones, so that their names are those of the classifier behind a prefix.
        names = {name: name.removeprefix("model.") for name in own}
        if missing := [name for name in names.values() if name not in weights]:
            raise ArchiveError(
                f"The weights do not fit {self.config.architecture}: {missing[0]} is missing (with "
                f"{len(missing) - 1} more). Name the architecture that the weights were trained for."
            )
        try:
            self.backbone.load_state_dict({name: weights[there] for name, there in names.items()})
        except RuntimeError as error:
            raise ArchiveError(f"The weights do not fit {self.config.architecture}: {error}") from error

    @torch.no_grad()
    def forward(self, pixels: Tensor, boxes: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Standardised features, without a graph.

        Args:
            pixels: uint8 (B, S, S, 3), RGB, S = config.input_size, as `saaa.images.fit` makes them.
            boxes: for each image (n, 4) left, top, right, bottom in pixels of the input.

        Returns:
            regions (total number of boxes, region_size), in order of images, and images (B, image_size);
            float32.

        Raises:
            OptionInvalid: pixels of another shape or type.
        """
        return self.pool(self.backbone(self.normalise(pixels)), boxes)

    def normalise(self, pixels: Tensor) -> Tensor:
        """The backbone's input (B, 3, S, S) of pixels as `forward` takes them; 0 is the mean colour.

        Raises:
            OptionInvalid: pixels of another shape or type.
        """
        check_pixels(pixels, self.config.input_size)
        return (pixels.permute(0, 3, 1, 2).to(self.mean.dtype) - self.mean) / self.std

    def pool(self, levels: Sequence[Tensor], boxes: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Standardised features, as `forward` gives them, from the backbone's maps; differentiable.

        Args:
            levels: one map a level, (B, channels, rows, columns).
            boxes: as for `forward`.
        """
        size = self.config.input_size
        boxes = [b.to(levels[0]) for b in boxes]
        pooled = [
            roi_align(level.contiguous(), boxes, self.config.grid, level.shape[-1] / size, SAMPLES, True).flatten(1)
            for level in levels
        ]
        places = [box_geometry(torch.cat(boxes), size)] if self.config.geometry else []
        regions = torch.cat([*pooled, *places], dim=1)
        image = torch.cat([level.mean((2, 3)) for level in levels], dim=1)
        return (
            (regions - self.region_mean) / self.region_scale,
            (image - self.image_mean) / self.image_scale,
        )

    def shares(self, levels: Sequence[Tensor], boxes: Tensor, regions: Tensor, image: Tensor) -> list[Tensor]:
        """Gradient x (activation - mean) of some targets in one image, at the cells of the backbone's maps.

        What `pool` makes is linear in the maps but for the boxes' geometry, so this is exact: a target's shares sum to
        gradient x feature, over all regions and the image, without the geometry.

        Args:
            levels: of one image, (channels, rows, columns) each.
            boxes: (n, 4), inside the input.
            regions: (T, n, region_size), each target's gradient with respect to the standardised region features.
            image: (T, image_size), the same for the image's feature.

        Returns:
            One map a level, (T, rows, columns).
        """
        grid, size = self.config.grid, self.config.input_size
        channels = [len(level) for level in levels]
        cells = [count * grid**2 for count in channels]
        pooled = sum(cells)  # the geometry comes after
        parts = torch.split((regions / self.region_scale)[..., :pooled], cells, dim=-1)
        neutral = torch.split(self.region_mean[:pooled], cells)
        wholes = torch.split(image / self.image_scale, channels, dim=1)
        averages = torch.split(self.image_mean, channels)
        maps = []
        for level, part, mean, whole, average in zip(levels, parts, neutral, wholes, averages, strict=True):
            part, mean = (values.reshape(*values.shape[:-1], len(level), grid, grid) for values in (part, mean))
            down, across = _pooling_weights(level.shape[-2:], boxes.to(level), grid, size)
            shares = torch.einsum("tncij,cyx->tnijyx", part, level)
            shares = shares - torch.einsum("tncij,cij->tnij", part, mean)[..., None, None]
            shares = shares * down[:, :, None, :, None] * across[:, None, :, None, :]
            everywhere = torch.einsum("tc,cyx->tyx", whole, level - average[:, None, None]) / level[0].numel()
            maps.append(shares.sum((1, 2, 3)) + everywhere)
        return maps

    def standardise_by(self, regions: Tensor, image: Tensor) -> None:
        """From now on give features whose mean is 0 and deviation 1 over these.

        Args:
            regions: (K, region_size), as this extractor gave them so far.
            image: (B, image_size), alike.
        """
        for name, values in (("region", regions), ("image", image)):
            mean, scale = getattr(self, f"{name}_mean"), getattr(self, f"{name}_scale")
            deviation, average = torch.std_mean(values.float(), dim=0, correction=0)
            mean += average * scale
            scale *= scale_of(deviation)

    def describe(self) -> dict[str, Any]:
        """The parts of an archive's config.json: architecture and preprocessing."""
        c = self.config
        return {
            "architecture": {
                "model": c.architecture,
                "levels": list(c.levels),
                "grid": c.grid,
                "geometry": c.geometry,
            },
            "preprocessing": c.describe(),
        }

    @classmethod
    def described(cls, config: Mapping[str, Any]) -> FeatureExtractor:
        """Build from what `describe` gave; raises KeyError, TypeError or OptionInvalid where that is
        wrong."""
        backbone = config["architecture"]
        return cls(
            FeatureConfig(
                architecture=backbone["model"],
                levels=tuple(backbone["levels"]),
                grid=backbone["grid"],
                geometry=backbone.get("geometry", True),
                **described(config["preprocessing"]),
            )
        )


def scale_of(deviation: Tensor) -> Tensor:
    """What features of such a standard deviation are divided by."""
    # A feature that never changes says nothing; leave it at zero instead of blowing up its noise.
    return torch.where(deviation > 1e-4, deviation, 1.0)


def _pooling_weights(shape: Sequence[int], boxes: Tensor, grid: int, size: int) -> tuple[Tensor, Tensor]:
    """What RoIAlign takes of each row and of each column of a map for the cells of boxes inside it.

    Returns:
        (n, grid, rows) and (n, grid, columns); the weight of a map's cell is the product of its row's and its column's.
    """
    # RoIAlign samples an even grid of points and interpolates each bilinearly: it works on rows and columns apart, so
    # maps that are 1 in a single row, or column, tell its weights.
    height, width = shape
    rows, columns = (torch.eye(count, dtype=boxes.dtype, device=boxes.device) for count in shape)
    down, across = (
        roi_align(lit[None].contiguous(), [boxes], grid, width / size, SAMPLES, True)
        for lit in (rows[:, :, None].expand(-1, -1, width), columns[:, None].expand(-1, height, -1))
    )
    return down[..., 0].transpose(1, 2), across[..., 0, :].transpose(1, 2)


def _build(config: FeatureConfig) -> Any:
    """The timm backbone; transformers are told the input size, convolutional networks take any."""
    attempts: list[dict[str, Any]] = [{"img_size": config.input_size}, {}]
    failure: Exception | None = None
    for options in attempts:
        try:
            return timm.create_model(config.architecture, features_only=True, out_indices=config.levels, **options)
        except TypeError as error:
            failure = error
        except Exception as error:  # timm has no common error for a network without such maps
            failure = error
            break
    raise OptionInvalid(
        f"{config.architecture} gives no feature maps {config.levels} for an input of "
        f"{config.input_size} pixels: {failure}",
        field="architecture",
    ) from failure
