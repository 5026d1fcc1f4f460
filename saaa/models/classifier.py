"""The EGDD image classifier: any timm network, plus everything needed to feed it and to name its outputs."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import timm
import torch
from torch import Tensor, nn

from saaa.errors import ArchiveError, OptionInvalid
from saaa.models.preprocessing import Preprocessing, check_pixels, described
from saaa.work import ModelKind

if TYPE_CHECKING:
    from saaa.archive import Archive

OptionValue = int | float | str | bool
TAKEN = frozenset(
    # Arguments of timm.create_model that have a field of their own, fetch or read files, or change what the network is.
    "model_name num_classes in_chans img_size drop_path_rate features_only out_indices pretrained pretrained_cfg "
    "pretrained_cfg_overlay pretrained_strict checkpoint_path cache_dir scriptable exportable no_jit".split()
)


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig(Preprocessing):
    """Everything that defines a classifier but its weights.

    Raises:
        OptionInvalid: an option is outside its range, or the architecture is unknown to timm.
    """

    architecture: str
    """Name of a timm model, such as "tf_efficientnet_lite0" or "vit_tiny_patch16_224"."""
    classes: tuple[str, ...]
    """Class names in the order of the network's outputs; at least 2, all different."""
    options: Mapping[str, OptionValue] = field(default_factory=dict)
    """Arguments of the timm model beside its name, such as global_pool="avg", class_token=False, patch_size=8."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_architecture(self.architecture)
        if len(self.classes) < 2 or len(set(self.classes)) != len(self.classes):
            raise OptionInvalid(
                f"A classifier needs at least 2 classes with different names, not {list(self.classes)}.",
                field="classes",
            )
        for name, value in self.options.items():
            if name in TAKEN:
                raise OptionInvalid(f"{name} cannot be set as an option of the model.", field=f"options.{name}")
            if not isinstance(value, OptionValue):
                raise OptionInvalid(
                    f"{name} is {value!r}; an option is a number, a word, true or false.", field=f"options.{name}"
                )


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
        OptionInvalid: the network does not know an option, or cannot be built with these or at this input size.
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
        check_pixels(pixels, self.config.input_size)
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
                "architecture": {"model": config.architecture, "options": dict(config.options)},
                "preprocessing": config.describe(),
                "classes": list(config.classes),
                "methods": [
                    {
                        "name": m.name,
                        "cost_forwards": m.cost_forwards,
                        "reference": m.reference,
                        "targets": [kind.value for kind in m.targets],
                    }
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
            architecture = archive.config["architecture"]
            config = ClassifierConfig(
                architecture=architecture["model"],
                classes=tuple(archive.config["classes"]),
                options=dict(architecture.get("options", {})),  # older archives have none
                **described(archive.config["preprocessing"]),
            )
            classifier = cls(config)
            # A copy: arrays read from a file may not be writable.
            state = {key: torch.from_numpy(value.copy()) for key, value in archive.tensors.items()}
            classifier.net.load_state_dict(state)
        except (KeyError, TypeError, ValueError, RuntimeError, OptionInvalid) as error:
            raise ArchiveError(f"Archive {archive.name!r} does not describe a usable classifier: {error}") from error
        return classifier.eval().requires_grad_(False)


def _build(config: ClassifierConfig, drop_path: float) -> nn.Module:
    """Make the timm network; transformers are told the input size, convolutional networks take any."""
    # Which of the first two a network takes is known only to its constructor.
    arguments: dict[str, Any] = {"img_size": config.input_size, "drop_path_rate": drop_path, **config.options}
    while True:
        try:
            return timm.create_model(
                config.architecture, pretrained=False, num_classes=len(config.classes), **arguments
            )
        except TypeError as error:
            refused = re.search(r"argument '(\w+)'", str(error))
            name = refused[1] if refused else ""
            if name not in arguments:
                raise _unbuildable(config, error) from error
            if name in config.options:
                raise OptionInvalid(
                    f"{config.architecture} has no option {name!r}; leave it out.", field=f"options.{name}"
                ) from error
            del arguments[name]
        except (AssertionError, ValueError, RuntimeError, ArithmeticError, LookupError, AttributeError) as error:
            raise _unbuildable(config, error) from error


def _unbuildable(config: ClassifierConfig, error: Exception) -> OptionInvalid:
    with_options = f" with {dict(config.options)}" if config.options else ""
    return OptionInvalid(
        f"{config.architecture} cannot be built for an input of {config.input_size} pixels{with_options}: {error}",
        field="options" if config.options else "input_size",
    )
