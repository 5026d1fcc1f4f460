"""The EGDD image classifier: any timm network, plus everything needed to feed it and to name its outputs."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import timm
import torch
from torch import Tensor, nn

from saaa.errors import ArchiveError, OptionInvalid
from saaa.work import ModelKind

if TYPE_CHECKING:
    from saaa.archive import Archive

RESIZE_MODES = ("squash", "crop")
MIN_INPUT_SIZE, MAX_INPUT_SIZE = 16, 1024


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig:
    """Everything that defines a classifier but its weights.

    Raises:
        OptionInvalid: an option is outside its range, or the architecture is unknown to timm.
    """

    architecture: str
    """Name of a timm model, such as "tf_efficientnet_lite0" or "vit_tiny_patch16_224"."""
    classes: tuple[str, ...]
    """Class names in the order of the network's outputs; at least 2, all different."""
    input_size: int
    """Width and height of the input in pixels, 16 to 1024."""
    resize: str = "squash"
    """How an image becomes the input: a mode of `saaa.images.fit`."""
    crop_fraction: float = 1.0
    """For "crop": input_size / length of the shorter side after resizing, in (0, 1]."""
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    """Subtracted from each channel of an image in [0, 1]; also what a "neutral" pixel is for attribution."""
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    """Each channel is divided by this; positive."""

    def __post_init__(self) -> None:
        check_architecture(self.architecture)
        if len(self.classes) < 2 or len(set(self.classes)) != len(self.classes):
            raise OptionInvalid(
                f"A classifier needs at least 2 classes with different names, not {list(self.classes)}.",
                field="classes",
            )
        if not MIN_INPUT_SIZE <= self.input_size <= MAX_INPUT_SIZE:
            raise OptionInvalid(
                f"input_size is {self.input_size}; choose {MIN_INPUT_SIZE} to {MAX_INPUT_SIZE} pixels.",
                field="input_size",
            )
        if self.resize not in RESIZE_MODES:
            raise OptionInvalid(f"resize is {self.resize!r}; choose one of {RESIZE_MODES}.", field="resize")
        if not 0 < self.crop_fraction <= 1:
            raise OptionInvalid(
                f"crop_fraction is {self.crop_fraction}; choose a number above 0 and at most 1.",
                field="crop_fraction",
            )
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise OptionInvalid("mean and std need 3 numbers each, and those of std must be positive.", field="std")


def check_architecture(name: str) -> None:
    """Refuse a model name that timm does not know, naming the closest ones it does.

    Raises:
        OptionInvalid: timm has no such model.
    """
    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.5)
        hint = f"Did you mean {', '.join(close)}?" if close else "`timm.list_models()` lists them."
        raise OptionInvalid(f"timm has no model {name!r}. {hint}", field="model")


class Classifier(nn.Module):
    """A timm network with its preprocessing and class names.

    Args:
        config: what to build. The weights are freshly initialised from torch's random state; nothing is
            downloaded.
        drop_path: rate of stochastic depth while training, in [0, 1).

    Raises:
        OptionInvalid: the network cannot be built at this input size or drop-path rate.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: ClassifierConfig, *, drop_path: float = 0.0) -> None:
        super().__init__()
        self.config = config
        self.net = _build(config, drop_path)
        self.register_buffer("mean", torch.tensor(config.mean).view(1, 3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(config.std).view(1, 3, 1, 1) * 255, persistent=False)

    def preprocess(self, pixels: Tensor) -> Tensor:
        """Turn pixels into the network's input.

        Args:
            pixels: uint8, (B, S, S, 3), RGB, S = config.input_size, as `saaa.images.fit` makes them.

        Returns:
            float32, (B, 3, S, S), normalised, channels last in memory (which the convolutions like).

        Raises:
            OptionInvalid: another shape or type.
        """
        size = self.config.input_size
        if pixels.dtype != torch.uint8 or pixels.ndim != 4 or tuple(pixels.shape[1:]) != (size, size, 3):
            raise OptionInvalid(
                f"The model takes uint8 pixels of shape (images, {size}, {size}, 3), "
                f"not {pixels.dtype} of shape {tuple(pixels.shape)}.",
                field="pixels",
            )
        return self.normalise(pixels.permute(0, 3, 1, 2))

    def normalise(self, images: Tensor) -> Tensor:
        """Scale (B, 3, height, width) values of 0 to 255 to the network's input range; float32 out."""
        return (images.to(self.mean.dtype) - self.mean) / self.std

    def forward(self, inputs: Tensor) -> Tensor:
        """Give the logits, (B, classes), of preprocessed inputs, (B, 3, S, S)."""
        return cast(Tensor, self.net(inputs))

    def to_archive(self, name: str, version: str, card: Mapping[str, Any]) -> Archive:
        """Put the classifier into an archive, ready for `saaa.archive.write`.

        Args:
            name, version: how the model will be served.
            card: the model card: data, digest, metrics, recipe (JSON values).
        """
        from saaa.archive import Archive
        from saaa.attribution import methods_for

        config = self.config
        return Archive(
            kind=ModelKind.EGDD,
            name=name,
            version=version,
            config={
                "architecture": {"model": config.architecture},
                "preprocessing": {
                    "input_size": config.input_size,
                    "resize": config.resize,
                    "crop_fraction": config.crop_fraction,
                    "mean": list(config.mean),
                    "std": list(config.std),
                },
                "classes": list(config.classes),
                "methods": [
                    {"name": m.name, "cost_forwards": m.cost_forwards, "reference": m.reference}
                    for m in methods_for(self)
                ],
            },
            card=dict(card),
            tensors={key: value.detach().cpu().contiguous().numpy() for key, value in self.net.state_dict().items()},
        )

    @classmethod
    def from_archive(cls, archive: Archive) -> Classifier:
        """Build the classifier of an archive, frozen and in evaluation mode.

        Raises:
            ArchiveError: the archive holds another kind of model, lacks a setting, or its weights do not fit.
        """
        if archive.kind is not ModelKind.EGDD:
            raise ArchiveError(f"Archive {archive.name!r} holds a model of kind {archive.kind.value}, not egdd.")
        try:
            before = archive.config["preprocessing"]
            config = ClassifierConfig(
                architecture=archive.config["architecture"]["model"],
                classes=tuple(archive.config["classes"]),
                input_size=before["input_size"],
                resize=before["resize"],
                crop_fraction=before["crop_fraction"],
                mean=tuple(before["mean"]),
                std=tuple(before["std"]),
            )
            classifier = cls(config)
            # A copy: arrays read from a file may not be writable.
            state = {key: torch.from_numpy(value.copy()) for key, value in archive.tensors.items()}
            classifier.net.load_state_dict(state)
        except (KeyError, TypeError, RuntimeError, OptionInvalid) as error:
            raise ArchiveError(f"Archive {archive.name!r} does not describe a usable classifier: {error}") from error
        return classifier.eval().requires_grad_(False)


def _build(config: ClassifierConfig, drop_path: float) -> nn.Module:
    """Make the timm network; transformers are told the input size, convolutional networks take any."""
    options: dict[str, Any] = {"num_classes": len(config.classes), "drop_path_rate": drop_path}
    # Which of the two optional arguments a network takes is known only to its constructor.
    attempts = [
        {**options, "img_size": config.input_size},
        options,
        {"num_classes": options["num_classes"]},
    ]
    failure: Exception | None = None
    for arguments in attempts:
        try:
            return timm.create_model(config.architecture, pretrained=False, **arguments)
        except TypeError as error:
            failure = error
        except (AssertionError, ValueError, RuntimeError) as error:
            failure = error
            break
    raise OptionInvalid(
        f"{config.architecture} cannot be built for an input of {config.input_size} pixels: {failure}",
        field="input_size",
    ) from failure
