"""Options of the EGDD jobs. The names are those of MAE's fine-tuning script wherever it has the option."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from saaa.errors import OptionInvalid
from training.options import check


@dataclass(frozen=True, kw_only=True)
class EgddConfig:
    """How to train a classifier.

    Raises:
        OptionInvalid: an option is outside its range.
    """

    data_path: Path
    """Folder with train/<class>/ and, if you have one, val/<class>/ (else part of train/ is held out)."""
    output_dir: Path = Path("output_dir")
    """Where checkpoints, metrics.json and skipped.txt go."""
    log_dir: Path | None = None
    """Where TensorBoard's files go; default: output_dir."""
    model: str = "tf_efficientnet_lite0"
    """Any timm model name."""
    pretrained: Literal["none", "efficientnet_lite0"] = "none"
    """Start from these weights; "efficientnet_lite0" are ImageNet weights from a Python package."""
    input_size: int = 224
    """Width and height of the model's input in pixels."""
    resize: Literal["squash", "crop"] = "squash"
    """How an image becomes the input outside training: squashed to a square, or its centre cropped."""
    crop_fraction: float = 1.0
    """For resize=crop: input_size / length of the shorter side after resizing."""

    batch_size: int = 64
    epochs: int = 50
    warmup_epochs: float = 5
    """Linear warm-up from 0; the rest is a cosine."""
    lr: float | None = None
    """Peak learning rate; default: blr * batch_size / 256."""
    blr: float = 1e-3
    """Base learning rate, for 256 images a step."""
    min_lr: float = 1e-6
    """Learning rate at the end of the cosine."""
    weight_decay: float = 0.05
    """AdamW's; never on biases and norms."""
    layer_decay: float = 0.75
    """Learning rate of a layer = learning rate of the next one * this; 1 is no decay."""
    freeze_below: float = 0.0
    """Layers whose learning rate is scaled below this are not trained at all, which saves their time."""
    clip_grad: float | None = None
    """Largest norm of the gradient; default: no clipping."""
    drop_path: float = 0.1
    """Stochastic depth."""
    ema: float = 0.0
    """Decay of the moving average of the weights; above 0 the average is what is evaluated and served."""

    smoothing: float = 0.1
    """Label smoothing."""
    mixup: float = 0.0
    """Mixup's alpha; 0 is off."""
    cutmix: float = 0.0
    """CutMix's alpha; 0 is off."""
    mixup_prob: float = 1.0
    """How often a batch is mixed."""
    mixup_switch_prob: float = 0.5
    """How often CutMix is taken when both are on."""
    mixup_mode: Literal["batch", "pair", "elem"] = "batch"
    color_jitter: float | None = None
    """Only without aa."""
    aa: str = "rand-m9-mstd0.5-inc1"
    """timm's auto-augment policy; "none" is off."""
    reprob: float = 0.25
    """How often a rectangle is erased."""
    remode: Literal["const", "rand", "pixel"] = "pixel"
    recount: int = 1
    """Rectangles erased."""
    min_crop: float = 0.08
    """Smallest share of the image's area that a random crop takes."""
    hflip: float = 0.5
    """How often an image is mirrored."""

    val_fraction: float = 0.2
    """Share of each class held out when there is no val/ folder."""
    seed: int = 0
    resume: Path | None = None
    """Continue from this checkpoint, output_dir/last.pt as a rule."""
    device: str = "cpu"
    """A torch device, such as cuda."""
    num_workers: int = 0
    """Processes that decode and augment; 0 does it in the training process."""
    threads: int | None = None
    """Threads of torch on the CPU; default: torch's choice."""
    cache_mb: int = 1024
    """Memory for decoded images; beyond it they are decoded every epoch."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "epochs", "recount"):
            check(name, getattr(self, name), at_least=1)
        for name in (
            "warmup_epochs",
            "min_lr",
            "weight_decay",
            "mixup",
            "cutmix",
            "num_workers",
            "cache_mb",
            "seed",
        ):
            check(name, getattr(self, name), at_least=0)
        for name in ("mixup_prob", "mixup_switch_prob", "reprob", "hflip", "freeze_below"):
            check(name, getattr(self, name), at_least=0, at_most=1)
        for name in ("smoothing", "drop_path", "ema"):
            check(name, getattr(self, name), at_least=0, below=1)
        for name in ("layer_decay", "min_crop", "crop_fraction"):
            check(name, getattr(self, name), above=0, at_most=1)
        for name in ("lr", "blr", "clip_grad", "threads"):
            check(name, getattr(self, name), above=0)
        check("val_fraction", self.val_fraction, above=0, below=1)
        check("input_size", self.input_size, at_least=16, at_most=1024)
        if self.warmup_epochs >= self.epochs:
            raise OptionInvalid(
                f"warmup_epochs is {self.warmup_epochs:g}; it must be less than epochs ({self.epochs}).",
                field="warmup_epochs",
            )
        if self.pretrained == "efficientnet_lite0" and self.model != "tf_efficientnet_lite0":
            raise OptionInvalid(
                f"The weights efficientnet_lite0 belong to tf_efficientnet_lite0, not to {self.model}.",
                field="pretrained",
            )

    @property
    def peak_lr(self) -> float:
        """The learning rate after warm-up."""
        return self.lr if self.lr is not None else self.blr * self.batch_size / 256


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """How to measure a classifier.

    Raises:
        OptionInvalid: not exactly one of archive and checkpoint, or an option outside its range.
    """

    data_path: Path
    """Folder with one folder of images a class; the classes must be among the model's."""
    archive: Path | None = None
    """The archive to measure; or give checkpoint."""
    checkpoint: Path | None = None
    """The checkpoint to measure; or give archive."""
    output: Path | None = None
    """Where the JSON goes; default: only the summary is printed."""
    batch_size: int = 32
    device: str = "cpu"
    threads: int | None = None
    """Threads of torch on the CPU; default: torch's choice."""

    def __post_init__(self) -> None:
        if (self.archive is None) == (self.checkpoint is None):
            raise OptionInvalid("Give either --archive FILE.mar or --checkpoint FILE.", field="archive")
        check("batch_size", self.batch_size, at_least=1)
        check("threads", self.threads, above=0)


@dataclass(frozen=True, kw_only=True)
class ArchiveConfig:
    """How to make an archive.

    Raises:
        OptionInvalid: an option is outside its range.
    """

    checkpoint: Path
    """A checkpoint of `saaa-train egdd`: last.pt (the last epoch) or best.pt (the best on val)."""
    output: Path
    """The .mar file to write."""
    name: str = "egdd"
    """Name under which the model is served."""
    version: str = "1.0"
    """Version under which the model is served."""
    data_path: Path | None = None
    """The data it was trained on, to measure faithfulness on its val/; default: where training found it."""
    faithfulness_images: int = 64
    """Validation images for the faithfulness figure; 0 leaves it out."""

    def __post_init__(self) -> None:
        check("faithfulness_images", self.faithfulness_images, at_least=0)
