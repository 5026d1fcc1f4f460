"""What a captioner is worth on a set: objects mentioned, CIDEr, and CIDEr when the graph is another
image's."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from saaa import archive
from saaa.errors import DataError
from saaa.models.guided import GuidedCaptioner
from saaa.work import CaptionOptions
from training.ega.config import EvaluateConfig
from training.ega.dataset import load_input
from training.ega.metrics import ObjectWords, cider, count_mentions, derangement, ratio_interval
from training.ega.published import AnnotationFolder, ImageFolder, Region, Skipped
from training.ega.state import load_guided
from training.progress import progress

TRAIN_SET = "trn"


def evaluate(config: EvaluateConfig) -> dict[str, Any]:
    """Measure; prints a summary, writes the JSON if asked, and gives the figures.

    Raises:
        DataError: the data are missing or malformed, or are of one image only.
        ArchiveError, CheckpointError: the model cannot be read.
    """
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    if config.archive is not None:
        guided = GuidedCaptioner.from_archive(archive.read(config.archive))
    else:
        assert config.checkpoint is not None
        guided, _ = load_guided(config.checkpoint)
    guided = guided.to(config.device)
    skipped = Skipped()
    annotations = AnnotationFolder(config.annotations or config.data_path / "annotations")
    regions = annotations.regions(config.eval_set, skipped)
    folder = ImageFolder(config.images or config.data_path, {region.file_name for region in regions})
    regions = folder.keep_found(regions, skipped)
    if skipped.reasons:
        print(skipped.summary())
    # The vocabulary of object nouns is that of training and this set, so that a wrong noun counts wherever
    # it is from.
    nouns = ObjectWords(annotations.object_names((TRAIN_SET, config.eval_set)))

    said = _caption(guided, regions, regions, folder, config, "captions")
    other = other_regions(regions, config.seed)
    said_otherwise = _caption(guided, regions, other, folder, config, "captions, other graphs")

    mentions = count_mentions(nouns, said, [[o.name for o in r.graph.objects] for r in regions])
    references = [region.captions for region in regions]
    own, shuffled = cider(said, references), cider(said_otherwise, references)
    ratio = float(own.mean() / shuffled.mean()) if shuffled.mean() > 0 else None
    low, high = ratio_interval(own, shuffled, seed=config.seed, resamples=config.resamples)
    figures: dict[str, Any] = {
        "eval_set": config.eval_set,
        "regions": len(regions),
        "skipped": len(skipped.reasons),
        "beam_width": config.beam_width,
        "ega_object_recall": mentions.recall,
        "ega_object_precision": mentions.precision,
        "ega_cider": float(own.mean()),
        "ega_cider_shuffled": float(shuffled.mean()),
        "ega_cider_ratio": ratio,
        "ega_cider_ratio_interval": [end if np.isfinite(end) else None for end in (low, high)],
    }
    for name, value in figures.items():
        if name.startswith("ega_"):
            print(f"{name} {_show(value)}")
    if config.output is not None:
        samples = [
            {
                "image": region.image_id,
                "region": region.region_id,
                "caption": " ".join(words),
                "other_graph": {"image": there.image_id, "caption": " ".join(otherwise)},
                "cider": value,
            }
            for region, there, words, otherwise, value in zip(
                regions, other, said, said_otherwise, own.tolist(), strict=True
            )
        ]
        _write(config.output, {**figures, "captions": samples})
    return figures


def other_regions(regions: Sequence[Region], seed: int) -> list[Region]:
    """For each region one of another image; the images are dealt out so that each is used by one other.

    Raises:
        DataError: all regions are of one image.
    """
    by_image: dict[str, list[Region]] = {}
    for region in regions:
        by_image.setdefault(region.image_id, []).append(region)
    images = list(by_image)
    if len(images) < 2:
        raise DataError(f"All regions are of image {images[0]}; comparing with another's graph needs two.")
    other = dict(zip(images, (images[k] for k in derangement(len(images), seed)), strict=True))
    taken: dict[str, int] = dict.fromkeys(images, 0)
    out: list[Region] = []
    for region in regions:
        there = by_image[other[region.image_id]]
        out.append(there[taken[region.image_id] % len(there)])
        taken[region.image_id] += 1
    return out


def _caption(
    guided: GuidedCaptioner,
    regions: Sequence[Region],
    graphs_of: Sequence[Region],
    folder: ImageFolder,
    config: EvaluateConfig,
    what: str,
) -> list[tuple[str, ...]]:
    """Caption each region's image along the graph of the region beside it, the way serving does it."""
    options = CaptionOptions(beam_width=config.beam_width)
    said: list[tuple[str, ...]] = []
    for first in progress(range(0, len(regions), config.batch_size), what):
        rows = range(first, min(first + config.batch_size, len(regions)))
        pixels, graphs = [], []
        for row in rows:
            image, _ = load_input(folder.paths[regions[row].file_name], guided.features.config)
            pixels.append(image)
            # Another image's boxes come from that image's own geometry: they fit the input, whatever its
            # size.
            other = graphs_of[row]
            _, geometry = load_input(folder.paths[other.file_name], guided.features.config)
            graph = other.graph.role_graph(guided.captioner.config.max_nodes)
            graphs.append(graph.with_boxes(geometry.to_input(graph.boxes)))
        found = guided.caption(torch.from_numpy(np.stack(pixels)), graphs, options)
        said += [captions[0].words for captions in found]
    return said


def _show(value: Any) -> str:
    if isinstance(value, list):
        return " to ".join(_show(v) for v in value)
    return "none" if value is None else f"{value:.4g}"


def _write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.partial")
    aside.write_text(json.dumps(content, indent=1) + "\n")
    aside.replace(path)
