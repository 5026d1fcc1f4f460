"""What a captioner is worth on a set: along the true graph, along one proposed for the image, along another image's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from saaa import archive
from saaa.errors import DataError
from saaa.models.guided import GuidedCaptioner
from training.distributed import torch_device
from training.ega.captioning import PROPOSED, SHUFFLED, TRUE, Said, caption_regions
from training.ega.checkpoints import load_guided
from training.ega.comparison import Along, Compared, write_page
from training.ega.config import EvaluateConfig
from training.ega.diversity import diversity
from training.ega.intervals import difference_interval, ratio_interval
from training.ega.mentions import Mentions, Wording
from training.ega.metrics import cider, score
from training.ega.proposals import propose_graphs
from training.ega.published import AnnotationFolder, ImageFolder, Region, Skipped
from training.ega.readable import unreadable
from training.ega.shuffled import graphs_of, other_regions
from training.files import write_json

TRAINING = "trn"
"""How the names of splits to train on begin."""


def evaluate(config: EvaluateConfig) -> dict[str, Any]:
    """Measure; prints a summary and gives the figures. If asked, writes them with all captions as JSON, and beside it a
    page that shows captions along the graphs side by side.

    Shares and accuracies are 0 to 1, metrics x 100; a figure that cannot be computed is None. The captions along every
    graph are compared with the references of the region and with the region's own graph. Intervals are of 95 %, by
    drawing images anew.

    Raises:
        DataError: the data are missing or malformed, or are of one image only.
        ArchiveError, CheckpointError: a model cannot be read.
        OptionInvalid: the proposer is no classifier.
    """
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    guided = _model(config).to(torch_device(config.device))
    skipped = Skipped()
    annotations = AnnotationFolder(config.annotations or config.data_path / "annotations")
    if not annotations.has(config.eval_set):
        splits = ", ".join(annotations.splits()) or "none"
        raise DataError(f"{annotations.folder} has no split {config.eval_set!r}; choose one of {splits}.")
    regions = annotations.regions(config.eval_set, skipped)
    folder = ImageFolder(config.images or config.data_path, {region.file_name for region in regions})
    regions = folder.keep_found(regions, skipped, faults=unreadable(folder.paths))
    if skipped.reasons:
        print(skipped.summary())

    others = other_regions(regions, config.seed)
    graphs = {TRUE: [region.graph for region in regions]}
    if config.proposer is not None:
        proposed = propose_graphs(config.proposer, [region.file_name for region in regions], folder)
        graphs[PROPOSED] = [proposed[region.file_name] for region in regions]
    graphs[SHUFFLED] = graphs_of(others, regions, folder, guided.features.config)
    said = caption_regions(guided, regions, graphs, folder, config)

    words = {kind: [caption.words for caption in captions] for kind, captions in said.along.items()}
    references = [region.captions for region in regions]
    ciders = {kind: cider(captions, references) for kind, captions in words.items()}
    wording = _wording(annotations, regions)
    mentions = {kind: wording.count(captions, graphs[TRUE]) for kind, captions in words.items()}
    figures: dict[str, Any] = {
        # Of the archive that was measured, so that nothing else is released by these figures.
        "digest": archive.info(config.archive).digest if config.archive is not None else None,
        "eval_set": config.eval_set,
        "regions": len(regions),
        "images": len({region.image_id for region in regions}),
        "skipped": len(skipped.reasons),
        "beam_width": config.beam_width,
        **_figures(said, regions, ciders, mentions, config),
    }
    _print(figures)
    if config.output is not None:
        write_json(config.output, {**figures, "captions": _captions(regions, others, said, ciders)})
        page = config.output.with_suffix(".html")
        along = {
            kind: [Along(*one) for one in zip(made, said.along[kind], ciders[kind].tolist(), strict=True)]
            for kind, made in graphs.items()
        }
        compared = [Compared(region, {kind: a[k] for kind, a in along.items()}) for k, region in enumerate(regions)]
        write_page(page, compared, folder, figures)
        print(f"{config.output}, {page}")
    return figures


def _model(config: EvaluateConfig) -> GuidedCaptioner:
    if config.archive is not None:
        return GuidedCaptioner.from_archive(archive.read(config.archive))
    assert config.checkpoint is not None
    return load_guided(config.checkpoint)[0]


def _wording(annotations: AnnotationFolder, regions: Sequence[Region]) -> Wording:
    """Of training and this set together, so that a wrong noun counts wherever it is from."""
    known = {(region.image_id, region.region_id): region for region in regions}
    for split in annotations.splits():
        if split.startswith(TRAINING):
            known |= {(r.image_id, r.region_id): r for r in annotations.regions(split, Skipped())}
    return Wording([region.graph for region in known.values()], [region.captions for region in known.values()])


def _figures(
    said: Said,
    regions: Sequence[Region],
    ciders: Mapping[str, NDArray[np.float64]],
    mentions: Mapping[str, Mentions],
    config: EvaluateConfig,
) -> dict[str, Any]:
    images = [region.image_id for region in regions]
    references = [region.captions for region in regions]
    own, shuffled = ciders[TRUE], ciders[SHUFFLED]
    drawing: dict[str, Any] = {"images": images, "seed": config.seed, "resamples": config.resamples}
    scores = score([caption.words for caption in said.along[TRUE]], references)
    several = {way: diversity(captions, references) for way, captions in said.several.items()}
    true = mentions[TRUE]
    return {
        "ega_object_recall": true.objects.recall,
        "ega_object_precision": true.objects.precision,
        "ega_cider": float(own.mean()),
        "ega_cider_shuffled": float(shuffled.mean()),
        "ega_cider_ratio": float(own.mean() / shuffled.mean()) if shuffled.mean() > 0 else None,
        "ega_cider_ratio_interval": [
            end if np.isfinite(end) else None for end in ratio_interval(own, shuffled, **drawing)
        ],
        "metrics": scores.values,
        "missing": scores.missing,
        "mention": {
            "object": true.objects.recall,
            "attribute": true.attributes.recall,
            "relationship": true.relationships.recall,
        },
        "object_precision": true.objects.precision,
        "node_accuracy": said.node_accuracy,
        "said_node_accuracy": said.said_node_accuracy,
        "diversity": {way: asdict(found) if found else None for way, found in several.items()},
        "graphs": {
            kind: {
                "cider": float(values.mean()),
                "object_recall": mentions[kind].objects.recall,
                "object_precision": mentions[kind].objects.precision,
            }
            for kind, values in ciders.items()
        },
        "proposed_above_shuffled": None
        if PROPOSED not in ciders
        else {
            "difference": float((ciders[PROPOSED] - shuffled).mean()),
            "interval": list(difference_interval(ciders[PROPOSED], shuffled, **drawing)),
        },
    }


def _captions(
    regions: Sequence[Region],
    others: Sequence[Region],
    said: Said,
    ciders: Mapping[str, NDArray[np.float64]],
) -> list[dict[str, Any]]:
    def entry(kind: str, row: int) -> dict[str, Any]:
        return {"caption": " ".join(said.along[kind][row].words), "cider": float(ciders[kind][row])}

    return [
        {
            "image": region.image_id,
            "region": region.region_id,
            **entry(TRUE, row),
            "other_graph": {"image": other.image_id, "region": other.region_id, **entry(SHUFFLED, row)},
            "proposed": entry(PROPOSED, row) if PROPOSED in ciders else None,
        }
        for row, (region, other) in enumerate(zip(regions, others, strict=True))
    ]


def _print(figures: Mapping[str, Any], path: str = "") -> None:
    """Every figure on a line of its own, under its path in the JSON."""
    for name, value in figures.items():
        if isinstance(value, Mapping):
            _print(value, f"{path}{name}.")
        else:
            print(f"{path}{name} {_show(value)}")


def _show(value: Any) -> str:
    if isinstance(value, list):
        return " to ".join(_show(v) for v in value)
    if isinstance(value, float):
        return f"{value:.4g}"
    return "none" if value is None else str(value)
