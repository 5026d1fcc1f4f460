"""Which images there are, of which classes, and where their bytes lie; the same for folders and shards."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from saaa.errors import DataError
from training.files import write_json

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"})


@dataclass(frozen=True, slots=True)
class Extent:
    """Where an image's bytes lie."""

    file: str
    """Relative to the listing's root, or absolute."""
    start: int = 0
    """First byte."""
    size: int = -1
    """Number of bytes; -1 is all that follow."""


@dataclass(frozen=True)
class Listing:
    """The images of a folder, by class, then by name; what others `join` follows."""

    root: Path
    classes: tuple[str, ...]
    names: tuple[str, ...]
    """What the images are called, all different; in class folders the path below root."""
    labels: tuple[int, ...]
    """Index into classes, one an image."""
    extents: tuple[Extent, ...]
    """One an image."""
    problems: tuple[tuple[str, str], ...] = ()
    """What was found and is no usable image, and why."""

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> bytes:
        """Give the encoded image.

        Raises:
            DataError: it cannot be read, or the file has become shorter.
        """
        extent = self.extents[index]
        path = self.root / extent.file
        try:
            with path.open("rb") as file:
                file.seek(extent.start)
                data = file.read(extent.size)
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
        if len(data) < extent.size:
            raise DataError(f"{path} has become shorter since it was listed; start again.")
        return data

    def place(self, index: int) -> str:
        """Say where a person finds the image: its path (below root; absolute if it was joined), or the shard's and its
        name there."""
        file, name = self.extents[index].file, self.names[index]
        return file if self.extents[index].size < 0 else f"{file}: {name}"

    def join(self, other: Listing, mark: str) -> Listing:
        """Add the images of another folder, of the same classes.

        Args:
            other: they follow this listing's.
            mark: goes before their names, so that they differ from this listing's and say nothing of where they lie.
        """
        root = other.root.absolute()
        return Listing(
            self.root,
            self.classes,
            (*self.names, *(f"{mark}/{name}" for name in other.names)),
            (*self.labels, *other.labels),
            (*self.extents, *(replace(extent, file=str(root / extent.file)) for extent in other.extents)),
            (*self.problems, *((str(root / place), reason) for place, reason in other.problems)),
        )

    def take(self, indices: Sequence[int]) -> Listing:
        """Keep some of the images, and no problems: those belong to the whole."""
        return Listing(
            self.root,
            self.classes,
            tuple(self.names[i] for i in indices),
            tuple(self.labels[i] for i in indices),
            tuple(self.extents[i] for i in indices),
        )


def list_folders(root: Path, classes: Sequence[str] | None = None) -> Listing:
    """Find the images of `root`/<class>/, at any depth below the class.

    Args:
        root: the folder.
        classes: the classes a model knows; default: those of the folder, at least 2.

    Raises:
        DataError: a class without images, fewer than 2 classes, or a class the model does not know.
    """
    found = sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    if classes is None and len(found) < 2:
        raise DataError(f"{root} needs a folder for each of at least 2 classes; it has {len(found)}: {found}.")
    known = tuple(found if classes is None else classes)
    unknown = sorted(set(found) - set(known))
    if unknown or not found:
        raise DataError(f"The class folders of {root} must be among {list(known)}; found {unknown or 'none'}.")
    names: list[str] = []
    labels: list[int] = []
    for label, name in sorted((known.index(name), name) for name in found):
        images = sorted(
            p.relative_to(root).as_posix() for p in (root / name).rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES
        )
        if not images:
            raise DataError(f"The class folder {root / name} holds no image; fill it or remove it.")
        names.extend(images)
        labels.extend([label] * len(images))
    return Listing(root, known, tuple(names), tuple(labels), tuple(map(Extent, names)))


def save_classes(classes: Sequence[str], path: Path) -> None:
    """Write classes.json, {name: index}; `read_classes` reads it.

    Raises:
        DataError: it cannot be written.
    """
    write_json(path, {name: index for index, name in enumerate(classes)})


def read_classes(path: Path) -> tuple[str, ...]:
    """Read class names in order: a JSON list of them, JSON {name: index}, or one a line.

    Raises:
        DataError: no such file, or it holds something else, fewer than 2 names, or one twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"The class names in {path} cannot be read: {error}") from error
    try:
        content = json.loads(text)
    except ValueError:
        content = [line.strip() for line in text.splitlines() if line.strip()]
    if isinstance(content, dict) and sorted(map(str, content.values())) == sorted(map(str, range(len(content)))):
        content = sorted(content, key=lambda name: int(content[name]))
    if not isinstance(content, list) or not all(isinstance(name, str) for name in content):
        raise DataError(f"{path} holds no class names; give a JSON list, JSON {{name: index from 0}}, or one a line.")
    if len(content) < 2 or len(set(content)) != len(content):
        raise DataError(f"{path} must name at least 2 classes, each once; it names {len(content)}: {content[:20]}.")
    return tuple(content)
