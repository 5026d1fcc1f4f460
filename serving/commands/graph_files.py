"""The photos named on the command line, and scene graphs from files for them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saaa.errors import OptionInvalid

Region = Mapping[str, Any]
"""One region of the published annotation format."""


_PICTURES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


@dataclass(frozen=True, kw_only=True)
class Question:
    """One photo with at most one graph."""

    photo: Path
    region_id: str = ""
    graph: Region | None = None

    @property
    def name(self) -> str:
        """How people are told of it."""
        return f"{self.photo}#{self.region_id}" if self.region_id else str(self.photo)


def find_pictures(paths: Sequence[Path]) -> list[Path]:
    """The files as named; of a folder, the pictures in it and below, by name.

    Raises:
        OptionInvalid: a folder has none.
    """
    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            found.append(path)
            continue
        inside = sorted(file for file in path.rglob("*") if file.suffix.lower() in _PICTURES and file.is_file())
        if not inside:
            kinds = " ".join(_PICTURES)
            raise OptionInvalid(f"The folder {path} holds no pictures ({kinds}).", field="photos")
        found += inside
    return found


def questions(photo: Path, graphs: Path | None, *, photos: int) -> Iterator[Question]:
    """One question a photo, or one a region where the graph file holds several.

    Args:
        photo: an image file; not read here.
        graphs: see `saaa analyze --graph`; None asks without a graph.
        photos: how many photos there are; a lone one needs no mention in the file.

    Raises:
        OptionInvalid: no graph for this photo, or the file cannot be used.
    """
    if graphs is None:
        yield Question(photo=photo)
        return
    path = _graph_file(photo, graphs)
    content = _load(path)
    if not _is_region(content) and photo.name in content:
        content = _mapping(content[photo.name], f"{path}: {photo.name}")
    elif photos > 1 and not graphs.is_dir():
        raise OptionInvalid(
            f"{graphs} has no graph for {photo.name}; for several photos give a folder with {photo.stem}.json, or a "
            "file whose keys are the photos' file names.",
            field="graph",
        )
    if _is_region(content):
        yield Question(photo=photo, graph=content)
        return
    if not content:
        raise OptionInvalid(f"{path} holds no region.", field="graph")
    for region_id, region in content.items():
        yield Question(photo=photo, region_id=region_id, graph=_mapping(region, f"{path}: {region_id}"))


def _graph_file(photo: Path, graphs: Path) -> Path:
    if not graphs.is_dir():
        return graphs
    for name in (f"{photo.stem}.json", f"{photo.name}.json"):
        if (graphs / name).is_file():
            return graphs / name
    raise OptionInvalid(f"{graphs} has no {photo.stem}.json with a graph for {photo.name}.", field="graph")


def _load(path: Path) -> Region:
    try:
        return _mapping(json.loads(path.read_bytes()), str(path))
    except OSError as error:
        raise OptionInvalid(f"The graph file {path} cannot be read: {error.strerror}.", field="graph") from None
    except (ValueError, RecursionError) as error:
        raise OptionInvalid(f"The graph file {path} is no JSON: {error}.", field="graph") from None


def _mapping(value: Any, where: str) -> Region:
    if not isinstance(value, dict):
        raise OptionInvalid(f"{where} must be a JSON object: a region, or regions by id.", field="graph")
    return value


def _is_region(content: Region) -> bool:
    return isinstance(content.get("objects"), list)
