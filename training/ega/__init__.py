"""EGA: the guided captioner's trainer, its evaluation and its archive.

Importing this package loads the options only; torch comes with the first call.
"""

from __future__ import annotations

from typing import Any

from training.ega.config import ArchiveConfig, EgaConfig, EvaluateConfig

__all__ = ["ArchiveConfig", "EgaConfig", "EvaluateConfig", "archive", "evaluate", "run"]


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
