"""A run of the captioner's training: what it is made of, where it stands, and how that is saved and brought back."""

from __future__ import annotations

import copy
import hashlib
import math
import time
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from saaa.errors import CheckpointError
from saaa.models.captioner import Captioner, CaptionerConfig
from training.checkpoint import LAST, load_checkpoint, save_checkpoint
from training.distributed import World
from training.ega.batches import CaptionSource
from training.ega.checkpoints import part
from training.ega.config import EgaConfig
from training.ega.data import Data, epoch_size, load_data
from training.precision import Precision
from training.seeding import seed_everything

SAME = ("batch_size", "captions_per_region", "seed", "world_size")
"""Options that say which captions a step takes; a resumed run needs those of its checkpoint."""
NOT_RECIPE = (
    *("data_path", "cache", "output_dir", "log_dir", "annotations", "images", "resume", "go_on"),
    *("dist_url", "device", "threads", "num_workers", "save_minutes"),
)
"""Options that say where things are and how they are computed, not what."""


@dataclass
class Run:
    """A training run in progress, on one process of its world.

    Nothing of it draws from torch's own generators once it is set up: an epoch's order, what is dropped and what is
    drawn follow from the seed and the step, so that none of them needs to be saved.
    """

    config: EgaConfig
    world: World
    data: Data
    captioner: Captioner
    naming: nn.Linear
    """Only a means of training: it is no part of the captioner."""
    average: Captioner | None
    """The moving average, when there is one."""
    optimiser: torch.optim.AdamW
    precision: Precision
    parts: int
    """Threads that compute a step."""
    pool: Executor | None
    steps: int
    """Steps of an epoch; the last may have fewer captions."""
    digest: str
    """Of the training captions."""

    epoch: int = 0
    """Epochs done, with their validation."""
    step: int = 0
    """Steps done since."""
    losses: float = 0.0
    """Sum over the words of this epoch's steps so far, on all processes."""
    words: float = 0.0
    """How many these are."""
    history: list[dict[str, float]] = field(default_factory=list)
    """One row an epoch."""
    captions: int = 0
    """Captions trained on in `seconds`, on all processes together."""
    seconds: float = 0.0
    saved: float = field(default_factory=time.monotonic)
    """When LAST was last written, or the run begun."""

    @property
    def parameters(self) -> list[nn.Parameter]:
        """All that is trained, in the order of `training.ega.objective.loss_and_gradients`."""
        return [*self.captioner.parameters(), *self.naming.parameters()]

    @property
    def served(self) -> Captioner:
        """The weights that are validated and kept."""
        return self.captioner if self.average is None else self.average

    @property
    def done(self) -> int:
        """Steps done since the beginning."""
        return self.epoch * self.steps + self.step

    @property
    def rate(self) -> float:
        """The learning rate of the next step."""
        config = self.config
        warm, last = config.warmup_epochs * self.steps, config.epochs * self.steps
        if self.done < warm:
            return config.lr * (self.done + 1) / warm
        if config.schedule == "constant":
            return config.lr
        return config.lr * 0.5 * (1 + math.cos(math.pi * min(1.0, (self.done - warm) / max(1, last - warm))))

    def order(self) -> list[Tensor]:
        """The captions of the epoch's steps, on all processes together."""
        generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + self.epoch)
        size = self.config.batch_size * self.world.size
        return list(self.data.train.epoch(size, self.config.captions_per_region, generator))

    @property
    def validated(self) -> list[dict[str, float]]:
        """The epochs that have a validation."""
        return [row for row in self.history if "val/loss" in row]

    @property
    def best(self) -> dict[str, float] | None:
        """The first of these that is best by --best_by."""
        sign = -1 if self.config.best_by == "cider" else 1
        return min(self.validated, key=lambda row: sign * row[f"val/{self.config.best_by}"], default=None)

    @property
    def over(self) -> bool:
        """Whether all epochs are done, or --patience has run out."""
        best, patience = self.best, self.config.patience
        worse = [row for row in self.validated if best is not None and row["epoch"] > best["epoch"]]
        return self.epoch >= self.config.epochs or (patience is not None and len(worse) >= patience)


def set_up(config: EgaConfig, world: World) -> Run:
    """Read the data, build the model; the same on all processes.

    Raises:
        DataError, OptionInvalid, ArchiveError, CheckpointError: as `load_data`.
    """
    seed_everything(config.seed)
    data = load_data(config, world)
    captioner = Captioner(
        CaptionerConfig(
            vocabulary_size=len(data.vocabulary),
            region_size=len(data.standard.region_mean),
            global_size=len(data.standard.image_mean),
            width=config.width,
            layers=config.layers,
            max_nodes=config.max_nodes,
            max_words=config.max_tokens - 1,
            dropout=config.dropout,
        )
    ).to(world.device)
    naming = nn.Linear(config.width, max(1, data.train.name_count)).to(world.device)
    trained = [*captioner.parameters(), *naming.parameters()]
    decayed, others = [p for p in trained if p.ndim > 1], [p for p in trained if p.ndim <= 1]
    precision = Precision(config.amp, world.device)
    # The first call is what sets a scaler up, and a process without captions may have none in its first step.
    precision.scaler.scale(torch.zeros((), device=world.device))
    parts = torch.get_num_threads() if world.device.type == "cpu" else 1
    rows = epoch_size(torch.bincount(data.train.region_of), config.captions_per_region)
    return Run(
        config=config,
        world=world,
        data=data,
        captioner=captioner,
        naming=naming,
        average=copy.deepcopy(captioner).requires_grad_(False) if config.ema else None,
        optimiser=torch.optim.AdamW(
            [{"params": decayed, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}],
            lr=config.lr,
            # One pass over the weights instead of one an operation: several times faster on a CPU, too.
            fused=True,
        ),
        precision=precision,
        parts=parts,
        pool=ThreadPoolExecutor(parts, initializer=torch.set_num_threads, initargs=(1,)) if parts > 1 else None,
        steps=math.ceil(rows / (config.batch_size * world.size)),
        digest=digest(data.train),
    )


def save(run: Run, name: str) -> None:
    """Write a checkpoint into output_dir: LAST holds everything that the next step depends on, BEST the model alone.
    All processes must call it; the main one writes.

    Raises:
        CheckpointError: on all processes, when it cannot be written; what was there before is as it was.
    """
    data = run.data
    served = {f"captioner.{key}": value for key, value in run.served.state_dict().items()}
    maker = {} if data.extractor is None else {f"features.{k}": v for k, v in data.extractor.state_dict().items()}
    content: dict[str, Any] = {
        "features": None if data.extractor is None else data.extractor.describe(),
        "standard": asdict(data.standard),
        "captioner": asdict(run.captioner.config),
        "vocabulary": list(data.vocabulary.words),
        "weights": maker | served,
        "epoch": run.epoch,
        "figures": run.history[-1] if run.history else {},
        "recipe": _recipe(run.config, run.world),
        "regions": int(data.train.region_of.max()) + 1,
        "captions": len(data.train),
        "data": run.digest,
        "history": run.history,
    }
    if name == LAST:
        content["training"] = {
            "captioner": run.captioner.state_dict(),
            "naming": run.naming.state_dict(),
            "optimiser": run.optimiser.state_dict(),
            "scaler": run.precision.scaler.state_dict(),
            "step": run.step,
            "losses": run.losses,
            "words": run.words,
            "trained": run.captions,
            "seconds": run.seconds,
        }
    run.world.first(lambda: save_checkpoint(run.config.output_dir / name, "ega", content))
    if name == LAST:
        run.saved = time.monotonic()


def _recipe(config: EgaConfig, world: World) -> dict[str, Any]:
    """The options that shaped the weights; of files their names."""
    options = {key: value for key, value in asdict(config).items() if key not in NOT_RECIPE}
    plain = {
        key: value.name if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value
        for key, value in options.items()
    }
    return {**plain, "world_size": world.size}


def digest(captions: CaptionSource) -> str:
    """SHA-256 of captions and their regions: two sets that agree in it have the same epochs."""
    found = hashlib.sha256()
    for values in (captions.captions, captions.lengths, captions.region_of):
        found.update(values.to(torch.int32).numpy().tobytes())
    return found.hexdigest()


def resume(run: Run, path: Path) -> None:
    """Bring a run back to where a checkpoint left it.

    Raises:
        CheckpointError: it is no LAST, or of another run: model, vocabulary, captions, batches or number of processes.
    """
    content = load_checkpoint(path, "ega")
    if "training" not in content:
        raise CheckpointError(f"{path} holds a model only; resume from {LAST}.")
    if content["vocabulary"] != list(run.data.vocabulary.words):
        raise CheckpointError(f"{path} was trained with another vocabulary; resume needs the same.")
    if content["captioner"] != asdict(run.captioner.config):
        raise CheckpointError(f"{path} holds a captioner of other sizes; give the options of its run.")
    if content["data"] != run.digest:
        raise CheckpointError(f"{path} was trained on other captions; resume needs the same.")
    state, recipe = content["training"], _recipe(run.config, run.world)
    try:
        for name in SAME:
            before = content["recipe"][name]
            if before != recipe[name]:
                what = f"by {before} processes" if name == "world_size" else f"with --{name} {before}"
                raise CheckpointError(f"{path} was trained {what}, not {recipe[name]}; resume needs the same.")
        for name, value in asdict(run.data.standard).items():
            if not torch.allclose(content["standard"][name], value, rtol=1e-3, atol=1e-4):
                raise CheckpointError(f"{path} was trained on other features ({name}); resume needs the same.")
        run.captioner.load_state_dict(state["captioner"])
        if run.average is not None:
            run.average.load_state_dict(part(content["weights"], "captioner."))
        run.naming.load_state_dict(state["naming"])
        run.optimiser.load_state_dict(state["optimiser"])
        run.precision.scaler.load_state_dict(state["scaler"])
        run.epoch, run.step, run.losses, run.words = content["epoch"], state["step"], state["losses"], state["words"]
        run.history, run.captions, run.seconds = content["history"], state["trained"], state["seconds"]
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path} does not fit these options: {error}") from error
