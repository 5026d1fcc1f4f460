"""The export of the ratings store: JSON lines.

One rating is one JSON object; the export writes one a line, in the order in which they were kept, keys sorted:

    {
      "format": "saaa.rating.v1",
      "request_id": "...",                        names the rating, unique in a store
      "recorded_at": "2026-01-31T12:00:00.000Z",  UTC
      "annotator": "a7",                          absent when unknown
      "task": "relevance",                        or "human_graph"
      "relevance": {"content_type": "object" | "attribute" | "relationship",
                    "content_description": "lamp", "relevance": 4.5},      task "relevance"; 1 to 5
      "human_graph": {"objects": [...], "relationships": [...]},           task "human_graph"; published region JSON
      "image": {"sha256": "<64 hexadecimal digits>", "width": 640, "height": 480,
                "file": "<sha256>.png"},          "file" (only in an export with a folder for images) where the person
                                                  consented to keeping the image
      "attribution": {"target": "lamp", "target_kind": "class" | "word" | "node",
                      "target_index": 3,          class: its index; word: its place in the caption; 0-based
                      "target_probability": 0.7,  class
                      "target_node": {"kind", "id", "attribute_index", "name"},      node, in place of target_index
                      "method": "layer_lrp", "grid": [[row of numbers], ...],
                      "region": {"x", "y", "width", "height"}},            absent when no map was shown
      "graph": {"objects": [...], "relationships": [...], "source": "request" | "proposed"},     absent without one
      "caption": "a red lamp on a table",         absent without one
      "models": {"classifier": {"name", "version", "archive_sha256", "parameters": {...}}, "captioner": {...}},
      "software_version": "0.1.0", "backend": "torchserve"
    }

Region JSON is `saaa.scene_graph.SceneGraph.from_region`'s; pixels are those of the upright image. Strings are what
people and clients sent: text, never markup, names of files or commands.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from saaa.errors import DataError
from serving.ratings.place import Reader, place, spelled

FORMAT = "saaa.rating.v1"


def export_ratings(store: Path | str, out: TextIO, images: Path | None = None) -> int:
    """Write every rating as one JSON line each; arguments and errors are those of `read_ratings`.

    Returns:
        How many were written.
    """
    count = 0
    for rating in read_ratings(store, images):
        out.write(f"{spelled(rating)}\n")
        count += 1
    return count


def export_file(store: Path | str, out: Path, images: Path | None = None) -> int:
    """`export_ratings` to a file, which is whole or left as it was.

    Raises:
        DataError: also when the file or an image cannot be written.
    """
    if out.resolve() == Path(store).resolve():
        raise DataError(f"{out} is the store itself; name another file.")
    partial = out.with_name(f".{out.name}.partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            count = export_ratings(store, file, images)
        partial.replace(out)
    except OSError as error:
        raise DataError(f"{error.filename} cannot be written: {error.strerror}.") from None
    finally:
        partial.unlink(missing_ok=True)
    return count


def read_ratings(store: Path | str, images: Path | None = None) -> Iterator[dict[str, Any]]:
    """Every rating of a store, as exported; the store may be in use.

    Args:
        store: its file, or its URL.
        images: folder for the images that people let us keep, made when absent; None leaves them in the store.

    Raises:
        DataError: there is no such store, or it cannot be read.
        OptionInvalid: it is a URL that cannot be used.
    """
    with place(store).reading() as reader:
        for row in reader.rows():
            rating = {
                "format": FORMAT,
                "request_id": row.request_id,
                "recorded_at": row.recorded_at,
                **json.loads(row.content),
            }
            if images is not None and row.image_sha256 is not None:
                rating["image"]["file"] = f"{row.image_sha256}.{row.image_format}"
                _write_image(reader, row.image_sha256, images / rating["image"]["file"])
            yield rating


def _write_image(reader: Reader, sha256: str, path: Path) -> None:
    """Write an image unless it is there; a file is whole or absent."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(reader.image(sha256))
    partial.replace(path)
