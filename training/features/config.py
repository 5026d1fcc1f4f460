"""Options of `saaa-train features`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from training.ega.config import check_backbone
from training.options import check


@dataclass(frozen=True, kw_only=True)
class FeaturesConfig:
    """How to make features of images and of the regions in them.

    Raises:
        OptionInvalid: an option is outside its range, or two contradict each other.
    """

    data_path: Path
    """Folder with annotations/ (region files and splits) and, anywhere below it, the images."""
    output_dir: Path
    """Folder for MP/ and SA/; new, or that of the same run, which then goes on."""
    annotations: Path | None = None
    """Default: data_path/annotations."""
    images: Path | None = None
    """Folder below which the images lie; default: data_path."""
    splits: tuple[str, ...] = ()
    """Only these, such as trn val; default: all."""

    model: str = "tf_efficientnet_lite0"
    """Backbone: any timm model that gives feature maps."""
    pretrained: Literal["none", "efficientnet_lite0"] = "efficientnet_lite0"
    """The backbone's weights; "efficientnet_lite0" are ImageNet weights from a Python package."""
    backbone_archive: Path | None = None
    """Take the backbone (architecture, weights, preprocessing) from this EGDD archive instead; pretrained is "none"."""
    levels: tuple[int, ...] = (2, 3, 4)
    """Which of the backbone's feature maps, in timm's numbering."""
    grid: int = 2
    """Cells a side into which each box is pooled."""
    input_size: int = 160
    """Width and height of the model's input in pixels."""
    resize: Literal["squash", "crop"] = "squash"
    """How an image becomes the input; "crop" loses what lies outside the centre."""
    crop_fraction: float = 1.0
    """For resize=crop: input_size / length of the shorter side after resizing."""

    batch_size: int = 32
    """Images computed together."""
    workers: int = 2
    """Threads that read and decode images ahead."""
    device: str = "auto"
    """A torch device, such as cuda; "auto" is cuda where there is one."""
    threads: int | None = None
    """Threads of torch on the CPU; default: torch's choice."""
    overwrite: bool = False
    """Make anew what another backbone made in this folder."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "workers", "threads"):
            check(name, getattr(self, name), at_least=1)
        check_backbone(self.model, self.pretrained, self.backbone_archive)
