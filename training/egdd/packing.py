"""`saaa-train archive egdd`: from a checkpoint to an archive that can be served."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from saaa import archive as archives
from saaa.errors import ArchiveError, DataError
from training.checkpoint import load_checkpoint
from training.egdd.config import ArchiveConfig
from training.egdd.data import find_splits, load_for_evaluation
from training.egdd.evaluation import classifier_of
from training.egdd.faithfulness import faithfulness

# How a run is set up on a machine says nothing about the model, and would make the archive depend on the
# machine.
NOT_RECIPE = ("data_path", "output_dir", "log_dir", "resume", "num_workers", "threads", "cache_mb", "device")


def pack(config: ArchiveConfig) -> str:
    """Write the archive of a checkpoint, with its model card.

    The card holds: "data" (counts and digests), "metrics" (on val, after the epoch that the checkpoint is
    of), "recipe" (every option that shaped the weights) and "faithfulness" (see `training.egdd.faithfulness`,
    null when left out). The same checkpoint and data give the same bytes.

    Returns:
        The archive's digest.

    Raises:
        CheckpointError: the checkpoint is unusable.
        DataError: the validation images are gone or are not those of the training.
        ArchiveError: the archive cannot be written.
    """
    checkpoint = load_checkpoint(config.checkpoint, "egdd")
    classifier = classifier_of(checkpoint)
    data, history, options = checkpoint["data"], checkpoint["history"], checkpoint["options"]
    figure: dict[str, Any] | None = None
    if config.faithfulness_images > 0:
        root = config.data_path if config.data_path is not None else Path(data["path"])
        _, val = find_splits(root, val_fraction=options["val_fraction"], seed=options["seed"])
        images = load_for_evaluation(val, classifier.config, what="val")
        if images.digest != data["val"]["digest"]:
            raise DataError(
                f"The validation images of {root} are not those of the training; name the right folder by "
                "--data_path, or leave the faithfulness figure out by --faithfulness_images 0."
            )
        figure = faithfulness(classifier, images, count=config.faithfulness_images)
    card = {
        "kind": "image classifier",
        "data": {"train": data["train"], "val": data["val"]},
        "metrics": {"val": dict(history[-1]) if history else None},
        "recipe": {key: value for key, value in options.items() if key not in NOT_RECIPE},
        "faithfulness": figure,
    }
    try:
        config.output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArchiveError(f"Cannot write to {config.output.parent}: {error.strerror or error}") from error
    digest = archives.write(config.output, classifier.to_archive(config.name, config.version, card))
    if figure is not None:
        print(
            f"faithfulness: confidence drops by {figure['drop_top']:.3f} when the top 20 % is blurred, "
            f"by {figure['drop_random']:.3f} for a random 20 %"
        )
    print(f"{config.output}: {config.name} {config.version}, sha256 {digest}")
    return digest
