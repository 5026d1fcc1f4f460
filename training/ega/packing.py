"""From a checkpoint to a servable archive."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

from saaa import archive
from saaa.errors import DataError
from saaa.models.guided import GuidedCaptioner
from training.ega.checkpoints import load_guided
from training.ega.config import ArchiveConfig
from training.ega.imported import import_published, stand_in


def pack(config: ArchiveConfig) -> str:
    """Write the archive of a checkpoint and give its digest.

    Raises:
        CheckpointError: the checkpoint cannot be read, or does not fit its backbone or vocabulary.
        DataError: the metrics file or the vocabulary cannot be read.
        ArchiveError: name or version outside the limits, or the file cannot be written.
    """
    guided, facts = _read(config)
    card: dict[str, Any] = {
        "model": "image captioner guided by an abstract scene graph (role-aware relational graph encoder, "
        "memory and flow decoder; arXiv 2003.00387)",
        **facts,
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


def _read(config: ArchiveConfig) -> tuple[GuidedCaptioner, dict[str, Any]]:
    """The captioner, and what is known of it."""
    if config.vocabulary is not None and config.backbone is not None:
        return import_published(
            config.checkpoint,
            vocabulary=config.vocabulary,
            backbone=config.backbone,
            model=config.model,
            input_size=config.input_size,
        )
    bring = None
    if config.backbone is not None:
        bring = partial(stand_in, backbone=config.backbone, model=config.model, input_size=config.input_size)
    guided, content = load_guided(config.checkpoint, bring)
    facts = {
        "data": {"regions": content["regions"], "captions": content["captions"]},
        "recipe": content["recipe"],
        "epoch": content["epoch"],
        "validation": content["figures"],
    }
    if bring is not None:
        facts["features"] = (
            f"{config.model} at {config.input_size} pixels in place of those trained on, of unknown origin"
        )
    return guided, facts
