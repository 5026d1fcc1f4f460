"""Both kinds of features of an image folder, in the published layout (`training.features.layout`).

Importing this package loads the options only; torch comes with the first call.
"""

from __future__ import annotations

from typing import Any

from training.features.config import FeaturesConfig

__all__ = ["FeaturesConfig", "run"]


def run(config: FeaturesConfig) -> dict[str, Any]:
    """Make the features; see `training.features.job.make_features`."""
    from training.features.job import make_features

    return make_features(config)
