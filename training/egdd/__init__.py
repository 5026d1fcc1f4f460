"""EGDD: the image classifier's trainer (MAE's fine-tuning recipe), its data as shards, its evaluation and its archive.

Importing this package loads the options only; torch comes with the first call.
"""

from __future__ import annotations

from training.egdd.config import ArchiveConfig, EgddConfig, EvaluateConfig, ShardsConfig

__all__ = ["ArchiveConfig", "EgddConfig", "EvaluateConfig", "ShardsConfig", "archive", "evaluate", "make_shards", "run"]


def run(config: EgddConfig) -> None:
    """Train a classifier; see `training.egdd.train.train`."""
    from training.egdd.train import train

    train(config)


def evaluate(config: EvaluateConfig) -> None:
    """Measure a classifier; see `training.egdd.evaluation.evaluate`."""
    from training.egdd.evaluation import evaluate as evaluate_

    evaluate_(config)


def archive(config: ArchiveConfig) -> None:
    """Make an archive; see `training.egdd.packing.pack`."""
    from training.egdd.packing import pack

    pack(config)


def make_shards(config: ShardsConfig) -> None:
    """Pack class folders into shards; see `training.egdd.shards.write_shards`."""
    from training.egdd.shards import write_shards

    write_shards(config)
