"""Options of the EGA jobs; the captioner's published hyper-parameters are the defaults."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from saaa.errors import OptionInvalid
from training.options import check

MAX_TOKENS = 52
"""BOS, EOS and the most words that a caption may have, `saaa.models.captioner.config.MAX_WORDS_LIMIT`. It is written
down here because that room loads torch."""


@dataclass(frozen=True, kw_only=True)
class EgaConfig:
    """How to train a captioner.

    Raises:
        OptionInvalid: an option is outside its range, or two contradict each other.
    """

    data_path: Path | None = None
    """Folder with annotations/ (regionfiles, splits, captions, vocabulary) and, anywhere below it, the images; or give
    cache."""
    cache: Path | None = None
    """Folder that `saaa-train pack` made: its graphs, captions and features are trained on; or give data_path."""
    output_dir: Path = Path("output_dir")
    """Where checkpoints, config.yaml, steps.csv, metrics.json, skipped.txt and the cached features go."""
    log_dir: Path | None = None
    """Where TensorBoard's files go; default: output_dir."""
    annotations: Path | None = None
    """Default: data_path/annotations."""
    images: Path | None = None
    """Folder below which the images lie; default: data_path."""
    train_set: str = "trn"
    """Split to train on."""
    val_set: str = "val"
    """Split that chooses the best checkpoint."""

    model: str = "tf_efficientnet_lite0"
    """Backbone: any timm model that gives feature maps."""
    pretrained: Literal["none", "efficientnet_lite0"] = "none"
    """The backbone's weights; "efficientnet_lite0" are ImageNet weights from a Python package."""
    backbone_archive: Path | None = None
    """Take the backbone (architecture, weights, preprocessing) from this EGDD archive instead."""
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

    width: int = 512
    """Size of hidden states, node memories and word embeddings."""
    layers: int = 2
    """Relational graph layers."""
    max_nodes: int = 10
    """Longer graphs are cut, relationships first."""
    max_tokens: int = 25
    """Longer captions are cut; BOS and EOS count."""
    dropout: float = 0.5

    batch_size: int = 128
    epochs: int = 100
    captions_per_region: int | None = None
    """Captions of each region drawn anew for every epoch; default: all."""
    lr: float = 2e-4
    """Adam's learning rate."""
    schedule: Literal["constant", "cosine"] = "constant"
    """"cosine" falls to 0 at the end."""
    warmup_epochs: float = 0
    """Linear warm-up from 0."""
    weight_decay: float = 0.0
    """Decoupled, on matrices only."""
    smoothing: float = 0.0
    """Label smoothing."""
    feature_dropout: float = 0.0
    """Share of each node's features that is dropped in training."""
    explanation_weight: float = 0.0
    """Weight of the explanation loss: words are chosen while attending to the nodes they name; 0 is off."""
    explanation_loss: Literal["cross_entropy", "kl", "mse", "cosine"] = "cross_entropy"
    """How far the attention is from the nodes that a word names; "cosine" is 1 - cosine."""
    relevance: Path | None = None
    """Annotators' relevance ratings of caption words (a Model ASG): a word that people found irrelevant where the model
    looked weighs more in the explanation loss. JSON: {image_id: {region_id: [{"word": "skateboard", "rating": 1.6}]}},
    ratings 1 to 5; see `training.ega.relevance` for caption, position and type."""
    naming_weight: float = 0.0
    """Weight of telling each node's name from its memory, a side task that trains the encoder; 0 is off."""
    scheduled_sampling: float = 0.0
    """Largest probability that a word the decoder is given is one it drew itself, in place of the caption's."""
    scheduled_sampling_epochs: float = 0
    """Epochs over which that probability rises from 0, linearly."""
    jitter: float = 0.0
    """Share of the regions of an epoch whose boxes are moved and stretched a little, as a detector's would be."""
    proposed: float = 0.0
    """Share of the regions of an epoch whose graph is the one proposed for the image, as when a request has none."""
    proposer: Path | None = None
    """For proposed: the EGDD archive whose attributions propose graphs."""
    clip_grad: float | None = 5.0
    """Largest norm of the gradient."""
    amp: Literal["auto", "none", "bf16", "fp16"] = "auto"
    """Mixed precision; "auto" is bf16 on cuda, none elsewhere."""
    ema: float = 0.0
    """Decay of the moving average of the weights; above 0 the average is what is evaluated and served."""
    best_by: Literal["cider", "loss"] = "cider"
    """What chooses best.pt on val_set."""
    val_every: int = 1
    """Epochs from one validation to the next; the last epoch always has one."""
    patience: int | None = None
    """Stop when so many validations in a row have brought nothing better; default: never."""
    save_minutes: float = 10
    """Write last.pt at least so often, within an epoch too; 0 is after epochs only."""

    seed: int = 0
    resume: Path | None = None
    """Continue from this checkpoint, output_dir/last.pt as a rule."""
    go_on: bool = False
    """Continue from output_dir/last.pt if it is there, else begin: for jobs that are started again when they fail."""
    num_workers: int = 0
    """Threads that put batches together ahead; 0 does it between steps."""
    dist_url: str = "env://"
    """Where the processes that torchrun started meet."""
    device: str = "auto"
    """A torch device, such as cuda; "auto" is cuda where there is one."""
    threads: int | None = None
    """Threads of torch on the CPU; default: torch's choice."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "epochs", "captions_per_region", "val_every", "width", "max_nodes"):
            check(name, getattr(self, name), at_least=1)
        check("max_nodes", self.max_nodes, at_most=40)
        check("max_tokens", self.max_tokens, at_least=3, at_most=MAX_TOKENS)
        check("patience", self.patience, at_least=1)
        for name in (
            "layers",
            "warmup_epochs",
            "weight_decay",
            "explanation_weight",
            "naming_weight",
            "scheduled_sampling_epochs",
            "save_minutes",
            "num_workers",
            "seed",
        ):
            check(name, getattr(self, name), at_least=0)
        for name in ("scheduled_sampling", "jitter", "proposed"):
            check(name, getattr(self, name), at_least=0, at_most=1)
        for name in ("dropout", "smoothing", "ema", "feature_dropout"):
            check(name, getattr(self, name), at_least=0, below=1)
        for name in ("lr", "clip_grad", "threads"):
            check(name, getattr(self, name), above=0)
        if self.warmup_epochs >= self.epochs:
            raise OptionInvalid(
                f"warmup_epochs is {self.warmup_epochs:g}; it must be less than epochs ({self.epochs}).",
                field="warmup_epochs",
            )
        if self.go_on and self.resume is not None:
            raise OptionInvalid("--go_on and --resume both say where to continue from; give one.", field="go_on")
        if (self.data_path is None) == (self.cache is None):
            raise OptionInvalid("Give either --data_path FOLDER or --cache FOLDER.", field="data_path")
        if self.relevance is not None and not self.explanation_weight:
            raise OptionInvalid(
                "Relevance ratings weigh words in the explanation loss; switch that on by --explanation_weight 1.",
                field="relevance",
            )
        if self.jitter + self.proposed > 1:
            raise OptionInvalid("jitter and proposed together must be at most 1.", field="jitter")
        if self.proposed and self.proposer is None:
            raise OptionInvalid(
                "--proposed needs the EGDD archive that proposes graphs: --proposer FILE.mar.", field="proposer"
            )
        if self.cache is not None and (self.jitter or self.proposed):
            raise OptionInvalid(
                "A cache has no images, so boxes cannot be moved in them; leave --jitter and --proposed out, or give "
                "--data_path.",
                field="cache",
            )
        check_backbone(self.model, self.pretrained, self.backbone_archive)


def check_backbone(model: str, pretrained: str, backbone_archive: Path | None) -> None:
    """Refuse options of a backbone that contradict each other.

    Raises:
        OptionInvalid: the weights come from two places, or belong to another model.
    """
    if backbone_archive is not None and pretrained != "none":
        raise OptionInvalid(
            "Give either --backbone_archive or --pretrained: each brings the backbone's weights.", field="pretrained"
        )
    if pretrained == "efficientnet_lite0" and model != "tf_efficientnet_lite0":
        raise OptionInvalid(
            f"The weights efficientnet_lite0 belong to tf_efficientnet_lite0, not {model}.", field="pretrained"
        )


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """How to measure a captioner.

    Raises:
        OptionInvalid: not exactly one of archive and checkpoint, or an option outside its range.
    """

    data_path: Path
    """Folder with annotations/ and, anywhere below it, the images."""
    archive: Path | None = None
    """The archive to measure; or give checkpoint."""
    checkpoint: Path | None = None
    """The checkpoint to measure; or give archive."""
    annotations: Path | None = None
    """Default: data_path/annotations."""
    images: Path | None = None
    """Folder below which the images lie; default: data_path."""
    eval_set: str = "val_sub"
    """Split to measure on."""
    proposer: Path | None = None
    """EGDD archive whose attributions propose graphs: captions along these are measured, too."""
    output: Path | None = None
    """Where the JSON goes; default: only the summary is printed. A page of captions side by side goes beside it."""
    beam_width: int = 3
    """1 is greedy."""
    diverse: int = 5
    """Captions of each image whose diversity is measured; 1 is off."""
    batch_size: int = 16
    seed: int = 0
    """Of the other image's graphs and of the bootstrap."""
    resamples: int = 2000
    """Of the bootstrap."""
    device: str = "auto"
    threads: int | None = None
    """Threads of torch on the CPU; default: torch's choice."""

    def __post_init__(self) -> None:
        if (self.archive is None) == (self.checkpoint is None):
            raise OptionInvalid("Give either --archive FILE.mar or --checkpoint FILE.", field="archive")
        check("beam_width", self.beam_width, at_least=1, at_most=10)
        check("diverse", self.diverse, at_least=1, at_most=10)
        for name in ("batch_size", "resamples"):
            check(name, getattr(self, name), at_least=1)
        check("seed", self.seed, at_least=0)
        check("threads", self.threads, above=0)


@dataclass(frozen=True, kw_only=True)
class ArchiveConfig:
    """How to make an archive."""

    checkpoint: Path
    """A checkpoint of `saaa-train ega`: last.pt (the last epoch) or best.pt (the best on val_set). With vocabulary, one
    of the published programs."""
    output: Path
    """The .mar file to write."""
    name: str = "ega"
    """Name under which the model is served."""
    version: str = "1.0"
    """Version under which the model is served."""
    metrics: Path | None = None
    """JSON of `saaa-train evaluate ega` to put on the model card."""

    vocabulary: Path | None = None
    """Published checkpoint: the folder of its int2word.npy and word2int.json."""
    backbone: Path | None = None
    """For a checkpoint without one (published, or trained on published features): weights of the backbone that makes
    its features: a state of torchvision or timm (.pt, .pth, .safetensors), a checkpoint or an archive of
    `saaa-train egdd`."""
    model: str = "resnet101"
    """With backbone: any timm model with a map of as many channels as the features have."""
    input_size: int = 224
    """With backbone: width and height of its input in pixels."""

    runtime: str = "torch"
    """"openvino" also compiles the captioner's decode step into a graph and measures on validation images that it
    captions as torch does."""
    data_path: Path | None = None
    """With openvino: folder with annotations/ and, anywhere below it, the images."""
    annotations: Path | None = None
    """Default: data_path/annotations."""
    images: Path | None = None
    """Folder below which the images lie; default: data_path."""
    eval_set: str = "val_sub"
    """Split on which the graph is measured."""
    parity_graphs: int = 200
    """So many of its regions, each with its scene graph."""

    def __post_init__(self) -> None:
        check("parity_graphs", self.parity_graphs, at_least=1)
        if self.runtime not in ("torch", "openvino"):
            raise OptionInvalid(f"runtime is {self.runtime!r}; choose torch or openvino.", field="runtime")
        if self.runtime == "openvino" and self.data_path is None:
            raise OptionInvalid(
                "A graph is measured on validation images; name the data by --data_path.", field="data_path"
            )
        if self.vocabulary is not None and self.backbone is None:
            raise OptionInvalid(
                "A published checkpoint has no backbone; give the weights of resnet101 (or of --model) by --backbone.",
                field="backbone",
            )
