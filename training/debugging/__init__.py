"""Data debugging: a debug set chosen or made by one of seven strategies, and the model retrained on it.

Importing this package loads the options only.
"""

from __future__ import annotations

from typing import Any

from training.debugging.concepts_config import ConceptsConfig

__all__ = ["ConceptsConfig", "list_concepts"]


def list_concepts(config: ConceptsConfig) -> dict[str, Any]:
    """Have a language model list concepts of classes; see `training.debugging.concept_lists.run`."""
    from training.debugging.concept_lists import run

    return run(config)
