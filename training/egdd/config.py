"""Options of the EGDD jobs. The names are those of MAE's fine-tuning script wherever it has the option, and so are the
defaults, as published with EGDD; where one differs, its description says why.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from saaa.errors import OptionInvalid
from training.options import check

Metric = Literal["accuracy", "top5", "loss", "ece"]
"""What may choose the best checkpoint: the first two are better when larger, the others when smaller."""
LARGER_IS_BETTER = frozenset({"accuracy", "top5"})


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """Where images come from and how they are read."""

    data_path: Path = Path("data")
    """Folder with train/ and, if you have one, val/ (else part of train/ is held out). Each holds a folder of images a
    class, or WebDataset shards (*.tar)."""
    extra_data: tuple[Path, ...] = ()
    """Folders of class folders or shards, of classes of train/, whose images are trained on, too: a debug set."""
    epoch_images: int | None = None
    """Images of an epoch, at most: the first of its shuffle; default: all. With the size of train/ a run with
    --extra_data takes as many steps as one without."""
    nb_classes: int | None = None
    """Number of classes, checked against the data; default: what the data have (the published 12 is its data's)."""
    val_fraction: float = 0.2
    """Share of each class held out when there is no val/."""
    num_workers: int = 10
    """Processes that decode and augment, at most one a core; 0 does it in the training process."""
    pin_mem: bool = True
    """Page-locked host memory for faster copies to a GPU."""
    cache_mb: int = 1024
    """Memory for decoded images; beyond it they are decoded every epoch."""

    def check_data(self) -> None:
        check("epoch_images", self.epoch_images, at_least=1)
        check("nb_classes", self.nb_classes, at_least=2)
        check("val_fraction", self.val_fraction, above=0, below=1)
        check("num_workers", self.num_workers, at_least=0)
        check("cache_mb", self.cache_mb, at_least=0)


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """The network, its input, and the weights it starts from."""

    model: str = "vit_base_patch16"
    """vit_base_patch16, vit_large_patch16 or vit_huge_patch14 as MAE builds them, or any timm model name."""
    global_pool: bool = False
    """MAE's names only: the head sees the mean of the patch tokens instead of the class token."""
    cls_token: bool = False
    """The opposite of --global_pool, which is the default; for command lines that say so."""
    input_size: int = 224
    """Width and height of the model's input in pixels."""
    resize: Literal["squash", "crop"] = "crop"
    """How an image becomes the input outside training: squashed to a square, or its centre cropped."""
    crop_fraction: float | None = None
    """For resize=crop: input_size / length of the shorter side after resizing; default: 224 / 256, 1 above 224."""
    finetune: Path | None = None
    """Start from these weights: an MAE or timm checkpoint, one of ours, or an archive (.mar)."""
    pretrained: Literal["none", "efficientnet_lite0"] = "none"
    """Start from these weights; "efficientnet_lite0" are ImageNet weights from a Python package."""
    drop_path: float = 0.1
    """Stochastic depth."""

    def check_model(self) -> None:
        check("input_size", self.input_size, at_least=16, at_most=1024)
        check("crop_fraction", self.crop_fraction, above=0, at_most=1)
        check("drop_path", self.drop_path, at_least=0, below=1)
        if self.global_pool and self.cls_token:
            raise OptionInvalid("--global_pool and --cls_token exclude each other; give one.", field="cls_token")
        if self.finetune is not None and self.pretrained != "none":
            raise OptionInvalid("--finetune and --pretrained both name initial weights; give one.", field="finetune")
        if self.pretrained == "efficientnet_lite0" and self.model != "tf_efficientnet_lite0":
            raise OptionInvalid(
                f"The weights efficientnet_lite0 belong to --model tf_efficientnet_lite0, not to {self.model}.",
                field="pretrained",
            )

    @property
    def evaluation_crop(self) -> float:
        """The crop fraction in use: MAE resizes to 256 and crops 224, and crops nothing from larger inputs."""
        if self.crop_fraction is not None:
            return self.crop_fraction
        return 224 / 256 if self.input_size <= 224 else 1.0


@dataclass(frozen=True, kw_only=True)
class OptimiserOptions:
    """AdamW with layer-wise learning rates, warm-up and a cosine."""

    batch_size: int = 64
    """Images of one forward on one process. A step takes batch_size * accum_iter * processes."""
    accum_iter: int = 1
    """Forwards whose gradients make one step. The last step of an epoch may have fewer; none is thrown away."""
    epochs: int = 100
    warmup_epochs: float = 5
    """Linear warm-up from 0; the rest is a cosine."""
    lr: float | None = None
    """Peak learning rate; default: blr * images of a step / 256."""
    blr: float = 1e-3
    """Base learning rate, for 256 images a step."""
    min_lr: float = 1e-6
    """Learning rate at the end of the cosine."""
    weight_decay: float = 0.05
    """AdamW's; never on biases, norms, class token and position embedding."""
    layer_decay: float = 0.75
    """Learning rate of a layer = learning rate of the next one * this; 1 is no decay."""
    freeze_below: float = 0.0
    """Layers whose learning rate is scaled below this are not trained at all, which saves their time."""
    clip_grad: float | None = None
    """Largest norm of the gradient; default: no clipping."""
    ema: float = 0.0
    """Decay of the moving average of the weights; above 0 the average is what is evaluated and served."""

    def check_optimiser(self) -> None:
        for name in ("batch_size", "accum_iter", "epochs"):
            check(name, getattr(self, name), at_least=1)
        for name in ("warmup_epochs", "min_lr", "weight_decay"):
            check(name, getattr(self, name), at_least=0)
        for name in ("lr", "blr", "clip_grad"):
            check(name, getattr(self, name), above=0)
        check("layer_decay", self.layer_decay, above=0, at_most=1)
        check("freeze_below", self.freeze_below, at_least=0, at_most=1)
        check("ema", self.ema, at_least=0, below=1)
        check(
            "warmup_epochs",
            self.warmup_epochs,
            below=self.epochs,
            hint=f"it must end before the {self.epochs} epochs do",
        )

    def peak_lr(self, processes: int) -> float:
        """The learning rate after warm-up, of a run on that many processes."""
        return self.lr if self.lr is not None else self.blr * self.batch_size * self.accum_iter * processes / 256


@dataclass(frozen=True, kw_only=True)
class AugmentationOptions:
    """What happens to training images."""

    min_crop: float = 0.08
    """Smallest share of the image's area that a random crop takes."""
    hflip: float = 0.5
    """How often an image is mirrored."""
    color_jitter: float | None = None
    """Only without aa."""
    aa: str = "rand-m9-mstd0.5-inc1"
    """timm's auto-augment policy; "none" is off."""
    smoothing: float = 0.1
    """Label smoothing."""
    reprob: float = 0.25
    """How often a rectangle is erased."""
    remode: Literal["const", "rand", "pixel"] = "pixel"
    recount: int = 1
    """Rectangles erased."""
    resplit: bool = False
    """Accepted, and without effect, as in the published script: it is for batches that hold clean copies."""
    mixup: float = 0.0
    """Mixup's alpha; 0 is off."""
    cutmix: float = 0.0
    """CutMix's alpha; 0 is off."""
    cutmix_minmax: tuple[float, float] | None = None
    """Smallest and largest side of CutMix's rectangle as a share of the image's; turns CutMix on."""
    mixup_prob: float = 1.0
    """How often a batch is mixed."""
    mixup_switch_prob: float = 0.5
    """How often CutMix is taken when both are on."""
    mixup_mode: Literal["batch", "pair", "elem"] = "batch"
    """Whether one draw mixes the whole batch, each pair of images, or each image."""

    @property
    def mixes(self) -> bool:
        """Whether batches are mixed at all."""
        return self.mixup > 0 or self.cutmix > 0 or self.cutmix_minmax is not None

    def check_augmentation(self) -> None:
        check("min_crop", self.min_crop, above=0, at_most=1)
        check("smoothing", self.smoothing, at_least=0, below=1)
        check("recount", self.recount, at_least=1)
        for name in ("mixup", "cutmix", "color_jitter"):
            check(name, getattr(self, name), at_least=0)
        for name in ("hflip", "reprob", "mixup_prob", "mixup_switch_prob"):
            check(name, getattr(self, name), at_least=0, at_most=1)
        if self.cutmix_minmax is not None and not 0 < self.cutmix_minmax[0] <= self.cutmix_minmax[1] <= 1:
            raise OptionInvalid(
                f"cutmix_minmax is {self.cutmix_minmax}; give two shares above 0 and at most 1, the smaller first.",
                field="cutmix_minmax",
            )


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Where a run happens, what it keeps, when it ends."""

    output_dir: Path = Path("output_dir")
    """Where checkpoints, config.yaml, classes.json, metrics.json and the other books go."""
    log_dir: Path | None = None
    """Where TensorBoard's files go; default: output_dir."""
    seed: int = 0
    resume: Path | None = None
    """Continue from this checkpoint, output_dir/last.pt as a rule."""
    go_on: bool = False
    """Continue from output_dir/last.pt if it is there, else begin: for jobs that are started again when they fail."""
    start_epoch: int = 0
    """Begin at this epoch (0 is the first) without --resume, as if the earlier ones were done."""
    eval: bool = False
    """Only evaluate the weights of --resume or --finetune on val."""
    dist_eval: bool = False
    """Share evaluation among the processes (each image counted once); otherwise the first one does it."""
    best_metric: Metric = "accuracy"
    """What chooses best.pt on val."""
    patience: int | None = None
    """Stop after this many epochs without a better best_metric; default: never."""
    save_minutes: float = 15.0
    """Write last.pt at least this often within an epoch, too; 0 writes it at the end of epochs only."""
    attributions_every: int = 0
    """Every so many epochs TensorBoard gets the attributions of a few validation images; 0 is never."""

    device: str = "auto"
    """A torch device; "auto" is cuda where there is one, else cpu (the published default is cuda)."""
    amp: Literal["auto", "none", "bf16", "fp16"] = "auto"
    """Automatic mixed precision; "auto" is bf16 on cuda and none elsewhere (the published script has fp16 only)."""
    compile: bool = False
    """torch.compile the network."""
    threads: int | None = None
    """Threads of torch on the CPU; default: torch's choice."""
    world_size: int = 1
    """Accepted and not read: torchrun says how many processes there are. So for the next two."""
    local_rank: int = -1
    dist_on_itp: bool = False
    dist_url: str = "env://"
    """Where the processes meet."""

    def check_run(self) -> None:
        for name in ("seed", "start_epoch", "save_minutes", "attributions_every"):
            check(name, getattr(self, name), at_least=0)
        for name in ("patience", "threads"):
            check(name, getattr(self, name), at_least=1)
        if self.go_on and self.resume is not None:
            raise OptionInvalid("--go_on and --resume both say where to continue from; give one.", field="go_on")


@dataclass(frozen=True, kw_only=True)
class EgddConfig(RunOptions, AugmentationOptions, OptimiserOptions, ModelOptions, DataOptions):
    """How to train a classifier.

    Raises:
        OptionInvalid: an option is outside its range, or two contradict each other.
    """

    def __post_init__(self) -> None:
        self.check_data()
        self.check_model()
        self.check_optimiser()
        self.check_augmentation()
        self.check_run()
        if self.mixes and self.batch_size % 2:
            raise OptionInvalid(
                f"Mixing pairs the images of a batch, so batch_size must be even; it is {self.batch_size}.",
                field="batch_size",
            )
        if self.eval and self.resume is None and self.finetune is None and self.pretrained == "none":
            raise OptionInvalid("--eval needs the weights to evaluate: --resume or --finetune.", field="eval")
        check("start_epoch", self.start_epoch, below=self.epochs)


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """How to measure a classifier.

    Raises:
        OptionInvalid: not exactly one of archive and checkpoint, or an option outside its range.
    """

    data_path: Path
    """Folder with one folder of images a class, or of WebDataset shards; the classes must be among the model's."""
    archive: Path | None = None
    """The archive to measure; or give checkpoint."""
    checkpoint: Path | None = None
    """The checkpoint to measure; or give archive."""
    output: Path | None = None
    """Where the JSON goes, with pictures of confusion and calibration beside it; default: a summary is printed."""
    export: Path | None = None
    """Where the embeddings and logits of every image go (HDF5), for choosing debug images."""
    batch_size: int = 32
    device: str = "auto"
    """A torch device; "auto" is cuda where there is one, else cpu."""
    num_workers: int = 0
    """Processes that decode; 0 does it in the process that predicts."""
    threads: int | None = None
    """Threads of torch on the CPU; default: torch's choice."""

    def __post_init__(self) -> None:
        if (self.archive is None) == (self.checkpoint is None):
            raise OptionInvalid("Give either --archive FILE.mar or --checkpoint FILE.", field="archive")
        check("batch_size", self.batch_size, at_least=1)
        check("num_workers", self.num_workers, at_least=0)
        check("threads", self.threads, at_least=1)


@dataclass(frozen=True, kw_only=True)
class ArchiveConfig:
    """How to make an archive.

    Raises:
        OptionInvalid: an option is outside its range.
    """

    checkpoint: Path
    """A checkpoint of `saaa-train egdd`: last.pt (the last epoch) or best.pt (the best on val); or one of MAE's
    fine-tuning script, as EGDD's are published, with --classes."""
    output: Path
    """The .mar file to write."""
    classes: Path | None = None
    """For a checkpoint of MAE's script: the class names in order, a JSON list or one a line."""
    name: str = "egdd"
    """Name under which the model is served."""
    version: str = "1.0"
    """Version under which the model is served."""
    data_path: Path | None = None
    """The data it was trained on, to measure faithfulness on its val/; default: where training found it."""
    faithfulness_images: int = 64
    """Validation images for the faithfulness figure; 0 leaves it out."""
    runtime: str = "torch"
    """"openvino" also compiles the classifier with its default attribution into a graph for CPUs, and measures on
    validation images that it answers as torch does."""
    graph_methods: tuple[str, ...] = ("auto",)
    """The attribution methods in the graph; "auto" is the default one."""
    parity_images: int = 200
    """Validation images on which the graph is measured, and each reduced scale."""
    reduced_decoding: Literal["off", "auto"] = "off"
    """"auto" lets JPEGs much larger than the input be decoded at a reduced scale, which is faster, if the model answers
    as it does at full size: measured on those validation images that are large enough, as JPEGs."""

    def __post_init__(self) -> None:
        check("faithfulness_images", self.faithfulness_images, at_least=0)
        check("parity_images", self.parity_images, at_least=1)
        if self.runtime not in ("torch", "openvino"):
            raise OptionInvalid(f"runtime is {self.runtime!r}; choose torch or openvino.", field="runtime")
        if self.reduced_decoding not in ("off", "auto"):
            raise OptionInvalid(
                f"reduced_decoding is {self.reduced_decoding!r}; choose off or auto.", field="reduced_decoding"
            )

    @property
    def needs_images(self) -> bool:
        """Whether anything is measured on the validation images."""
        return self.faithfulness_images > 0 or self.runtime != "torch" or self.reduced_decoding != "off"


@dataclass(frozen=True, kw_only=True)
class ShardsConfig:
    """How to pack class folders into WebDataset shards.

    Raises:
        OptionInvalid: an option is outside its range.
    """

    data_path: Path
    """Folder with one folder of images a class."""
    output_dir: Path
    """Where shard-000000.tar, ... go; a train/ or val/ folder of a --data_path as a rule."""
    shard_mb: int = 256
    """Size at which a new shard is begun."""
    seed: int = 0
    """Of the order, which mixes the classes."""

    def __post_init__(self) -> None:
        check("shard_mb", self.shard_mb, at_least=1)
        check("seed", self.seed, at_least=0)
