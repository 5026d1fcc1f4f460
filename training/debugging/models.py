"""The loop's models: trained or gone on with, kept when done, packed as versions beside each other."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from itertools import count
from pathlib import Path
from typing import Any

from saaa.errors import CheckpointError, DataError, OptionInvalid
from training.checkpoint import LAST, load_checkpoint
from training.debugging.config import BASE, MODELS, DebugTrainConfig
from training.egdd.config import ArchiveConfig, EgddConfig
from training.egdd.data import content_digest, find_splits
from training.egdd.packing import NOT_RECIPE, pack
from training.egdd.train import train
from training.files import write_json
from training.options import plain, typed_values

ARCHIVE = "archive.json"


@dataclass(frozen=True)
class Model:
    """A trained model."""

    checkpoint: Path
    options: EgddConfig
    """As it was trained, by one process."""
    classes: tuple[str, ...]
    images: int
    """Readable training images."""
    epochs: int
    """Epochs done."""

    @classmethod
    def read(cls, checkpoint: Path) -> Model:
        """Read what is known of a checkpoint of `saaa-train egdd`.

        Raises:
            CheckpointError: it cannot be read, or holds too little.
        """
        content = load_checkpoint(checkpoint, "egdd")
        try:
            values = {name: plain(value) for name, value in content["options"].items()}
            options = EgddConfig(**typed_values(values, EgddConfig, str(checkpoint)))
            processes = options.world_size
            alone = replace(
                options,
                lr=options.peak_lr(processes),
                accum_iter=options.accum_iter * processes,
                world_size=1,
                resume=None,
                go_on=False,
                start_epoch=0,
                eval=False,
                log_dir=None,
            )
            classes = tuple(content["classifier"]["classes"])
            return cls(checkpoint, alone, classes, content["data"]["train"]["images"], content["epoch"])
        except (KeyError, TypeError, OptionInvalid) as error:
            raise CheckpointError(f"{checkpoint} does not tell how it was trained: {error}") from error

    def check_data(self, data: Path) -> None:
        """Make sure that a folder holds what it was trained on.

        Raises:
            DataError: other images.
        """
        options = self.options
        listing, _ = find_splits(
            data, val_fraction=options.val_fraction, seed=options.seed, extra=options.extra_data, show=True
        )
        known = load_checkpoint(self.checkpoint, "egdd")["data"]["train"]["digest"]
        if content_digest(listing) != known:
            raise DataError(
                f"{self.checkpoint} was trained on other images than {data / 'train'} has; name its data by --data, "
                "or choose another --out."
            )


def base_of(config: DebugTrainConfig) -> Model:
    """Give the base model: the one named, or trained here.

    Raises:
        SaaaError: as `trained`, or as `Model.read`.
    """
    if config.base is None:
        if _record(config.out / BASE) and not (config.out / BASE / LAST).is_file():
            raise OptionInvalid(f"The base of {config.out} was given by --base; give it again.", field="base")
        return trained(config.training())
    model = Model.read(config.base)
    model.check_data(config.data)
    return model


def retraining(config: DebugTrainConfig, base: Model, debug_set: Path) -> EgddConfig:
    """Give the options of the retraining: as the base, from where it started, with the debug set and as many steps."""
    options = base.options
    return replace(
        options,
        data_path=config.data,
        output_dir=config.out / config.folder / "retrained",
        extra_data=(*options.extra_data, debug_set),
        epoch_images=options.epoch_images or base.images,
        threads=config.threads or options.threads,
    )


def trained(config: EgddConfig) -> Model:
    """Train a model, go on with a training that was stopped, or take it as it is when it is done.

    Raises:
        OptionInvalid: what is in output_dir was trained with other options.
        SaaaError: as `train`.
    """
    last = config.output_dir / LAST
    if not last.is_file():
        train(config)
        return Model.read(last)
    done = Model.read(last)
    # Which extra images they were, their digest tells; where they lie is of no matter.
    names = [f.name for f in fields(EgddConfig) if f.name not in NOT_RECIPE | {"world_size", "lr", "extra_data"}]
    other = [name for name in names if getattr(done.options, name) != getattr(config, name)]
    if done.options.peak_lr(1) != config.peak_lr(1):
        other.append("lr")
    if other:
        raise OptionInvalid(
            f"{config.output_dir} was trained with another {', '.join(other)}; give the same, or another --out or "
            "--name.",
            field=other[0],
        )
    if done.epochs < config.epochs:
        train(replace(config, resume=last))
        return Model.read(last)
    done.check_data(config.data_path)
    return done


def packed(config: DebugTrainConfig, folder: Path, model: Model, card: Mapping[str, Any] | None = None) -> Path:
    """Pack a model as a version that no other archive of the loop has; keep the archive of the same checkpoint.

    Args:
        config: the loop's options.
        folder: where it is noted which archive is the model's: out/base, or the strategy's.
        model: what to pack.
        card: further entries of the model card.

    Returns:
        The archive, in out/models, which `saaa up --models` serves.

    Raises:
        OptionInvalid: the base is another than the one that is there.
        SaaaError: as `pack`.
    """
    digest = hashlib.sha256(model.checkpoint.read_bytes()).hexdigest()
    record = _record(folder)
    if record and record["checkpoint"] != digest and folder.name == BASE:
        raise OptionInvalid(f"{config.out} holds work on another base; give the same, or another --out.", field="base")
    version = record["version"] if record else _free_version(config.out)
    archive = config.out / MODELS / f"{config.model_name}-{version}.mar"
    if not record or record["checkpoint"] != digest:
        archive.unlink(missing_ok=True)
        write_json(folder / ARCHIVE, {"version": version, "checkpoint": digest})
    if not archive.is_file():
        options = ArchiveConfig(
            checkpoint=model.checkpoint,
            output=archive,
            name=config.model_name,
            version=version,
            data_path=config.data,
        )
        pack(options, card)
    return archive


def _free_version(out: Path) -> str:
    """Count on: 1.0, 1.1, 1.2."""
    taken = {_record(path.parent)["version"] for path in out.glob(f"*/{ARCHIVE}")}
    return next(version for number in count() if (version := f"1.{number}") not in taken)


def _record(folder: Path) -> dict[str, Any]:
    path = folder / ARCHIVE
    if not path.is_file():
        return {}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return {name: str(record[name]) for name in ("version", "checkpoint")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} cannot be read; delete it, and its archive is made anew: {error}") from error
