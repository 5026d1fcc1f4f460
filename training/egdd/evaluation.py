"""Measure a classifier as it is served: same decoding, same resize, same preprocessing."""

from __future__ import annotations

import csv
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from saaa import archive as archives
from saaa.errors import CheckpointError, OptionInvalid
from saaa.models.classifier import Classifier, ClassifierConfig
from training.checkpoint import load_checkpoint
from training.distributed import World, torch_device
from training.egdd.config import EvaluateConfig
from training.egdd.data import Images, cores, list_images, load_for_evaluation
from training.egdd.export import export
from training.egdd.measures import TOP, Predictions, failures, measure
from training.egdd.pictures import write_pictures
from training.files import whole, write_json
from training.progress import progress
from training.stopping import leave_signals_to_parent

FAILURES_LISTED = 100
ALONE = World()


def evaluate(config: EvaluateConfig) -> dict[str, Any]:
    """Measure an archive or a checkpoint on a set of images; print a summary.

    With `config.output` NAME.json, the report goes there, and beside it NAME.confusion.png, NAME.calibration.png and
    NAME.failures.csv (every wrong image). With `config.export`, the outputs go there; see `training.egdd.export`.

    Returns:
        See `measure`, plus "model", "digest" (the archive's; None for a checkpoint), "data" (path, digest), "skipped"
        and "failures" (the 100 worst images, worst first).

    Raises:
        DataError, ArchiveError, CheckpointError: the images, the archive or the checkpoint are unusable, or a file
            cannot be written.
        OptionInvalid: the device is not there, or the network has no embeddings to export.
    """
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    if config.archive is not None:
        archive = archives.read(config.archive)
        classifier, model, digest = Classifier.from_archive(archive), config.archive, archive.digest
    else:
        assert config.checkpoint is not None, "EvaluateConfig demands one of the two"
        classifier, model = classifier_of(load_checkpoint(config.checkpoint, "egdd")), config.checkpoint
        digest = None
    classifier.to(torch_device(config.device))
    classes = classifier.config.classes
    listing = list_images(config.data_path, classes, show=True)
    images = load_for_evaluation(listing, classifier.config, what=config.data_path.name)
    found = predict(
        classifier,
        images,
        batch_size=config.batch_size,
        num_workers=config.num_workers,
        embeddings=config.export is not None,
        show=True,
    )
    places = [images.listing.place(i) for i in range(len(images))]
    wrong = failures(found.logits, images.labels, places, classes)
    report: dict[str, Any] = {
        "model": str(model),
        "digest": digest,
        "data": {"path": str(config.data_path), "digest": images.digest},
        **measure(found.logits, images.labels, classes),
        "skipped": [{"file": file, "reason": reason} for file, reason in images.skipped],
        "failures": wrong[:FAILURES_LISTED],
    }
    if config.output is not None:
        folder, name = config.output.parent, config.output.stem
        write_json(config.output, report)
        write_failures(folder / f"{name}.failures.csv", wrong)
        write_pictures(report, folder, prefix=f"{name}.")
    if config.export is not None:
        export(config.export, found, images, classes=classes, model=str(model))
    print(summary(report))
    return report


def read_classifier(path: Path) -> Classifier:
    """Read a model, frozen and in evaluation mode: an archive (.mar, or its unpacked folder), else a checkpoint.

    Raises:
        ArchiveError, CheckpointError: it is unusable.
    """
    if path.suffix == ".mar" or path.is_dir():
        return Classifier.from_archive(archives.read(path))
    return classifier_of(load_checkpoint(path, "egdd"))


def classifier_of(checkpoint: dict[str, Any]) -> Classifier:
    """Build the classifier of a checkpoint, frozen and in evaluation mode.

    Raises:
        CheckpointError: the checkpoint does not describe a usable classifier.
    """
    try:
        settings: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in checkpoint["classifier"].items()
        }
        config = ClassifierConfig(**settings)
        classifier = Classifier(config)
        classifier.net.load_state_dict(checkpoint["model"])
    except (KeyError, TypeError, RuntimeError, OptionInvalid) as error:
        raise CheckpointError(f"The checkpoint does not describe a usable classifier: {error}") from error
    return classifier.eval().requires_grad_(False)


def settings_of(config: ClassifierConfig) -> dict[str, Any]:
    """Give the configuration as a checkpoint holds it; `classifier_of` reads it."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(config).items()}


@torch.inference_mode()
def predict(
    classifier: Classifier,
    images: Images,
    *,
    batch_size: int,
    world: World = ALONE,
    num_workers: int = 0,
    embeddings: bool = False,
    show: bool = False,
) -> Predictions:
    """Predict a set of images, shared among the processes when there are several.

    Args:
        classifier: in evaluation mode.
        images: as `load_for_evaluation` loads them, the same on every process.
        batch_size: images of one forward.
        world: the processes that share the work; default: this one alone. Each image is predicted once, by one process,
            and all processes get all predictions.
        num_workers: processes that decode when not everything is in memory, at most one a core; 0 is this one.
        embeddings: keep what the last linear layer sees, too.
        show: a progress bar on the main process.

    Raises:
        CheckpointError: an output is not finite.
        OptionInvalid: embeddings of a network that has no penultimate features.
    """
    own = world.share(len(images))
    in_memory = all(i in images.cache for i in own)
    loader: DataLoader[Tensor] = DataLoader(
        images,  # type: ignore[arg-type] # has what a map-style dataset needs
        batch_sampler=[list(own[start : start + batch_size]) for start in range(0, len(own), batch_size)],
        collate_fn=_stack,
        num_workers=0 if in_memory else min(num_workers, cores()),
        worker_init_fn=leave_signals_to_parent,
        # Its own generator: opening a loader must not draw from the state that a training goes on with.
        generator=torch.Generator(),
    )
    device = next(classifier.parameters()).device
    batches = [
        _forward(classifier, classifier.preprocess(pixels.to(device)), embeddings)
        for pixels in (progress(loader, "evaluate") if show and world.main else loader)
    ]
    # With fewer images than processes some processes have none.
    share = [np.concatenate(parts) for parts in zip(*batches, strict=True)]
    outputs = _in_order(world.gather(share), len(images))
    for i in np.flatnonzero(~np.isfinite(outputs[0]).all(axis=1))[:1]:
        raise CheckpointError(
            f"The model's output for {images.listing.place(int(i))} is not finite; its weights cannot be used."
        )
    return Predictions(outputs[0], outputs[1] if embeddings else None)


def _stack(pixels: list[NDArray[np.uint8]]) -> Tensor:
    return torch.from_numpy(np.stack(pixels))


def _forward(classifier: Classifier, inputs: Tensor, embeddings: bool) -> list[NDArray[np.float32]]:
    """Give the logits, and the embeddings when asked for."""
    if not embeddings:
        return [classifier(inputs).float().cpu().numpy()]
    net: Any = classifier.net
    try:
        features = net.forward_features(inputs)
        outputs = [net.forward_head(features), net.forward_head(features, pre_logits=True).flatten(1)]
    except (AttributeError, TypeError) as error:
        raise OptionInvalid(
            f"{classifier.config.architecture} has no penultimate features to export.", field="export"
        ) from error
    return [output.float().cpu().numpy() for output in outputs]


def _in_order(shares: list[list[NDArray[np.float32]]], count: int) -> list[NDArray[np.float32]]:
    """Put together what the processes made of their shares: rank r of n has the images r, r + n, ..."""
    joined = [np.empty((count, part.shape[1]), np.float32) for part in shares[0]]
    for rank, share in enumerate(shares):
        for output, part in zip(joined, share, strict=False):
            output[rank :: len(shares)] = part
    return joined


def summary(report: dict[str, Any]) -> str:
    """Put a report into a few lines for the terminal."""
    figures = [f"accuracy {report['accuracy']:.4f}"]
    if len(report["classes"]) > TOP:
        figures.append(f"top-{TOP} {report['top5']:.4f}")
    figures += [f"loss {report['loss']:.4f}", f"calibration error {report['ece']:.4f}"]
    lines = [f"{', '.join(figures)} on {report['images']} images"]
    if report["skipped"]:
        lines.append(f"{len(report['skipped'])} files skipped, such as {report['skipped'][0]['file']}")
    width = max(len(name) for name in report["classes"])
    for name, row in report["classes"].items():
        if row["accuracy"] is not None:
            lines.append(f"  {name:<{width}}  {row['accuracy']:.3f}  of {row['images']}")
    return "\n".join(lines)


def write_failures(path: Path, wrong: list[dict[str, Any]]) -> None:
    """Write what `failures` found as a CSV table.

    Raises:
        DataError: the file cannot be written.
    """
    with whole(path) as aside, aside.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, ["file", "label", "predicted", "probability"])
        table.writeheader()
        table.writerows(wrong)
