"""The captioner's training: features once, then teacher forcing on the published sets."""

from __future__ import annotations

import copy
import json
import math
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from saaa.errors import CheckpointError, SaaaError
from saaa.models.captioner import Captioner, CaptionerConfig, Vocabulary, search
from saaa.models.features import FeatureExtractor
from saaa.models.guided import GuidedCaptioner
from training.checkpoint import load_checkpoint, save_checkpoint
from training.ega.backbone import make_extractor
from training.ega.config import EgaConfig
from training.ega.dataset import CaptionSet, RegionFeatures, cached
from training.ega.metrics import cider
from training.ega.objective import Weights, count_totals, loss_and_gradients
from training.ega.published import AnnotationFolder, ImageFolder, Region, Skipped
from training.progress import Curves, curves, progress
from training.seeding import seed_everything

VALIDATION_BATCH = 64


@dataclass(frozen=True)
class Validation:
    """Figures on the validation set."""

    loss: float
    """Mean over tokens, natural logarithm."""
    cider: float
    """x 100, greedy captions."""


def train(config: EgaConfig) -> None:
    """Train; see `EgaConfig`. Writes best.pt, last.pt, metrics.json, skipped.txt and TensorBoard's curves.

    Raises:
        DataError: the data are missing or malformed.
        CheckpointError: the checkpoint to resume does not fit.
        ArchiveError: the backbone's archive cannot be used.
    """
    begun = time.monotonic()
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    seed_everything(config.seed)
    data = load_data(config)
    trainer = Trainer(config, data)
    if config.resume is not None:
        trainer.resume(config.resume)
    prepared = time.monotonic() - begun
    print(
        f"{len(data.train)} captions of {len(data.train.regions)} regions to train on, "
        f"{len(data.val.regions)} regions to validate; prepared in {prepared:.0f} s"
    )
    with curves(config.log_dir or config.output_dir, purge_step=trainer.step) as board:
        while trainer.epoch < config.epochs:
            trainer.run_epoch(board)
    print(f"best.pt: epoch {trainer.best_epoch}, {config.best_by} {trainer.best:.4g}")


@dataclass(frozen=True, kw_only=True)
class Data:
    """What is trained on."""

    extractor: FeatureExtractor
    vocabulary: Vocabulary
    train: CaptionSet
    val: CaptionSet


def load_data(config: EgaConfig) -> Data:
    """Read the annotations, find the images, make or read the features."""
    config.output_dir.mkdir(parents=True, exist_ok=True)
    skipped = Skipped()
    annotations = AnnotationFolder(config.annotations or config.data_path / "annotations")
    vocabulary = annotations.vocabulary()
    regions = {split: annotations.regions(split, skipped) for split in (config.train_set, config.val_set)}
    names = {region.file_name for part in regions.values() for region in part}
    folder = ImageFolder(config.images or config.data_path, names)
    regions = {split: folder.keep_found(part, skipped) for split, part in regions.items()}
    (config.output_dir / "skipped.txt").write_text("".join(f"{line}\n" for line in skipped.reasons))
    if skipped.reasons:
        print(skipped.summary())

    extractor = make_extractor(config).to(config.device)
    sets: dict[str, tuple[list[Region], Any, RegionFeatures]] = {}
    for split, part in regions.items():
        graphs = [region.graph.role_graph(config.max_nodes) for region in part]
        cut = sum(len(region.graph.nodes()) > config.max_nodes for region in part)
        if cut:
            print(f"{split}: {cut} graphs were cut to {config.max_nodes} nodes")
        raw = cached(config.output_dir / "features" / split, extractor, part, graphs, folder)
        sets[split] = (part, graphs, raw)
    _, _, raw = sets[config.train_set]
    extractor.standardise_by(raw.nodes.to(config.device), raw.image.to(config.device))
    made = {
        split: CaptionSet(
            part,
            graphs,
            standardised(raw, extractor),
            vocabulary,
            config.max_tokens,
            aligned=split == config.train_set and config.explanation_weight > 0,
        )
        for split, (part, graphs, raw) in sets.items()
    }
    for split, captions in made.items():
        if captions.cut:
            print(f"{split}: {captions.cut} captions were cut to {config.max_tokens} tokens")
    return Data(extractor=extractor, vocabulary=vocabulary, train=made[config.train_set], val=made[config.val_set])


def standardised(raw: RegionFeatures, extractor: FeatureExtractor) -> RegionFeatures:
    """Features as the extractor now gives them, from those it gave before `standardise_by`."""
    nodes = (raw.nodes - extractor.region_mean.cpu()) / extractor.region_scale.cpu()
    image = (raw.image - extractor.image_mean.cpu()) / extractor.image_scale.cpu()
    return RegionFeatures(nodes=nodes, starts=raw.starts, image=image, image_of=raw.image_of)


class Trainer:
    """One run: model, optimiser and where it stands."""

    def __init__(self, config: EgaConfig, data: Data) -> None:
        self.config = config
        self.data = data
        self.captioner = Captioner(
            CaptionerConfig(
                vocabulary_size=len(data.vocabulary),
                region_size=data.extractor.region_size,
                global_size=data.extractor.image_size,
                width=config.width,
                layers=config.layers,
                max_nodes=config.max_nodes,
                max_words=config.max_tokens - 1,
                dropout=config.dropout,
            )
        ).to(config.device)
        # Only a means of training: it is no part of the captioner.
        self.naming = nn.Linear(config.width, max(1, data.train.name_count)).to(config.device)
        self.average = copy.deepcopy(self.captioner).requires_grad_(False) if config.ema else None
        self.parameters = [*self.captioner.parameters(), *self.naming.parameters()]
        decayed = [p for p in self.parameters if p.ndim > 1]
        others = [p for p in self.parameters if p.ndim <= 1]
        self.optimiser = torch.optim.AdamW(
            [
                {"params": decayed, "weight_decay": config.weight_decay},
                {"params": others, "weight_decay": 0.0},
            ],
            lr=config.lr,
        )
        rows = len(data.train.regions) * (config.captions_per_region or 0) or len(data.train)
        self.steps_per_epoch = math.ceil(min(rows, len(data.train)) / config.batch_size)
        self.parts = torch.get_num_threads() if torch.device(config.device).type == "cpu" else 1
        self.pool = (
            ThreadPoolExecutor(self.parts, initializer=torch.set_num_threads, initargs=(1,)) if self.parts > 1 else None
        )
        self.epoch = 0
        self.step = 0
        self.best = math.nan
        self.best_epoch = 0
        self.history: list[dict[str, float]] = []

    @property
    def served(self) -> Captioner:
        """The weights that are evaluated and kept."""
        return self.captioner if self.average is None else self.average

    def run_epoch(self, board: Curves) -> None:
        """Train one epoch, validate when it is time, write checkpoints."""
        config = self.config
        begun = time.monotonic()
        # Not part of the saved state: an epoch's order follows from its number alone.
        order = torch.Generator().manual_seed(config.seed * 1_000_003 + self.epoch)
        parts = self.data.train.epoch(config.batch_size, config.captions_per_region, order)
        total = tokens = 0.0
        self.captioner.train()
        for rows in progress(parts, f"epoch {self.epoch + 1}/{config.epochs}", total=self.steps_per_epoch):
            loss, count = self.train_on(rows)
            total, tokens = total + loss * count, tokens + count
            self.step += 1
        self.epoch += 1
        figures = {"train/loss": total / tokens, "train/lr": self.rate(self.step)}
        line = f"epoch {self.epoch}: train loss {total / tokens:.3f}"
        if self.epoch % config.val_every == 0 or self.epoch == config.epochs:
            found = validate(self.served, self.data.val, self.data.vocabulary, config.device)
            figures |= {"val/loss": found.loss, "val/cider": found.cider}
            line += f", val loss {found.loss:.3f}, val CIDEr {found.cider:.1f}"
            value = found.cider if config.best_by == "cider" else -found.loss
            if not value <= (self.best if config.best_by == "cider" else -self.best):
                self.best, self.best_epoch = getattr(found, config.best_by), self.epoch
                save_checkpoint(config.output_dir / "best.pt", "ega", self.content(figures))
        print(f"{line} ({time.monotonic() - begun:.1f} s)", flush=True)
        board.add(self.step, figures)
        self.history.append({"epoch": self.epoch, "step": self.step, **figures})
        _write_json(config.output_dir / "metrics.json", {"epochs": self.history, "best_epoch": self.best_epoch})
        save_checkpoint(config.output_dir / "last.pt", "ega", self.content(figures) | self.progress())

    def train_on(self, rows: Tensor) -> tuple[float, int]:
        """One step on captions `rows`; gives the loss and the number of tokens.

        Raises:
            SaaaError: the loss is no longer a number.
        """
        config = self.config
        batch = self.data.train.batch(rows, config.device)
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate(self.step)
        weights = Weights.at(config, self.step / self.steps_per_epoch)
        value, gradients = loss_and_gradients(
            self.captioner,
            self.naming,
            batch,
            weights,
            count_totals(batch, weights),
            seed=(config.seed, self.step),
            parts=self.parts,
            pool=self.pool,
        )
        if not math.isfinite(value):
            raise SaaaError(f"The loss is {value} at step {self.step}; lower --lr or set --clip_grad.")
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient
        if config.clip_grad is not None:
            nn.utils.clip_grad_norm_(self.parameters, config.clip_grad)
        self.optimiser.step()
        if self.average is not None:
            # Early on the average follows quickly, so that it does not remember the random start.
            decay = min(config.ema, (1 + self.step) / (10 + self.step))
            with torch.no_grad():
                torch._foreach_lerp_(list(self.average.parameters()), list(self.captioner.parameters()), 1 - decay)
        return value, int(batch.lengths.sum()) - len(batch)

    def rate(self, step: int) -> float:
        """The learning rate of a step."""
        config = self.config
        warm, last = config.warmup_epochs * self.steps_per_epoch, config.epochs * self.steps_per_epoch
        if step < warm:
            return config.lr * (step + 1) / warm
        if config.schedule == "constant":
            return config.lr
        return config.lr * 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm) / max(1, last - warm))))

    def content(self, figures: dict[str, float]) -> dict[str, Any]:
        """The model as a checkpoint holds it; `load_guided` reads it."""
        guided = GuidedCaptioner(self.data.extractor, self.served, self.data.vocabulary)
        recipe = {
            key: value if isinstance(value, int | float | str | type(None)) else str(value)
            for key, value in asdict(self.config).items()
        }
        return {
            "features": self.data.extractor.describe(),
            "captioner": asdict(self.captioner.config),
            "vocabulary": list(self.data.vocabulary.words),
            "weights": guided.state_dict(),
            "epoch": self.epoch,
            "figures": figures,
            "recipe": recipe,
            "regions": len(self.data.train.regions),
            "captions": len(self.data.train),
        }

    def progress(self) -> dict[str, Any]:
        """What resuming needs beside the model."""
        return {
            "raw": self.captioner.state_dict(),
            "naming": self.naming.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "best": self.best,
            "best_epoch": self.best_epoch,
            "history": self.history,
        }

    def resume(self, path: Path) -> None:
        """Go on where a run that wrote `path` (its last.pt) stood.

        Raises:
            CheckpointError: it cannot be read, or belongs to another model or vocabulary.
        """
        content = load_checkpoint(path, "ega")
        if "optimiser" not in content:
            raise CheckpointError(f"{path} holds a model only; resume from last.pt.")
        if content["vocabulary"] != list(self.data.vocabulary.words):
            raise CheckpointError(f"{path} was trained with another vocabulary.")
        if content["captioner"] != asdict(self.captioner.config):
            raise CheckpointError(f"{path} holds a captioner of other sizes; give the options of its run.")
        try:
            self.captioner.load_state_dict(content["raw"])
            served = {
                key.removeprefix("captioner."): value
                for key, value in content["weights"].items()
                if key.startswith("captioner.")
            }
            self.served.load_state_dict(served if self.average is not None else content["raw"])
            self.naming.load_state_dict(content["naming"])
            self.optimiser.load_state_dict(content["optimiser"])
        except (RuntimeError, ValueError, KeyError) as error:
            raise CheckpointError(f"{path} does not fit: {error}") from error
        self.epoch, self.step = content["epoch"], content["step"]
        self.best, self.best_epoch = content["best"], content["best_epoch"]
        self.history = content["history"]
        print(f"resumed after epoch {self.epoch}")


@torch.inference_mode()
def validate(captioner: Captioner, captions: CaptionSet, vocabulary: Vocabulary, device: str) -> Validation:
    """Loss over all captions and CIDEr of greedy ones."""
    captioner.eval()
    total, tokens = 0.0, 0
    for rows in torch.split(torch.argsort(captions.lengths, stable=True), VALIDATION_BATCH):
        batch = captions.batch(rows, device)
        taught = captioner.teach(batch.regions, batch.image, batch.graphs, batch.captions, batch.lengths)
        total += float(captioner.loss(taught)) * len(taught.targets)
        tokens += len(taught.targets)
    said: list[tuple[str, ...]] = []
    for part in torch.split(torch.arange(len(captions.regions)), VALIDATION_BATCH):
        state, guide = captioner.begin(*captions.inputs(part, device))
        found = search(captioner.decoder, state, guide, width=1, max_words=captioner.config.max_words)
        said += [vocabulary.decode(ids[0]) for ids in found.tokens.tolist()]
    scores = cider(said, [region.captions for region in captions.regions])
    return Validation(total / tokens, float(scores.mean()))


def load_guided(path: Path) -> tuple[GuidedCaptioner, dict[str, Any]]:
    """The captioner of a checkpoint (best.pt or last.pt) and the checkpoint's content.

    Raises:
        CheckpointError: it cannot be read or does not describe a captioner.
    """
    content = load_checkpoint(path, "ega")
    try:
        guided = GuidedCaptioner(
            FeatureExtractor.described(content["features"]),
            Captioner(CaptionerConfig(**content["captioner"])),
            Vocabulary(tuple(content["vocabulary"])),
        )
        guided.load_state_dict(content["weights"])
    except (KeyError, TypeError, RuntimeError, SaaaError) as error:
        raise CheckpointError(f"{path} does not describe a usable captioner: {error}") from error
    return guided.requires_grad_(False), content


def _write_json(path: Path, content: dict[str, Any]) -> None:
    aside = path.with_name(f".{path.name}.partial")
    aside.write_text(json.dumps(content, indent=1) + "\n")
    aside.replace(path)
