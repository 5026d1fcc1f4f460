"""The published annotation formats: splits, region files, captions and vocabulary.

    annotations/public_split/<set>_names.npy              image names; their order is that of the global features
    annotations/regionfiles/<set>_names.npy               (image_id, region_id) pairs
    annotations/regionfiles/<image_id>.json               {region_id: {objects, relationships, phrase}}
    annotations/cleaned_<set>_region_descriptions.json    {image_id: {region_id: [caption, ...]}}, or as published
                                                          {image_id: {region_id: {"phrase": caption}}}; without this
                                                          file a region's caption is its phrase
    annotations/int2word.npy, word2int.json                   the vocabulary both ways

An image's name is its id with ".jpg"; a "/" of an id is "_" in file names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from saaa.errors import DataError, SceneGraphError
from saaa.models.captioner.vocabulary import Vocabulary
from saaa.scene_graph import SceneGraph
from training.ega.names import read_names
from training.files import read_json


@dataclass(frozen=True, kw_only=True)
class Region:
    """One (image, region) pair: a graph and what people say of it."""

    image_id: str
    region_id: str
    graph: SceneGraph
    captions: tuple[str, ...]
    """At least one."""

    @property
    def file_name(self) -> str:
        """Of the image."""
        return image_file(self.image_id)


def image_file(image_id: str) -> str:
    """The image's file name."""
    name = image_id.replace("/", "_")
    return name if name.lower().endswith((".jpg", ".jpeg", ".png")) else f"{name}.jpg"


@dataclass
class Skipped:
    """What could not be used, and why: nothing is dropped without a word."""

    reasons: list[str] = field(default_factory=list)

    def add(self, what: str, why: str) -> None:
        """Note one left-out item."""
        self.reasons.append(f"{what}: {why}")

    def summary(self) -> str:
        """Count and first cases in one line, "" when nothing was skipped."""
        if not self.reasons:
            return ""
        rest = len(self.reasons) - 3
        more = f" and {rest} more" if rest > 0 else ""
        return f"skipped {len(self.reasons)}: {'; '.join(self.reasons[:3])}{more}"


class AnnotationFolder:
    """Reads one folder of annotations.

    Raises:
        DataError: the folder is missing.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise DataError(f"There is no annotation folder {folder}; give it with --annotations.")
        self.folder = folder

    def vocabulary(self) -> Vocabulary:
        """The words of int2word.npy.

        Raises:
            DataError: the file is missing or malformed, or word2int.json disagrees with it.
        """
        path = self.folder / "int2word.npy"
        vocabulary = Vocabulary(tuple(str(word) for word in read_names(path).reshape(-1)))
        inverse = self.folder / "word2int.json"
        if inverse.exists():
            ids = read_json(inverse)
            wrong = [w for w, i in vocabulary.ids.items() if ids.get(w) != i]
            if wrong or len(ids) != len(vocabulary):
                what = f"the word {wrong[0]!r}" if wrong else "the number of words"
                raise DataError(f"{inverse} and {path} disagree on {what}; make them from one vocabulary.")
        return vocabulary

    def has(self, split: str) -> bool:
        """Whether there is a split of that name."""
        return (self.folder / "regionfiles" / f"{split}_names.npy").exists()

    def splits(self) -> list[str]:
        """The names of all splits, sorted."""
        return sorted(p.name.removesuffix("_names.npy") for p in (self.folder / "regionfiles").glob("*_names.npy"))

    def image_ids(self, split: str) -> list[str]:
        """The images of a split, in the order of its global features.

        Raises:
            DataError: the file is missing or malformed, or lists an image twice.
        """
        path = self.folder / "public_split" / f"{split}_names.npy"
        ids = [str(name).removesuffix(".jpg") for name in read_names(path).reshape(-1)]
        if len(set(ids)) < len(ids):
            raise DataError(f"{path} lists {next(i for k, i in enumerate(ids) if i in ids[:k])} twice.")
        return ids

    def regions(self, split: str, skipped: Skipped) -> list[Region]:
        """The regions of a split, in its order.

        Args:
            split: such as "trn".
            skipped: takes the regions whose file, graph or captions cannot be used.

        Raises:
            DataError: the list or the captions are missing or malformed, or no region is left.
        """
        pairs_file = self.folder / "regionfiles" / f"{split}_names.npy"
        pairs = read_names(pairs_file)
        if pairs.ndim != 2 or pairs.shape[1] != 2:
            raise DataError(f"{pairs_file} must hold (image_id, region_id) pairs, not shape {pairs.shape}.")
        captions_file = self.folder / f"cleaned_{split}_region_descriptions.json"
        captions = read_json(captions_file) if captions_file.exists() else None
        files: dict[str, dict[str, Any]] = {}
        unreadable: dict[str, str] = {}
        regions: list[Region] = []
        for image, region_id in ((str(i).removesuffix(".jpg"), str(r)) for i, r in pairs):
            name = f"region {region_id} of image {image}"
            if image not in files:
                try:
                    files[image] = read_json(self.folder / "regionfiles" / f"{image.replace('/', '_')}.json")
                except DataError as error:
                    files[image], unreadable[image] = {}, error.message
            if region_id not in files[image]:
                skipped.add(name, unreadable.get(image, "its region file has no such region"))
                continue
            said = files[image][region_id] if captions is None else captions.get(image, {}).get(region_id, ())
            if captions is None or isinstance(said, dict):
                said = _phrase(said)
            if not isinstance(said, list | tuple) or not all(isinstance(c, str) and c.strip() for c in said):
                raise DataError(f"{captions_file}: {name} must have a list of captions.")
            if not said:
                skipped.add(name, "it has no caption")
                continue
            try:
                graph = SceneGraph.from_region(files[image][region_id])
            except SceneGraphError as error:
                skipped.add(name, f"{error.field}: {error.message}" if error.field else error.message)
                continue
            regions.append(Region(image_id=image, region_id=region_id, graph=graph, captions=tuple(said)))
        if not regions:
            raise DataError(f"{pairs_file} leaves no usable region. {skipped.summary()}".strip())
        return regions


class ImageFolder:
    """Finds images by file name anywhere below a folder.

    Raises:
        DataError: the folder is missing, or two images wanted have the same name.
    """

    def __init__(self, folder: Path, names: set[str]) -> None:
        if not folder.is_dir():
            raise DataError(f"There is no image folder {folder}; give it with --images.")
        self.folder = folder
        self.paths: dict[str, Path] = {}
        for path in sorted(folder.rglob("*")):
            if path.name in names and path.is_file():
                if path.name in self.paths:
                    raise DataError(f"{path} and {self.paths[path.name]} have one name; remove one.")
                self.paths[path.name] = path

    def keep_found(
        self, regions: list[Region], skipped: Skipped, *, faults: Mapping[str, str] | None = None
    ) -> list[Region]:
        """The regions whose image is there.

        Args:
            regions: those that are wanted.
            skipped: takes the others.
            faults: why an image that is there cannot be used, by file name; see `training.ega.readable.unreadable`.

        Raises:
            DataError: there is none.
        """
        found = []
        for region in regions:
            reason = (faults or {}).get(region.file_name)
            if region.file_name not in self.paths:
                reason = "there is no such image"
            if reason is None:
                found.append(region)
            else:
                skipped.add(f"region {region.region_id} of image {region.image_id}", reason)
        if not found and any(region.file_name in self.paths for region in regions):
            raise DataError(f"None of the images below {self.folder} can be used. {skipped.summary()}")
        if not found:
            name = regions[0].file_name
            raise DataError(f"None of the images is below {self.folder}, {name} for instance.")
        return found


def _phrase(region: Any) -> tuple[str, ...]:
    """What people say of a region, if it is there."""
    phrase = region.get("phrase") if isinstance(region, dict) else None
    return (phrase,) if isinstance(phrase, str) and phrase.strip() else ()
