"""EGA: the guided captioner's trainer, its evaluation and its archive.

Importing this package loads the options only; torch comes with the first call.
"""

from __future__ import annotations

from typing import Any

from training.ega.config import ArchiveConfig, EgaConfig, EvaluateConfig
from training.ega.published_config import PrepareConfig, PublishedConfig

__all__ = [
    "ArchiveConfig",
    "EgaConfig",
    "EvaluateConfig",
    "PrepareConfig",
    "PublishedConfig",
    "archive",
    "evaluate",
    "prepare",
    "run",
    "run_published",
]


def run(config: EgaConfig) -> None:
    """Train a captioner; see `training.ega.train.train`."""
    from training.ega.train import train

    train(config)


def evaluate(config: EvaluateConfig) -> dict[str, Any]:
    """Measure a captioner and give its figures; see `training.ega.evaluation.evaluate`."""
    from training.ega.evaluation import evaluate as evaluate_

    return evaluate_(config)


def archive(config: ArchiveConfig) -> None:
    """Make an archive; see `training.ega.packing.pack`."""
    from training.ega.packing import pack

    pack(config)


def run_published(config: PublishedConfig) -> None:
    """Train or test as the published program does; see `training.ega.published_run.run`."""
    from training.ega.published_run import run as run_

    run_(config)


def prepare(config: PrepareConfig) -> None:
    """Write model.json and path.json; see `training.ega.published_paths.prepare`."""
    from training.ega.published_paths import prepare as prepare_

    prepare_(config)
