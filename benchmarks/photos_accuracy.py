"""The photographs of scenes15: our recipe against a plain fine-tune, three seeds, paired over pictures.

Our recipe is the demo's (`python -m benchmarks.recipe` compares it with others by cross-validation on `train`). The
plain fine-tune is what one writes in an hour: the same ImageNet weights, all layers at one learning rate, mirrored
pictures, ten epochs. Both take the last epoch, so `val` chooses nothing.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.demo import EGDD_PHOTOS
from benchmarks.steps import command
from saaa.images import decode, fit
from saaa.models.classifier import Classifier, ClassifierConfig
from training.pretrained import load_efficientnet_lite0
from training.progress import progress

SEEDS = (0, 1, 2)
DRAWS = 10_000
SIZE, EPOCHS, BATCH, LEARNING_RATE = 224, 10, 32, 5e-4


def photos(data: Path, folder: Path, seeds: Sequence[int] = SEEDS) -> dict[str, Any]:
    """Train both on `data`/scenes15 with each seed and compare them on its val pictures.

    Args:
        data: the folder that holds scenes15.
        folder: where runs and their answers are kept; a run that is there is not made again.
        seeds: one training of each kind a seed.

    Returns:
        "val_accuracy" and "plain_accuracy": one a seed; "val_interval": 95 % interval of the mean over seeds;
        "difference" ours - plain and "difference_interval" (bootstrap over pictures, paired); "minutes": of our
        trainings, start to end.
    """
    ours, plain, minutes = [], [], []
    for seed in seeds:
        right, took = _ours(data / "scenes15", folder / f"ours-{seed}", seed)
        ours.append(right)
        minutes.append(took)
        plain.append(_plain(data / "scenes15", folder / f"plain-{seed}.json", seed))
    a, b = np.stack(ours), np.stack(plain)
    return {
        "val_accuracy": [round(float(v), 4) for v in a.mean(axis=1)],
        "val_interval": _interval(a.mean(axis=0)),
        "plain_accuracy": [round(float(v), 4) for v in b.mean(axis=1)],
        "difference": round(float((a - b).mean()), 4),
        "difference_interval": _interval((a - b).mean(axis=0)),
        "minutes": [round(m, 1) for m in minutes],
    }


def _interval(per_picture: NDArray[np.float64]) -> list[float]:
    """95 % percentile bootstrap of the mean over pictures."""
    draws = np.random.default_rng(0).integers(0, len(per_picture), (DRAWS, len(per_picture)))
    return [round(float(v), 4) for v in np.percentile(per_picture[draws].mean(axis=1), [2.5, 97.5])]


def _ours(scenes15: Path, folder: Path, seed: int) -> tuple[NDArray[np.float64], float]:
    """Whether each val picture is right after our training, and how many minutes that took."""
    answers, clock = folder / "val.h5", folder / "minutes.json"
    if not answers.exists():
        began = time.monotonic()
        options = ("--data_path", scenes15, "--output_dir", folder, "--seed", str(seed))
        command("saaa-train", "egdd", *EGDD_PHOTOS, *options)
        folder.mkdir(parents=True, exist_ok=True)
        clock.write_text(json.dumps((time.monotonic() - began) / 60))
        command(
            "saaa-train", "evaluate", "egdd", "--checkpoint", folder / "last.pt", "--data_path", scenes15 / "val",
            "--export", answers,
        )  # fmt: skip
    with h5py.File(answers) as file:
        right = np.asarray(file["logits"]).argmax(axis=1) == np.asarray(file["labels"])
        names = [name.decode() for name in file["names"]]
    order = np.argsort(names)
    return right[order].astype(np.float64), float(json.loads(clock.read_text()))


def _plain(scenes15: Path, answers: Path, seed: int) -> NDArray[np.float64]:
    """Whether each val picture is right after the plain fine-tune."""
    if not answers.exists():
        torch.manual_seed(seed)
        classes = tuple(sorted(p.name for p in (scenes15 / "train").iterdir()))
        classifier = Classifier(
            ClassifierConfig(architecture="tf_efficientnet_lite0", classes=classes, input_size=SIZE)
        )
        load_efficientnet_lite0(classifier.net)
        _fine_tune(classifier, *_read(scenes15 / "train", classes))
        right = _right(classifier, *_read(scenes15 / "val", classes))
        answers.parent.mkdir(parents=True, exist_ok=True)
        answers.write_text(json.dumps(right))
    return np.array(json.loads(answers.read_text()), np.float64)


def _read(folder: Path, classes: Sequence[str]) -> tuple[Tensor, Tensor]:
    """All pictures, uint8 (n, S, S, 3), in the order of their names, and their labels (n,)."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    pixels = np.stack([fit(decode(p.read_bytes()), SIZE, mode="squash", crop_fraction=1.0)[0] for p in files])
    return torch.from_numpy(pixels), torch.tensor([classes.index(p.parent.name) for p in files])


def _fine_tune(classifier: Classifier, pixels: Tensor, labels: Tensor) -> None:
    """AdamW on everything, one cosine, cross-entropy, mirroring."""
    optimiser = torch.optim.AdamW(classifier.parameters(), lr=LEARNING_RATE)
    steps = len(pixels) // BATCH * EPOCHS
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: (1 + math.cos(math.pi * step / steps)) / 2)
    loss = nn.CrossEntropyLoss()
    classifier.to(memory_format=torch.channels_last).train()
    for epoch in range(EPOCHS):
        batches = torch.randperm(len(pixels))[: len(pixels) // BATCH * BATCH].split(BATCH)
        for chosen in progress(batches, f"plain, epoch {epoch + 1}/{EPOCHS}"):
            inputs = classifier.preprocess(pixels[chosen])
            mirrored = torch.rand(len(chosen)) < 0.5
            inputs = torch.where(mirrored[:, None, None, None], inputs.flip(3), inputs)
            optimiser.zero_grad()
            loss(classifier(inputs), labels[chosen]).backward()
            optimiser.step()
            schedule.step()


@torch.inference_mode()
def _right(classifier: Classifier, pixels: Tensor, labels: Tensor) -> list[bool]:
    classifier.eval()
    logits = torch.cat([classifier(classifier.preprocess(part)) for part in pixels.split(BATCH)])
    answers: list[bool] = (logits.argmax(dim=1) == labels).tolist()
    return answers
