"""A packed cache of the published files: regions, captions and features of a split, for fast random reads.

Importing this package loads the options only; torch comes with the first call.
"""

from __future__ import annotations

from typing import Any

from training.pack.config import PackConfig

__all__ = ["PackConfig", "run"]


def run(config: PackConfig) -> dict[str, Any]:
    """Make the cache; see `training.pack.job.pack`."""
    from training.pack.job import pack

    return pack(config)
