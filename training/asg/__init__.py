"""Abstract scene graphs from text: COCO's captions and boxes become region files.

Importing this package loads the options only.
"""

from __future__ import annotations

from typing import Any

from training.asg.config import AsgCocoConfig, EvaluateAsgConfig

__all__ = ["AsgCocoConfig", "EvaluateAsgConfig", "evaluate", "run_coco"]


def run_coco(config: AsgCocoConfig) -> dict[str, Any]:
    """Make region files; see `training.asg.coco.run`."""
    from training.asg.coco import run

    return run(config)


def evaluate(config: EvaluateAsgConfig) -> dict[str, Any]:
    """Measure the phrase parser; see `training.asg.factual.evaluate`."""
    from training.asg.factual import evaluate as evaluate_

    return evaluate_(config)
