"""From a checkpoint to a servable archive."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saaa import archive
from saaa.archive import Archive
from saaa.errors import DataError
from saaa.models.guided import GuidedCaptioner
from saaa.scene_graph import RoleGraph
from training.ega.checkpoints import load_guided
from training.ega.config import ArchiveConfig
from training.ega.dataset import load_input
from training.ega.imported import import_published, stand_in
from training.ega.published import AnnotationFolder, ImageFolder, Skipped
from training.ega.readable import unreadable
from training.egdd.faithfulness import spread_evenly


def pack(config: ArchiveConfig) -> str:
    """Write the archive of a checkpoint and give its digest.

    Raises:
        CheckpointError: the checkpoint cannot be read, or does not fit its backbone or vocabulary.
        DataError: the metrics file, the vocabulary or the validation data cannot be read.
        NotTraceable: no graph can be made that captions as the model does.
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
    made = guided.to_archive(config.name, config.version, card)
    if config.runtime == "openvino":
        made = _compiled(made, guided, config)
    digest = archive.write(config.output, made)
    print(f"{config.output}: {config.output.stat().st_size / 1e6:.1f} MB, digest {digest}")
    return digest


def _compiled(made: Archive, guided: GuidedCaptioner, config: ArchiveConfig) -> Archive:
    """With the graph, and how far its captions are from torch's."""
    from saaa.runtime.caption_compiling import add_caption_graph  # openvino is an extra

    pixels, graphs = _validation(guided, config)
    made = add_caption_graph(made, pixels, graphs)
    for precision, told in made.card["runtime"]["openvino"].items():
        if told["refused"]:
            print(f"{precision} is refused: {told['refused']}")
        else:
            print(
                f"{precision}: the same caption along {told['equal']:.1%} (greedy) and {told['equal_beam']:.1%} (beam) "
                f"of {told['graphs']} graphs, log-probabilities within {told['log_probability_gap']:.2g}"
            )
    return made


def _validation(guided: GuidedCaptioner, config: ArchiveConfig) -> tuple[NDArray[np.uint8], list[RoleGraph]]:
    """Pictures and graphs of some regions, as serving would see them."""
    assert config.data_path is not None
    annotations = AnnotationFolder(config.annotations or config.data_path / "annotations")
    if not annotations.has(config.eval_set):
        splits = ", ".join(annotations.splits()) or "none"
        raise DataError(f"{annotations.folder} has no split {config.eval_set!r}; choose one of {splits}.")
    skipped = Skipped()
    regions = annotations.regions(config.eval_set, skipped)
    regions = [regions[index] for index in spread_evenly(len(regions), config.parity_graphs)]
    folder = ImageFolder(config.images or config.data_path, {region.file_name for region in regions})
    pixels: list[NDArray[np.uint8]] = []
    graphs: list[RoleGraph] = []
    for region in folder.keep_found(regions, skipped, faults=unreadable(folder.paths)):
        own, geometry = load_input(folder.paths[region.file_name], guided.features.config)
        role = region.graph.role_graph(guided.captioner.config.max_nodes)
        pixels.append(own)
        graphs.append(role.with_boxes(geometry.to_input(role.boxes)))
    return np.stack(pixels), graphs


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
