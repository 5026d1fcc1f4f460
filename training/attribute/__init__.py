"""Attribution of a whole data set: maps in HDF5, an index of every image, a gallery to look at.

Importing this package loads the options only; torch comes with the first call.
"""

from __future__ import annotations

from typing import Any

from training.attribute.config import AttributeConfig

__all__ = ["AttributeConfig", "run"]


def run(config: AttributeConfig) -> dict[str, Any]:
    """Explain every image of a folder; see `training.attribute.job.attribute_folder`."""
    from saaa.runtime.lean import import_vision

    import_vision()  # before anything else brings timm: the job starts in half the time
    from training.attribute.job import attribute_folder

    return attribute_folder(config)
