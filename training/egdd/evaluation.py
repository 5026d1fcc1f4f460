"""Measure a classifier as it is served: same decoding, same resize, same preprocessing."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from saaa import archive as archives
from saaa.errors import CheckpointError, OptionInvalid
from saaa.models.classifier import Classifier, ClassifierConfig
from training.checkpoint import load_checkpoint
from training.egdd.config import EvaluateConfig
from training.egdd.data import Images, list_images, load_for_evaluation
from training.progress import progress

FAILURES_LISTED = 100


def evaluate(config: EvaluateConfig) -> dict[str, Any]:
    """Measure an archive or a checkpoint on a folder of class folders; print a summary, write JSON when
    asked.

    Returns:
        See `measure`, plus "model", "data" (path and digest), "skipped" and "failures" (files, worst first).

    Raises:
        DataError, ArchiveError, CheckpointError: the folder, the archive or the checkpoint is unusable.
    """
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    if config.archive is not None:
        classifier, model = Classifier.from_archive(archives.read(config.archive)), config.archive
    else:
        assert config.checkpoint is not None, "EvaluateConfig demands one of the two"
        classifier, model = classifier_of(load_checkpoint(config.checkpoint, "egdd")), config.checkpoint
    classifier.to(torch_device(config.device))
    images = load_for_evaluation(
        list_images(config.data_path, classifier.config.classes),
        classifier.config,
        what=config.data_path.name,
    )
    logits = predict(classifier, images, batch_size=config.batch_size, show=True)
    report: dict[str, Any] = {
        "model": str(model),
        "data": {"path": str(config.data_path), "digest": images.digest},
        **measure(logits, images.labels, classifier.config.classes),
        "skipped": [{"file": str(file), "reason": reason} for file, reason in images.skipped],
        "failures": failures(logits, images, classifier.config.classes),
    }
    if config.output is not None:
        write_json(config.output, report)
    print(summary(report))
    return report


def classifier_of(checkpoint: dict[str, Any]) -> Classifier:
    """Build the classifier of a checkpoint, frozen and in evaluation mode.

    Raises:
        CheckpointError: the checkpoint does not describe a usable classifier.
    """
    try:
        settings = checkpoint["classifier"]
        config = ClassifierConfig(
            **{key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()}
        )
        classifier = Classifier(config)
        classifier.net.load_state_dict(checkpoint["model"])
    except (KeyError, TypeError, RuntimeError, OptionInvalid) as error:
        raise CheckpointError(f"The checkpoint does not describe a usable classifier: {error}") from error
    return classifier.eval().requires_grad_(False)


def settings_of(config: ClassifierConfig) -> dict[str, Any]:
    """Give the configuration as a checkpoint holds it; `classifier_of` reads it."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(config).items()}


@torch.inference_mode()
def predict(classifier: Classifier, images: Images, *, batch_size: int, show: bool = False) -> NDArray[np.float32]:
    """Give the logits, (images, classes); the classifier must be in evaluation mode."""
    device = next(classifier.parameters()).device
    starts = range(0, len(images), batch_size)
    parts = []
    for start in progress(starts, "evaluate") if show else starts:
        pixels = np.stack([images[i] for i in range(start, min(start + batch_size, len(images)))])
        parts.append(classifier(classifier.preprocess(torch.from_numpy(pixels).to(device))).float().cpu())
    return torch.cat(parts).numpy()


def measure(logits: NDArray[np.float32], labels: NDArray[np.int64], classes: tuple[str, ...]) -> dict[str, Any]:
    """Compare predictions with the truth.

    Args:
        logits: (n, K).
        labels: (n,) class indices.
        classes: K names.

    Returns:
        "images"; "accuracy" and "top5" in [0, 1] (top5 is null for 5 classes or fewer, where it says
        nothing); "loss", the mean cross-entropy in nats; "classes": per class "images" and "accuracy" (null
        without images); "confusion": counts, rows are the true classes, columns the predicted ones.
    """
    count, known = logits.shape
    predicted = logits.argmax(axis=1)
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    confusion = np.zeros((known, known), dtype=np.int64)
    np.add.at(confusion, (labels, predicted), 1)
    right = confusion.diagonal()
    totals = confusion.sum(axis=1)
    best5 = np.argsort(-logits, axis=1, kind="stable")[:, :5]
    return {
        "images": count,
        "accuracy": float(right.sum() / count),
        "top5": float((best5 == labels[:, None]).any(axis=1).mean()) if known > 5 else None,
        "loss": float(-log_probabilities[np.arange(count), labels].mean()),
        "classes": {
            name: {"images": int(n), "accuracy": float(hits / n) if n else None}
            for name, hits, n in zip(classes, right, totals, strict=True)
        },
        "confusion": confusion.tolist(),
    }


def failures(logits: NDArray[np.float32], images: Images, classes: tuple[str, ...]) -> list[dict[str, Any]]:
    """List the images that were classified wrongly, the most confident mistake first; at most 100."""
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = exponents / exponents.sum(axis=1, keepdims=True)
    predicted = logits.argmax(axis=1)
    wrong = np.flatnonzero(predicted != images.labels)
    order = wrong[np.argsort(-probabilities[wrong, predicted[wrong]], kind="stable")]
    return [
        {
            "file": images.listing.files[i].as_posix(),
            "label": classes[images.labels[i]],
            "predicted": classes[predicted[i]],
            "probability": round(float(probabilities[i, predicted[i]]), 4),
        }
        for i in order[:FAILURES_LISTED]
    ]


def summary(report: dict[str, Any]) -> str:
    """Put a report into a few lines for the terminal."""
    lines = [f"accuracy {report['accuracy']:.4f} on {report['images']} images, loss {report['loss']:.4f}"]
    if report["skipped"]:
        lines.append(f"{len(report['skipped'])} files skipped, such as {report['skipped'][0]['file']}")
    width = max(len(name) for name in report["classes"])
    for name, row in report["classes"].items():
        if row["accuracy"] is not None:
            lines.append(f"  {name:<{width}}  {row['accuracy']:.3f}  of {row['images']}")
    return "\n".join(lines)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON whole or not at all, making the folder when needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.partial")
    aside.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    aside.replace(path)


def torch_device(name: str) -> torch.device:
    """Give the torch device of that name.

    Raises:
        OptionInvalid: no such device here.
    """
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise OptionInvalid(
            f"device {name!r} cannot be used here: {str(error).splitlines()[0]}", field="device"
        ) from error
    return device
