"""`saaa-train pack`: graphs, captions and features of the published files in one cache.

What cannot be used is named in skipped.txt and left out: a region whose file, graph or captions are wrong, whose image
is not in the split, or has no features, or no features for one of its boxes. What can be used in part is counted in
pack.json: graphs and captions that were cut, words outside the vocabulary, boxes that were matched inexactly.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from saaa.errors import DataError
from saaa.models.captioner.vocabulary import EOS, Vocabulary
from training.ega.alignment import align, name_nodes
from training.ega.noticed import noticed, read_text
from training.ega.published import AnnotationFolder, Region, Skipped
from training.features.layout import GLOBAL, RUN, BoxKey, ImageFeatures, read_global, read_image
from training.features.layout import REGIONS as REGION_FEATURES
from training.files import whole_folder
from training.pack.config import PackConfig
from training.pack.layout import ARRAYS, FEATURES, FORMAT, HEAD, REGIONS, SKIPPED, WORDS
from training.pack.moments import Moments
from training.progress import progress


def pack(config: PackConfig) -> dict[str, Any]:
    """Pack the splits; prints a summary of each and gives the contents of their pack.json by name.

    Raises:
        DataError: a list, the vocabulary or the global features are missing or malformed, there is no such split, no
            region of a split is left, or the output cannot be written.
    """
    notes = AnnotationFolder(config.annotations or config.data_path / "annotations")
    vocabulary = notes.vocabulary()
    there = notes.splits()
    if unknown := [split for split in config.splits if split not in there] or ([] if there else ["any split"]):
        raise DataError(f"{notes.folder} has no {unknown[0]}; it has {', '.join(there) or 'none'}.")
    reports = {}
    for split in config.splits or there:
        folder = config.output_dir / split
        _check_output(folder)
        with whole_folder(folder) as aside:
            reports[split] = _pack_split(config, notes, split, vocabulary, aside)
        print(f"{folder}: {_summary(reports[split])}")
    return reports


def _check_output(folder: Path) -> None:
    if folder.exists() and not (folder / HEAD).is_file():
        raise DataError(f"{folder} holds something else; give another --output_dir.")


@dataclass
class _Columns:
    """The arrays of a split while they grow; see `training.pack.layout`."""

    image: list[NDArray[np.float32]] = field(default_factory=list)
    image_of: list[int] = field(default_factory=list)
    nodes: list[NDArray[np.int64]] = field(default_factory=list)
    edges: list[NDArray[np.int64]] = field(default_factory=list)
    regions: list[Region] = field(default_factory=list)
    moments: Moments = field(default_factory=Moments)
    """Of the features of all nodes."""
    rows: int = 0
    """Of features, written so far."""
    region_size: int = 0
    near: int = 0
    """Regions with a box that was matched inexactly."""
    cut: int = 0
    """Graphs that were cut."""


def _pack_split(
    config: PackConfig, notes: AnnotationFolder, split: str, vocabulary: Vocabulary, folder: Path
) -> dict[str, Any]:
    skipped = Skipped()
    regions = notes.regions(split, skipped)
    images = {image: row for row, image in enumerate(notes.image_ids(split))}
    whole_images = read_global(config.global_features or config.features / GLOBAL, split, len(images))
    source = config.region_features or config.features / REGION_FEATURES
    columns = _Columns()
    with (folder / FEATURES).open("wb") as file:
        by_image = [(image, list(group)) for image, group in groupby(regions, key=lambda region: region.image_id)]
        for image, group in progress(by_image, f"pack {split}", unit="image"):
            try:
                if image not in images:
                    raise DataError(f"public_split/{split}_names.npy does not list the image")
                row = np.asarray(whole_images[images[image]], np.float32)
                if not np.isfinite(row).all():
                    raise DataError("the image's global features are not all numbers")
                stored = read_image(source, image)
                if columns.region_size not in (0, stored.features.shape[1]):
                    raise DataError(f"its boxes have {stored.features.shape[1]} features, not {columns.region_size}")
            except DataError as error:
                for region in group:
                    skipped.add(_name(region), error.message)
                continue
            _add_image(columns, group, row, stored, config, file, skipped)
    if not columns.regions:
        raise DataError(f"No region of the split {split} can be packed. {skipped.summary()}.")
    report = _write(columns, config, vocabulary, folder)
    (folder / SKIPPED).write_text("".join(f"{reason}\n" for reason in skipped.reasons), encoding="utf-8")
    report = {"format": FORMAT, "split": split, **report, "features": _origin(config), "skipped": len(skipped.reasons)}
    report["first_skipped"] = skipped.reasons[:3]
    (folder / HEAD).write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return report


def _name(region: Region) -> str:
    return f"region {region.region_id} of image {region.image_id}"


def _add_image(
    columns: _Columns,
    group: Sequence[Region],
    image: NDArray[np.float32],
    stored: ImageFeatures,
    config: PackConfig,
    file: BinaryIO,
    skipped: Skipped,
) -> None:
    """Add the regions of one image, and the features of those boxes that they need."""
    boxes = _Boxes(stored, config.box_tolerance)
    written: dict[int, int] = {}
    """Row of the stored features to row of the cache."""
    first, begun = columns.rows, len(columns.regions)
    for region in group:
        graph = region.graph.role_graph(config.max_nodes)
        keys = [(int(a), int(b), int(c) - 1, int(d) - 1) for a, b, c, d in graph.boxes]
        try:
            found = [boxes.find(key) for key in keys]
        except DataError as error:
            skipped.add(_name(region), error.message)
            continue
        for row, _ in found:
            if row not in written:
                file.write(np.ascontiguousarray(stored.features[row], np.dtype("<f4")).tobytes())
                written[row] = columns.rows
                columns.rows += 1
        rows = np.array([written[row] for row, _ in found])
        columns.nodes.append(np.stack([rows, graph.types, graph.orders], axis=1))
        columns.edges.append(graph.edges)
        columns.regions.append(region)
        columns.image_of.append(len(columns.image))
        columns.near += not all(exact for _, exact in found)
        columns.cut += len(region.graph.nodes()) > config.max_nodes
    if len(columns.regions) > begun:
        columns.image.append(image)
        columns.region_size = stored.features.shape[1]
        times = np.bincount(np.concatenate([nodes[:, 0] for nodes in columns.nodes[begun:]]) - first)
        columns.moments.add(stored.features[list(written)], times)


class _Boxes:
    """Finds stored boxes; those of one image."""

    def __init__(self, stored: ImageFeatures, tolerance: int) -> None:
        self._stored, self._tolerance = stored, tolerance
        # Published boxes are whole numbers, in some files written as floats.
        whole = np.rint(stored.boxes).astype(np.int64).tolist()
        self._rows: dict[BoxKey, int] = {(a, b, c, d): row for row, (a, b, c, d) in reversed(list(enumerate(whole)))}

    def find(self, key: BoxKey) -> tuple[int, bool]:
        """The row of a box's features, and whether it is the very box.

        Raises:
            DataError: no stored box is near enough, or its features are not all numbers.
        """
        row = self._rows.get(key)
        exact = row is not None
        if row is None:
            if not len(self._stored.boxes):
                raise DataError("its image has no features of boxes")
            distances = np.abs(self._stored.boxes - np.array(key)).max(1)
            row = int(distances.argmin())
            if distances[row] > self._tolerance:
                raise DataError(
                    f"there are no features of the box {key}; the nearest is {distances[row]:g} pixels off "
                    "(--box_tolerance)"
                )
        if not np.isfinite(self._stored.features[row]).all():
            raise DataError(f"the features of the box {key} are not all numbers")
        return row, exact


def _write(columns: _Columns, config: PackConfig, vocabulary: Vocabulary, folder: Path) -> dict[str, Any]:
    """Write everything but the features; give what pack.json says."""
    regions = columns.regions
    called, names = name_nodes((region.graph for region in regions), config.max_nodes)
    encoded = [vocabulary.encode(caption, config.max_tokens) for region in regions for caption in region.captions]
    captions = np.full((len(encoded), max(map(len, encoded))), EOS, np.int32)
    for row, ids in enumerate(encoded):
        captions[row, : len(ids)] = ids
    named = list(_named(regions, config, captions.shape[1]))
    numbers = np.concatenate([np.array(n, np.int64) for n in called])[:, None]
    arrays: dict[str, NDArray[Any]] = {
        "image": np.stack(columns.image),
        "region_moments": columns.moments.finish(),
        "image_moments": Moments().add(np.stack(columns.image), np.ones(len(columns.image), np.int64)).finish(),
        "image_of": np.array(columns.image_of, np.int32),
        "nodes": np.concatenate([np.concatenate(columns.nodes), numbers], axis=1).astype(np.int32),
        "node_starts": _starts(columns.nodes),
        "edges": np.concatenate(columns.edges).astype(np.uint8),
        "edge_starts": _starts(columns.edges),
        "captions": captions,
        "lengths": np.array([len(ids) for ids in encoded], np.int64),
        "region_of": np.repeat(np.arange(len(regions)), [len(region.captions) for region in regions]),
        "named": np.concatenate([places for places, _ in named]).astype(np.uint8),
        "named_weight": np.concatenate([weights for _, weights in named]).astype(np.float16),
        "named_starts": _starts([places for places, _ in named]),
    }
    for name in ARRAYS:
        np.save(folder / f"{name}.npy", arrays[name])
    with (folder / REGIONS).open("w", encoding="utf-8") as lines:
        for region in regions:
            record = {"image_id": region.image_id, "region_id": region.region_id, "captions": region.captions}
            lines.write(json.dumps({**record, "graph": region.graph.to_region()}, ensure_ascii=False) + "\n")
    (folder / WORDS).write_text(json.dumps(vocabulary.words, ensure_ascii=False) + "\n", encoding="utf-8")
    return {
        "images": len(columns.image),
        "regions": len(regions),
        "captions": len(encoded),
        "nodes": len(arrays["nodes"]),
        "rows": columns.rows,
        "region_size": columns.region_size,
        "image_size": arrays["image"].shape[1],
        "names": names,
        "max_nodes": config.max_nodes,
        "graphs_cut": columns.cut,
        "boxes_inexact": columns.near,
        **read_text(regions, vocabulary, config.max_tokens),
    }


def _origin(config: PackConfig) -> dict[str, Any] | None:
    """What made the features, as `saaa-train features` noted it; None of published ones.

    Raises:
        DataError: its note cannot be read.
    """
    path = config.features / RUN
    if config.global_features is not None or config.region_features is not None or not path.exists():
        return None
    try:
        made: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["identity"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is not of saaa-train features; remove it if the features are not, either.") from error
    return made


def _named(
    regions: Sequence[Region], config: PackConfig, tokens: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """For each caption the (token, node) pairs where a word names a node, and their weights."""
    for region in regions:
        for caption in region.captions:
            words = caption.split()[: tokens - 1]
            weights = align(words, region.graph, config.max_nodes).numpy()
            word, node = weights.nonzero()
            yield np.stack([word + 1, node], axis=1), weights[word, node]  # BOS comes first


def _starts(parts: Sequence[NDArray[Any]]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int64)


def _summary(report: Mapping[str, Any]) -> str:
    lines = noticed(report)
    if report["skipped"]:
        lines.append(f"skipped {report['skipped']} regions, see {SKIPPED}: {'; '.join(report['first_skipped'])}")
    counts = f"{report['regions']} regions, {report['captions']} captions, {report['images']} images"
    return "\n  ".join([counts, *lines])
