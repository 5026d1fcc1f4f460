"""Class folders: find the images, decode each once, keep what fits in memory."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from saaa.errors import DataError, ImageRejected
from saaa.images import decode, fit
from saaa.models.classifier import ClassifierConfig
from training.progress import progress

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"})
TRAIN_SHORTER_SIDE = 2
"""Training images are kept at most this many input sizes on the shorter side; a random crop needs no more."""

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Listing:
    """The images of a folder with one folder a class, sorted by name."""

    root: Path
    classes: tuple[str, ...]
    files: tuple[Path, ...]
    """Relative to root."""
    labels: tuple[int, ...]
    """Index into classes, one a file."""

    def take(self, indices: Sequence[int]) -> Listing:
        """Keep some of the images."""
        return Listing(
            self.root,
            self.classes,
            tuple(self.files[i] for i in indices),
            tuple(self.labels[i] for i in indices),
        )


def list_images(root: Path, classes: Sequence[str] | None = None) -> Listing:
    """Find the images of `root`/<class>/, at any depth below the class.

    Args:
        root: the folder.
        classes: the classes a model knows; default: those of the folder, at least 2.

    Raises:
        DataError: no such folder, a class without images, fewer than 2 classes, or a class the model does not
            know.
    """
    if not root.is_dir():
        raise DataError(f"There is no folder {root}.")
    found = sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    if classes is None and len(found) < 2:
        raise DataError(f"{root} needs a folder for each of at least 2 classes; it has {len(found)}: {found}.")
    names = tuple(found if classes is None else classes)
    unknown = sorted(set(found) - set(names))
    if unknown or not found:
        raise DataError(f"The class folders of {root} must be among {list(names)}; found {unknown or 'none'}.")
    files: list[Path] = []
    labels: list[int] = []
    for name in found:
        images = sorted(p for p in (root / name).rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
        if not images:
            raise DataError(f"The class folder {root / name} holds no image; fill it or remove it.")
        files.extend(p.relative_to(root) for p in images)
        labels.extend([names.index(name)] * len(images))
    return Listing(root, names, tuple(files), tuple(labels))


def find_splits(data_path: Path, *, val_fraction: float, seed: int) -> tuple[Listing, Listing]:
    """Find the training and validation images; without a val/ folder a seeded share of every class is held
    out.

    Raises:
        DataError: as `list_images`, or a class of one image cannot be divided.
    """
    train = list_images(data_path / "train")
    if (data_path / "val").is_dir():
        return train, list_images(data_path / "val", train.classes)
    draw = random.Random(seed)
    held: set[int] = set()
    for label, name in enumerate(train.classes):
        members = [i for i, own in enumerate(train.labels) if own == label]
        if len(members) < 2:
            raise DataError(f"Class {name!r} has one image; it needs 2, since {data_path} has no val/ folder.")
        count = min(max(1, round(val_fraction * len(members))), len(members) - 1)
        held.update(draw.sample(members, count))
    everything = range(len(train.files))
    return train.take([i for i in everything if i not in held]), train.take(sorted(held))


@dataclass
class Images:
    """The readable images of a listing, decoded and prepared, kept in memory as far as allowed.

    Use `Images.load`.
    """

    listing: Listing
    prepare: Callable[[Pixels], Pixels]
    digest: str
    """SHA-256 over the names and contents of the files, skipped ones included."""
    skipped: tuple[tuple[Path, str], ...]
    """Files that are no usable image, and why."""
    cache: dict[int, Pixels] = field(default_factory=dict)

    @classmethod
    def load(cls, listing: Listing, prepare: Callable[[Pixels], Pixels], *, what: str, cache_mb: int) -> Images:
        """Read and decode every image once.

        Raises:
            DataError: no image of some class is usable, or a file cannot be read.
        """
        digest = hashlib.sha256()
        good: list[int] = []
        skipped: list[tuple[Path, str]] = []
        cache: dict[int, Pixels] = {}
        room = cache_mb * 2**20
        for index, file in enumerate(progress(listing.files, f"read {what}", unit="image")):
            data = _read(listing.root / file)
            digest.update(f"{file.as_posix()} {hashlib.sha256(data).hexdigest()}\n".encode())
            try:
                pixels = prepare(decode(data))
            except ImageRejected as error:
                skipped.append((file, error.message))
                continue
            if pixels.nbytes <= room:
                cache[len(good)] = pixels
                room -= pixels.nbytes
            good.append(index)
        usable = listing.take(good)
        lost = {listing.classes[label] for label in set(listing.labels) - set(usable.labels)}
        if lost:
            raise DataError(f"No image of {sorted(lost)} in {listing.root} can be read: {skipped[0][1]}")
        return cls(usable, prepare, digest.hexdigest(), tuple(skipped), cache)

    def __len__(self) -> int:
        return len(self.listing.files)

    def __getitem__(self, index: int) -> Pixels:
        """Give a prepared image, uint8 (height, width, 3)."""
        kept = self.cache.get(index)
        if kept is not None:
            return kept
        return self.prepare(decode(_read(self.listing.root / self.listing.files[index])))

    @property
    def labels(self) -> NDArray[np.int64]:
        """(images,) indices into the classes."""
        return np.array(self.listing.labels, dtype=np.int64)


def load_for_training(listing: Listing, input_size: int, *, cache_mb: int) -> Images:
    """Load images at a size that suits random crops."""
    longest = TRAIN_SHORTER_SIDE * input_size

    def shrink(pixels: Pixels) -> Pixels:
        height, width = pixels.shape[:2]
        factor = longest / min(height, width)
        if factor >= 1:
            return pixels
        size = (max(1, round(width * factor)), max(1, round(height * factor)))
        return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))

    return Images.load(listing, shrink, what="train", cache_mb=cache_mb)


def load_for_evaluation(listing: Listing, config: ClassifierConfig, *, what: str, cache_mb: int = 1024) -> Images:
    """Load images as the served model sees them: `saaa.images.fit` is the one resize."""

    def as_served(pixels: Pixels) -> Pixels:
        fitted, _ = fit(pixels, config.input_size, mode=config.resize, crop_fraction=config.crop_fraction)
        return fitted

    return Images.load(listing, as_served, what=what, cache_mb=cache_mb)


class Augmented(Dataset[tuple[Tensor, int]]):
    """Training images through a random transform.

    Args:
        images: what to draw from.
        transform: PIL image -> float tensor (3, S, S), normalised.
    """

    def __init__(self, images: Images, transform: Callable[[Image.Image], Tensor]) -> None:
        self.images = images
        self.transform = transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), self.images.listing.labels[index]


def epoch_batches(count: int, batch_size: int, *, seed: int, epoch: int, even: bool) -> list[list[int]]:
    """Shuffle the image indices of an epoch into full batches.

    A set smaller than a batch is one batch; the incomplete last batch of a larger set is left out (another
    epoch's shuffle brings its images). `even` makes every batch even, as mixing needs, at the price of one
    image.
    """
    size = min(batch_size, count)
    if even:
        size = max(2, size - size % 2)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch)).tolist()
    return [order[i : i + size] for i in range(0, count - size + 1, size)]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
