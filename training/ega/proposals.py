"""Graphs proposed for images that have none, as serving proposes them for a request without one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from saaa.errors import DataError, OptionInvalid, SceneGraphError
from saaa.proposal import propose_graph
from saaa.runtime.executor import Executor
from saaa.scene_graph import SceneGraph
from saaa.work import ModelKind, Work, WorkBatch, WorkItem
from training.attribute.data import Item, load_ahead
from training.ega.published import ImageFolder
from training.files import write_json
from training.progress import counter

BATCH = 16
DECODERS = 2
"""Threads that read images ahead."""


def propose_graphs(
    archive_path: Path, names: Iterable[str], folder: ImageFolder, *, cache: Path | None = None
) -> dict[str, SceneGraph]:
    """Propose a graph for each image: the peaks of the attribution of its most probable class, by the archive's default
    method (`saaa.proposal`). A request without a graph is answered along the same graph.

    Args:
        archive_path: an EGDD archive.
        names: file names of the images; each is done once, however often it comes.
        folder: where the images are.
        cache: a JSON file that keeps the graphs: those of the same archive and the same image files are not computed
            again. A file that cannot be read is made anew.

    Returns:
        The graph of each image by its file name, boxes in pixels of the image; objects are called "region 1" and so on.

    Raises:
        ArchiveError: the archive cannot be used.
        OptionInvalid: it holds a captioner.
        DataError: an image cannot be read or explained, or the cache cannot be written.
    """
    executor = Executor.open(archive_path)
    if executor.info.kind is not ModelKind.EGDD:
        raise OptionInvalid(
            f"{archive_path} holds a captioner; graphs are proposed by an EGDD archive.", field="proposer"
        )
    keys = {name: _key(executor.info.digest, folder.paths[name]) for name in dict.fromkeys(names)}
    kept = _read(cache)
    graphs = {name: kept[key] for name, key in keys.items() if key in kept}
    missing = [name for name in keys if name not in graphs]
    made = _propose(executor, [Item(file=name, path=folder.paths[name]) for name in missing])
    graphs |= zip(missing, made, strict=True)
    if cache is not None and missing:
        write_json(cache, {keys[name]: graph.to_region() for name, graph in graphs.items()})
    return {name: graphs[name] for name in keys}


def _propose(executor: Executor, items: Sequence[Item]) -> Iterator[SceneGraph]:
    info = executor.info
    batches = [items[first : first + BATCH] for first in range(0, len(items), BATCH)]
    with counter("proposed graphs", total=len(items), show=bool(items)) as bar:
        for loaded in load_ahead(batches, info, workers=DECODERS):
            for one in loaded:
                if one.error is not None:
                    raise DataError(f"{one.item.path} cannot be read as an image: {one.error.message}")
            batch = WorkBatch(
                model=info.name,
                version=info.version,
                work=Work.EXPLAIN,
                pixels=np.stack([one.pixels for one in loaded if one.pixels is not None]),
                items=(WorkItem(),) * len(loaded),
            )
            for one, result in zip(loaded, executor.run(batch), strict=True):
                if result.error is not None:
                    raise DataError(f"No graph can be proposed for {one.item.path}: {result.error.message}")
                assert one.geometry is not None
                yield propose_graph(result.maps[0].values, one.geometry, (one.width, one.height))
            bar.update(len(loaded))


def _key(digest: str, path: Path) -> str:
    """What a proposal depends on: the model and the image, told by its file's size and time."""
    stat = path.stat()
    return hashlib.sha256(f"{digest} {path.name} {stat.st_size} {stat.st_mtime_ns}".encode()).hexdigest()


def _read(cache: Path | None) -> dict[str, SceneGraph]:
    if cache is None:
        return {}
    try:
        kept: dict[str, Any] = json.loads(cache.read_text(encoding="utf-8"))
        return {key: SceneGraph.from_region(region) for key, region in kept.items()}
    except (OSError, ValueError, AttributeError, SceneGraphError):
        return {}  # there is no cache yet, or not a whole one
