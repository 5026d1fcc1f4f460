"""<split>_opt: a split of the published formats without its hard instances (EGDD of RA3: "val_sub_opt")."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from saaa.errors import DataError
from training.ega.names import read_names
from training.ega.published import AnnotationFolder
from training.files import whole

VOCABULARY = ("int2word.npy", "word2int.json")


@dataclass(frozen=True)
class Instances:
    """The images and regions of an annotation folder; ratings may name an image by its id, its file or a path to it."""

    of_image: dict[str, tuple[str, ...]]
    """The regions of each image of any split."""

    @classmethod
    def of(cls, notes: AnnotationFolder) -> Instances:
        """Read the lists of all splits.

        Raises:
            DataError: a list is malformed.
        """
        found: dict[str, list[str]] = {}
        for split in notes.splits():
            for image, region in read_pairs(notes.folder, split):
                found.setdefault(image, []).append(region)
        return cls({image: tuple(dict.fromkeys(regions)) for image, regions in found.items()})

    def id(self, image: str) -> str:
        """The image's published id; as given where there is none."""
        for name in (image, image.removesuffix(".jpg"), Path(image).name, Path(image).stem):
            if name in self.of_image:
                return name
        return image

    def regions(self, image: str) -> tuple[str, ...]:
        """Its regions; none where the image is unknown."""
        return self.of_image.get(self.id(image), ())


def read_pairs(folder: Path, split: str) -> list[tuple[str, str]]:
    """The (image id, region id) pairs of a split.

    Raises:
        DataError: the list is missing or malformed.
    """
    path = folder / "regionfiles" / f"{split}_names.npy"
    pairs = read_names(path)
    if pairs.ndim != 2 or pairs.shape[1] != 2:
        raise DataError(f"{path} must hold (image_id, region_id) pairs, not shape {pairs.shape}.")
    return [(str(image).removesuffix(".jpg"), str(region)) for image, region in pairs]


def write_split(source: Path, split: str, hard: Collection[tuple[str, str | None]], target: Path) -> dict[str, Any]:
    """Write <split>_opt as an annotation folder of its own, that reads like any other.

    Region files, captions and vocabulary are those of the source. Global features are in the order of a split's images,
    so `saaa-train features` makes them anew.

    Args:
        source: annotation folder in the published formats.
        split: such as "val_sub".
        hard: (image, region) to leave out; without a region all of the image.
        target: the new annotation folder.

    Returns:
        `name` of the split, `regions` and `images` it has, `regions_before` and `images_before`.

    Raises:
        DataError: the source lacks the split, nothing is left, or a file cannot be read or written.
    """
    notes = AnnotationFolder(source)
    instances = Instances.of(notes)
    names, pairs = notes.image_ids(split), read_pairs(source, split)
    out = {(instances.id(image), region) for image, region in hard}
    kept = [(i, r) for i, r in pairs if (i, None) not in out and (i, r) not in out]
    left = {image for image, _ in kept}
    images = [name for name in names if name in left]
    if not kept:
        raise DataError(
            f"All {len(pairs)} regions of {split} are hard: nothing is left; raise --tau or use --hard gap."
        )
    name = f"{split}_opt"
    _save(target / "public_split" / f"{name}_names.npy", np.array([f"{image}.jpg" for image in images]))
    _save(target / "regionfiles" / f"{name}_names.npy", np.array(kept))
    for image in sorted(left):
        flat = f"{image.replace('/', '_')}.json"
        _copy(source / "regionfiles" / flat, target / "regionfiles" / flat)
    for vocabulary in VOCABULARY:
        if (source / vocabulary).exists():
            _copy(source / vocabulary, target / vocabulary)
    said = source / f"cleaned_{split}_region_descriptions.json"
    if said.exists():
        _captions(said, set(kept), target / f"cleaned_{name}_region_descriptions.json")
    return {
        **{"name": name, "regions": len(kept), "regions_before": len(pairs)},
        **{"images": len(images), "images_before": len(names)},
    }


def _captions(source: Path, kept: set[tuple[str, str]], target: Path) -> None:
    try:
        said = json.loads(source.read_text(encoding="utf-8"))
        left = {
            image: {region: caption for region, caption in regions.items() if (image, region) in kept}
            for image, regions in said.items()
        }
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise DataError(f"{source} cannot be read as captions by image and region: {error}") from error
    with whole(target) as aside:
        aside.write_text(json.dumps({image: regions for image, regions in left.items() if regions}), encoding="utf-8")


def _save(path: Path, array: np.ndarray[Any, np.dtype[np.str_]]) -> None:
    with whole(path) as aside, aside.open("wb") as file:
        np.save(file, array)


def _copy(source: Path, target: Path) -> None:
    try:
        content = source.read_bytes()
    except OSError as error:
        raise DataError(f"{source} cannot be read: {error.strerror or error}") from error
    with whole(target) as aside:
        aside.write_bytes(content)
