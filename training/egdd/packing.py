"""`saaa-train archive egdd`: from a checkpoint to an archive that can be served."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from saaa import archive as archives
from saaa.archive import Archive
from saaa.errors import ArchiveError, CheckpointError, DataError
from saaa.models.classifier import Classifier
from saaa.runtime.reduction import CARD_KEY, allow_scales
from saaa.work import AUTO_METHOD
from training.checkpoint import load_checkpoint
from training.egdd.config import ArchiveConfig
from training.egdd.data import Images, find_splits, list_images, load_for_evaluation
from training.egdd.evaluation import classifier_of
from training.egdd.faithfulness import faithfulness, spread_evenly
from training.egdd.published import read_published
from training.egdd.reducing import Reducible

# How a run is set up on a machine says nothing about the model, and would make the archive depend on the machine.
NOT_RECIPE = frozenset(
    "data_path output_dir log_dir resume go_on eval dist_eval num_workers pin_mem cache_mb threads device save_minutes "
    "attributions_every local_rank dist_on_itp dist_url".split()
)


@dataclass(frozen=True)
class Packed:
    """A classifier, what its card says, and the images for the faithfulness figure."""

    classifier: Classifier
    card: dict[str, Any]
    val: Images | None


def pack(config: ArchiveConfig, more: Mapping[str, Any] | None = None) -> str:
    """Write the archive of a checkpoint, ours or one of MAE's fine-tuning script, with its model card.

    The card holds: "source" (what wrote the checkpoint), "data" (counts and digests), "metrics" (on val, after the
    epoch that the checkpoint is of), "epoch", "recipe" (every option that shaped the weights) and "faithfulness" (see
    `training.egdd.faithfulness`). What is not known or left out is null: of a checkpoint of MAE's script the data and
    the metrics, and the faithfulness unless --data_path has a val/. The same
    checkpoint and data give the same bytes. With --runtime openvino it also holds "runtime" (see
    `saaa.runtime.compiling`), with --reduced_decoding auto "reduced_decoding" (see `saaa.runtime.reduction`).

    Args:
        config: what to pack.
        more: further entries of the card.

    Returns:
        The archive's digest.

    Raises:
        CheckpointError: the checkpoint is unusable.
        DataError: the validation images are gone or are not those of the training, or the class names do not fit.
        OptionInvalid: --classes for a checkpoint that names its classes.
        ArchiveError: the archive cannot be written.
    """
    packed = _own(config) if config.classes is None else _published(config, config.classes)
    figure = None
    if packed.val is not None and config.faithfulness_images > 0:
        figure = faithfulness(packed.classifier, packed.val, count=config.faithfulness_images)
    card = {"kind": "image classifier", **packed.card, "faithfulness": figure, **(more or {})}
    try:
        config.output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArchiveError(f"Cannot write to {config.output.parent}: {error.strerror or error}") from error
    archive = packed.classifier.to_archive(config.name, config.version, card)
    if config.runtime == "openvino":
        archive = _compiled(archive, packed.val, config)
    if config.reduced_decoding == "auto":
        archive = _reduced(archive, packed, config)
    digest = archives.write(config.output, archive)
    if figure is not None:
        print(
            f"faithfulness: confidence drops by {figure['drop_top']:.3f} when the top 20 % is blurred, "
            f"by {figure['drop_random']:.3f} for a random 20 %"
        )
    print(f"{config.output}: {config.name} {config.version}, sha256 {digest}")
    return digest


def _compiled(archive: Archive, val: Images | None, config: ArchiveConfig) -> Archive:
    if val is None:
        raise DataError("A graph is measured on validation images; name the data by --data_path.")
    from saaa.runtime.compiling import add_graph  # openvino is an extra

    pixels = np.stack([val[i] for i in spread_evenly(len(val), config.parity_images)])
    made = add_graph(archive, pixels, config.graph_methods)
    for precision, told in made.card["runtime"]["openvino"].items():
        if told["refused"]:
            print(f"{precision} is refused: {told['refused']}")
        else:
            print(
                f"{precision}: the same class for {told['agreement']:.1%} of {told['images']} images, maps' cosine "
                f"{told['map_cosine_median']:.5f} (median), {told['map_cosine_p1']:.5f} (first percentile)"
            )
    return made


def _reduced(archive: Archive, packed: Packed, config: ArchiveConfig) -> Archive:
    if packed.val is None:
        raise DataError("Reduced decoding is measured on validation images; name the data by --data_path.")
    from saaa.runtime.eager import TorchClassifier

    default = archive.info().methods[0].name
    methods = tuple(dict.fromkeys(default if name == AUTO_METHOD else name for name in config.graph_methods))
    large = Reducible(packed.val, packed.classifier.config, most=config.parity_images)
    made = allow_scales(archive, TorchClassifier(archive, None), large.sample, methods)
    told = made.card[CARD_KEY]
    for row in told["measured"]:
        print(
            f"JPEGs at 1/{row['scale']} with {row['margin']:g} pixels for each of the input's: the same class for "
            f"{row['agreement']:.1%} of {row['images']} images, maps' cosine {row['map_cosine_median']:.5f} (median), "
            f"{row['map_cosine_p1']:.5f} (first percentile)"
        )
    if told["refused"]:
        print(f"reduced decoding is refused: {told['refused']}")
    return made


def _own(config: ArchiveConfig) -> Packed:
    """From a checkpoint of `saaa-train egdd`."""
    try:
        checkpoint = load_checkpoint(config.checkpoint, "egdd")
    except CheckpointError as error:
        if not config.checkpoint.is_file():
            raise
        raise CheckpointError(f"{error.message} One of MAE's fine-tuning script needs --classes FILE.") from error
    classifier = classifier_of(checkpoint)
    data, history, options = checkpoint["data"], checkpoint["history"], checkpoint["options"]
    val = None
    if config.needs_images:
        root = config.data_path if config.data_path is not None else Path(data["path"])
        _, listing = find_splits(root, val_fraction=options["val_fraction"], seed=options["seed"])
        val = load_for_evaluation(listing, classifier.config, what="val")
        if val.digest != data["val"]["digest"]:
            raise DataError(
                f"The validation images of {root} are not those of the training; name the right folder by "
                "--data_path, or leave the faithfulness figure out by --faithfulness_images 0."
            )
    card = {
        "data": {"train": data["train"], "val": data["val"]},
        "metrics": {"val": dict(history[-1]) if history else None},
        "epoch": checkpoint["epoch"],
        "recipe": _recipe(options),
        "source": "saaa-train egdd",
    }
    return Packed(classifier, card, val)


def _published(config: ArchiveConfig, classes: Path) -> Packed:
    """From a checkpoint of MAE's fine-tuning script."""
    source = read_published(config.checkpoint, classes)
    classifier = source.classifier
    val, described = None, None
    if config.needs_images and config.data_path is not None:
        listing = list_images(config.data_path / "val", classifier.config.classes)
        val = load_for_evaluation(listing, classifier.config, what="val")
        described = {"images": len(val), "skipped": len(val.skipped), "digest": val.digest}
    card = {
        "data": {"train": None, "val": described},
        "metrics": {"val": None},
        "epoch": source.epoch,
        "recipe": _recipe(source.options),
        "source": "MAE's fine-tuning script",
    }
    return Packed(classifier, card, val)


def _recipe(options: dict[str, Any]) -> dict[str, Any]:
    """The options that shaped the weights; of files and folders the name."""
    recipe = {key: value for key, value in options.items() if key not in NOT_RECIPE}
    if recipe.get("extra_data"):
        recipe["extra_data"] = [Path(folder).name for folder in recipe["extra_data"]]
    if recipe.get("finetune"):
        recipe["finetune"] = Path(recipe["finetune"]).name
    return recipe
