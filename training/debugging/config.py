"""Options of `saaa-train debug-train`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from saaa.errors import OptionInvalid
from saaa.work import AUTO_METHOD
from training.debugging.selectors import Similarity, Uncertainty
from training.egdd.config import EgddConfig
from training.options import check, load_values

Strategy = Literal["s-random", "s-similarity", "s-active-learning", "g-llm", "g-tg", "g-llm-prompt", "ours"]
BASE, ATTRIBUTIONS, TASKS, MODELS = "base", "attributions", "tasks", "models"
"""Folders below out that all strategies share."""
GeneratorKind = Literal["world", "folder", "diffusers"]

RECIPE: dict[str, Any] = {
    "model": "tf_efficientnet_lite0",
    "pretrained": "efficientnet_lite0",
    "input_size": 128,
    "resize": "squash",
    "batch_size": 32,
    "epochs": 12,
    "warmup_epochs": 1,
    "lr": 2e-3,
    "layer_decay": 0.9,
    "freeze_below": 0.28,
    "min_crop": 0.6,
    "drop_path": 0.0,
    "aa": "none",
    "reprob": 0.0,
    "num_workers": 0,
}
"""How a base is trained where --egdd does not say: minutes for some hundred images on two cores."""
OURS = (
    *("data_path", "output_dir", "extra_data", "epoch_images", "nb_classes"),
    *("resume", "go_on", "start_epoch", "eval"),
)
"""Options of `saaa-train egdd` that the loop sets."""


@dataclass(frozen=True, kw_only=True)
class BaseOptions:
    """The data, and the model that is to be repaired."""

    data: Path
    """Folder with train/, val/, test/ and, to choose from, pool/: class folders (train/ and pool/ may be shards), maybe
    slices.json {image: name of its slice}, which the report compares. Or a world of `saaa-train scenes`."""
    out: Path
    """Where everything goes; started again, the same command goes on. Several strategies may share it, and so the base,
    its attributions and the tasks."""
    base: Path | None = None
    """The base model, a checkpoint of `saaa-train egdd`, trained on data; default: it is trained here."""
    egdd: Path | None = None
    """Options of `saaa-train egdd` for training it (a YAML file); default: a short recipe for small pictures. The
    retraining takes the options, the initial weights and the steps that the base had."""
    model_name: str = "egdd"
    """Name of the archives."""


@dataclass(frozen=True, kw_only=True)
class PeopleOptions:
    """What people are asked, and what they said."""

    answers: tuple[Path, ...] = ()
    """Exports of Scale, of Label Studio, of the facade (`saaa ratings export`) about the tasks. Without them and
    without --annotator the command writes the tasks and stops where a strategy needs to know what people say."""
    annotator: Literal["none", "simulated"] = "none"
    """"simulated" answers the tasks in people's place, on a world only, from what is in its scenes."""
    noise: float = 0.0
    """Share of the simulated annotator's answers that are wrong."""
    explain: int | None = None
    """Images of val/ that are explained and asked about, at most; default: all."""
    targets: str = "predicted"
    """Classes whose attributions are shown: "predicted", "true", "top2", or names with commas between."""
    method: str = AUTO_METHOD
    """Attribution method; "auto" is the model's default."""
    least_share: float = 0.1
    """A concept counts from this share of its class's ratings on; what is named more rarely, the model hardly uses."""

    def check_people(self) -> None:
        check("noise", self.noise, at_least=0, at_most=1)
        check("explain", self.explain, at_least=1)
        check("least_share", self.least_share, at_least=0, at_most=1)
        if self.answers and self.annotator != "none":
            raise OptionInvalid("--answers and --annotator both give answers; keep one of the two.", field="annotator")
        if self.noise and self.annotator == "none":
            raise OptionInvalid("--noise is the simulated annotator's; give --annotator simulated.", field="noise")


@dataclass(frozen=True, kw_only=True)
class DebugSetOptions:
    """What the debug set is made of."""

    strategy: Strategy = "ours"
    """s-...: chosen from pool/, at random, like the failures, or where the model is unsure. g-...: generated, of the
    class's name, its learned token (tg), or with concepts of a language model. ours: learned tokens with people's
    concepts, valid ones in and confounded ones out."""
    budget: int = 100
    """Images a class; 1000 as published."""
    similarity: Similarity = "centroid"
    """s-similarity: near the mean of a class's failures, or near any of them."""
    uncertainty: Uncertainty = "entropy"
    """s-active-learning: what unsure is."""
    filter_factor: int = 1
    """Generate so many times the budget, and keep what is uncertain and far from the failures' mean."""
    generator: GeneratorKind | None = None
    """What draws; default: the world where data is one. folder: pictures made elsewhere; diffusers: a text-to-image
    pipeline."""
    generator_path: Path | None = None
    """The folder, or the pipeline's."""
    generator_options: Path | None = None
    """The generator's own options (a YAML file)."""
    llm_concepts: Path | None = None
    """g-llm-prompt: llm_concepts.json of `saaa-train concepts`."""

    def check_debug_set(self) -> None:
        check("budget", self.budget, at_least=1)
        check("filter_factor", self.filter_factor, at_least=1)
        if self.generator in ("folder", "diffusers") and self.generator_path is None:
            raise OptionInvalid(f"--generator {self.generator} needs --generator_path FOLDER.", field="generator_path")


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """What the report compares."""

    examples: int = 6
    """Test images whose attributions are shown, before and after."""

    def check_report(self) -> None:
        check("examples", self.examples, at_least=0)


@dataclass(frozen=True, kw_only=True)
class DebugTrainConfig(ReportOptions, DebugSetOptions, PeopleOptions, BaseOptions):
    """How to close the loop: base model, attributions, answers, debug set, retrained model, report.

    Raises:
        OptionInvalid: an option is outside its range, or lacks another.
    """

    name: str | None = None
    """Folder below out of what this strategy makes; default: the strategy's name. Another one allows another budget."""
    seed: int = 0
    """Of choosing, prompts and pictures; --egdd has the training's."""
    threads: int | None = None
    """Threads of torch on the CPU; default: torch's choice."""

    def __post_init__(self) -> None:
        self.check_people()
        self.check_debug_set()
        self.check_report()
        check("seed", self.seed, at_least=0)
        check("threads", self.threads, at_least=1)
        if self.name is not None and (Path(self.name).name != self.name or self.name in (".", "..")):
            raise OptionInvalid(f"name is {self.name!r}; it must be a plain folder name.", field="name")
        if self.folder in (BASE, ATTRIBUTIONS, TASKS, MODELS):
            raise OptionInvalid(f"out/{self.name} is the base's; give another --name.", field="name")
        if self.base is not None and self.egdd is not None:
            raise OptionInvalid("--base is trained already; --egdd is for training one.", field="egdd")

    @property
    def folder(self) -> str:
        """Name of the strategy's folder below out."""
        return self.name or self.strategy

    def training(self) -> EgddConfig:
        """The options of the base's training.

        Raises:
            OptionInvalid: --egdd cannot be read, has an unknown option or one that the loop sets.
        """
        given = dict(load_values(self.egdd, EgddConfig)) if self.egdd is not None else RECIPE
        taken = [name for name in OURS if name in given]
        if taken:
            raise OptionInvalid(f"{self.egdd}: the loop sets {', '.join(taken)}; leave it out.", field="egdd")
        if self.threads is not None:
            given = {"threads": self.threads, **given}
        return EgddConfig(**given, data_path=self.data, output_dir=self.out / BASE)
