"""What there is to explain: the images of a folder, with their classes and graphs where the data tell them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from saaa.errors import DataError, ImageRejected, SceneGraphError
from saaa.fitting import Picture
from saaa.geometry import Geometry
from saaa.scene_graph import Relationship, SceneGraph, SceneObject
from saaa.work import ItemError, ModelInfo, ModelKind
from training.attribute.config import AttributeConfig
from training.ega.published import AnnotationFolder, ImageFolder, Region, Skipped
from training.egdd.listing import IMAGE_SUFFIXES

ANNOTATIONS, REGION_FILES, SCENES = "annotations", "regionfiles", "scenes.jsonl"
MAX_SCENE_NODES = 10_000
"""A classifier's maps are aggregated to all that is known of an image, so its graph may be large."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """One thing to explain: an image, or for a captioner a region of one."""

    file: str
    """Path relative to the data folder, with "/"."""
    path: Path
    label: str | None = None
    """The innermost folder named after a class of the model."""
    region: str | None = None
    graph: SceneGraph | None = None
    """Boxes in pixels of the image."""


@dataclass(frozen=True, kw_only=True)
class Items:
    """All there is to explain, in a fixed order."""

    all: tuple[Item, ...]
    skipped: tuple[str, ...] = ()
    """Regions of the annotations that cannot be used, and why."""

    @property
    def digest(self) -> str:
        """SHA-256 over names, sizes and graphs: whether it is the same data set, without reading the images."""
        digest = hashlib.sha256()
        for item in self.all:
            graph = None if item.graph is None else item.graph.to_region()
            size = item.path.stat().st_size if item.path.exists() else -1
            digest.update(json.dumps([item.file, size, item.label, item.region, graph]).encode())
        return digest.hexdigest()


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """An item as the model takes it. Without `pixels` and `geometry` there is an `error`."""

    item: Item
    sha256: str | None = None
    """Of the image file."""
    width: int = 0
    """Of the upright image."""
    height: int = 0
    pixels: NDArray[np.uint8] | None = None
    """(S, S, 3), the model's input."""
    geometry: Geometry | None = None
    error: ItemError | None = None


def find_items(config: AttributeConfig, model: ModelInfo) -> Items:
    """Find what to explain.

    Raises:
        DataError: no such folder, nothing in it, or what the model or an option needs is not there.
    """
    if not config.data.is_dir():
        raise DataError(f"There is no folder {config.data}; give the images with --data.")
    annotations = config.annotations
    if annotations is None and (config.data / ANNOTATIONS / REGION_FILES).is_dir():
        annotations = config.data / ANNOTATIONS
    if annotations is not None:
        items = _annotated(config, model, annotations)
    elif model.kind is ModelKind.EGA:
        raise DataError(
            f"A captioner is guided by graphs, and {config.data} has none in {ANNOTATIONS}/{REGION_FILES}; "
            "name the folder with --annotations."
        )
    elif config.split is not None:
        raise DataError("--split names a split of annotations, and there are none; name the folder with --data.")
    else:
        items = _plain(config, model)
    if config.limit is not None and config.limit < len(items.all):
        count = len(items.all)
        items = replace(items, all=tuple(items.all[k * count // config.limit] for k in range(config.limit)))
    return items


def _plain(config: AttributeConfig, model: ModelInfo) -> Items:
    files = sorted(path for path in config.data.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
    if not files:
        raise DataError(f"There is no image in {config.data} (looked for {', '.join(sorted(IMAGE_SUFFIXES))}).")
    return Items(all=tuple(_item(path, config.data, model) for path in files))


def _item(path: Path, root: Path, model: ModelInfo) -> Item:
    file = path.relative_to(root)
    named = [folder for folder in file.parts[:-1] if folder in model.classes]
    return Item(file=file.as_posix(), path=path, label=named[-1] if named else None)


def _annotated(config: AttributeConfig, model: ModelInfo, folder: Path) -> Items:
    notes, skipped = AnnotationFolder(folder), Skipped()
    splits = notes.splits()
    if config.split is not None and config.split not in splits:
        raise DataError(f"{folder} has no split {config.split!r}; choose one of {', '.join(splits) or 'none'}.")
    if not splits:
        raise DataError(f"{folder / REGION_FILES} lists no split (<split>_names.npy).")
    regions = [region for split in splits if config.split in (None, split) for region in notes.regions(split, skipped)]
    images = ImageFolder(config.data, {region.file_name for region in regions})
    regions = images.keep_found(regions, skipped)
    by_image: dict[str, list[Region]] = {}
    for region in regions:
        by_image.setdefault(region.file_name, []).append(region)
    scenes = _scenes(config.data)
    items: list[Item] = []
    for name, said in by_image.items():
        plain = _item(images.paths[name], config.data, model)
        if model.kind is ModelKind.EGA:
            items += [replace(plain, region=region.region_id, graph=region.graph) for region in said]
        else:
            graph = scenes.get(plain.file) or union(region.graph for region in said)
            items.append(replace(plain, graph=graph))
    return Items(all=tuple(items), skipped=tuple(skipped.reasons))


def _scenes(world: Path) -> dict[str, SceneGraph]:
    """The whole graph of every picture of a procedural world, by its file; empty for other data."""
    path = world / SCENES
    if not path.is_file():
        return {}
    try:
        records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return {r["file"]: SceneGraph.from_region(r, max_nodes=MAX_SCENE_NODES) for r in records}
    except (OSError, ValueError, KeyError, TypeError, SceneGraphError) as error:
        raise DataError(f"{path} does not describe the scenes of a world: {error}") from error


def union(graphs: Iterable[SceneGraph]) -> SceneGraph:
    """Join the graphs of an image's regions: an object id is one object, with the attributes of all regions.

    Where regions disagree on an object's name or box, the first one counts. Relationships are numbered anew, since
    regions count theirs from 1 each.
    """
    objects: dict[int, SceneObject] = {}
    links: dict[tuple[int, int, str], None] = {}
    for graph in graphs:
        for thing in graph.objects:
            known = objects.setdefault(thing.id, thing)
            attributes = tuple(dict.fromkeys((*known.attributes, *thing.attributes)))
            objects[thing.id] = replace(known, attributes=attributes)
        links.update(dict.fromkeys((link.subject_id, link.object_id, link.name) for link in graph.relationships))
    numbered = tuple(Relationship(k, *link) for k, link in enumerate(links, 1))
    return SceneGraph(tuple(objects.values()), numbered, max_nodes=MAX_SCENE_NODES)


def load(item: Item, model: ModelInfo) -> Loaded:
    """Read, decode and resize one image as serving does; what is wrong with it becomes its error."""
    try:
        data = item.path.read_bytes()
    except OSError as error:
        message = f"the file cannot be read: {error.strerror or error}"
        return Loaded(item=item, error=ItemError(reason="IMAGE_UNREADABLE", message=message))
    sha256 = hashlib.sha256(data).hexdigest()
    try:
        picture = Picture(data)
        pixels, geometry = picture.fit(model)
    except ImageRejected as error:
        return Loaded(item=item, sha256=sha256, error=ItemError(reason=error.reason, message=error.message))
    width, height = picture.header.size
    return Loaded(item=item, sha256=sha256, width=width, height=height, pixels=pixels, geometry=geometry)


def load_ahead(batches: Sequence[Sequence[Item]], model: ModelInfo, *, workers: int) -> Iterator[list[Loaded]]:
    """Load batch after batch, the next one while the caller works on this one; no more is held in memory."""
    with ThreadPoolExecutor(workers) as pool:

        def begin(items: Sequence[Item]) -> list[Future[Loaded]]:
            return [pool.submit(load, item, model) for item in items]

        coming = [begin(items) for items in batches[:1]]
        for number in range(len(batches)):
            coming += [begin(items) for items in batches[number + 1 : number + 2]]
            yield [future.result() for future in coming.pop(0)]
