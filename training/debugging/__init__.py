"""Data debugging: a debug set chosen or made by one of seven strategies, and the model retrained on it.

Importing this package loads the options only.
"""

from __future__ import annotations

from typing import Any

from training.debugging.concepts_config import ConceptsConfig
from training.debugging.config import DebugTrainConfig

__all__ = ["ConceptsConfig", "DebugTrainConfig", "list_concepts", "run"]


def list_concepts(config: ConceptsConfig) -> dict[str, Any]:
    """Have a language model list concepts of classes; see `training.debugging.concept_lists.run`."""
    from training.debugging.concept_lists import run

    return run(config)


def run(config: DebugTrainConfig) -> dict[str, Any]:
    """Close the loop once; see `training.debugging.loop.debug_train`."""
    from training.debugging.loop import debug_train

    return debug_train(config)
