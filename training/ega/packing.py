"""From a checkpoint to a servable archive."""

from __future__ import annotations

import json
from typing import Any

from saaa import archive
from saaa.errors import DataError
from training.ega.config import ArchiveConfig
from training.ega.train import load_guided


def pack(config: ArchiveConfig) -> str:
    """Write the archive of a checkpoint and give its digest.

    Raises:
        CheckpointError: the checkpoint cannot be read.
        DataError: the metrics file cannot be read.
        ArchiveError: name or version outside the limits, or the file cannot be written.
    """
    guided, content = load_guided(config.checkpoint)
    card: dict[str, Any] = {
        "model": "image captioner guided by an abstract scene graph (role-aware relational graph encoder, "
        "memory and flow decoder; arXiv 2003.00387)",
        "data": {"regions": content["regions"], "captions": content["captions"]},
        "recipe": content["recipe"],
        "epoch": content["epoch"],
        "validation": content["figures"],
        "note": "The names in a graph never enter the model: it sees roles, boxes and edges.",
    }
    if config.metrics is not None:
        try:
            figures = json.loads(config.metrics.read_text())
            card["metrics"] = {
                key: value for key, value in figures.items() if key.startswith(("ega_", "eval_set", "beam"))
            }
        except (OSError, ValueError, AttributeError) as error:
            raise DataError(f"{config.metrics} holds no figures of an evaluation: {error}") from error
    config.output.parent.mkdir(parents=True, exist_ok=True)
    digest = archive.write(config.output, guided.to_archive(config.name, config.version, card))
    print(f"{config.output}: {config.output.stat().st_size / 1e6:.1f} MB, digest {digest}")
    return digest
