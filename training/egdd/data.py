"""The images of a data set: found in class folders or shards, split, read once, kept in memory as far as allowed."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from saaa.errors import DataError, ImageRejected, OptionInvalid
from saaa.fitting import Picture
from saaa.images import decode
from training.egdd.listing import Listing, list_folders
from training.egdd.shards import list_shards
from training.progress import progress

if TYPE_CHECKING:
    from saaa.fitting import Input
    from training.distributed import World

Pixels = NDArray[np.uint8]
AT_ONCE = 256
"""Images handed to the threads at a time, which bounds what is decoded and not yet kept or dropped."""

__all__ = [
    "Images",
    "Listing",
    "Pixels",
    "content_digest",
    "cores",
    "find_splits",
    "list_images",
    "load_for_evaluation",
    "load_for_training",
]


def list_images(root: Path, classes: Sequence[str] | None = None, *, show: bool = False) -> Listing:
    """Find the images of a folder of class folders, or of WebDataset shards.

    Args:
        root: the folder.
        classes: the classes a model knows; default: those of the data, at least 2.
        show: whether indexing shards shows a progress bar.

    Raises:
        DataError: no such folder, both kinds in one, or as `list_folders` and `list_shards`.
    """
    if not root.is_dir():
        raise DataError(f"There is no folder {root}.")
    inside = [path for path in root.iterdir() if not path.name.startswith(".")]
    if not any(path.suffix == ".tar" for path in inside):
        return list_folders(root, classes)
    if any(path.is_dir() for path in inside):
        raise DataError(f"{root} holds shards (*.tar) and folders; keep one of the two.")
    return list_shards(root, classes, show=show)


def find_splits(
    data_path: Path,
    *,
    val_fraction: float,
    seed: int,
    nb_classes: int | None = None,
    extra: Sequence[Path] = (),
    show: bool = False,
) -> tuple[Listing, Listing]:
    """Find the training and validation images; without a val/ folder a seeded share of every class is held out.

    The images of the folders `extra` come after the training images; none of them is held out.

    Raises:
        DataError: as `list_images`, or a class of one image cannot be divided.
        OptionInvalid: the data have another number of classes than `nb_classes`.
    """
    train = list_images(data_path / "train", show=show)
    if nb_classes is not None and nb_classes != len(train.classes):
        raise OptionInvalid(
            f"{data_path / 'train'} has {len(train.classes)} classes; --nb_classes says {nb_classes}. Leave it out, or "
            "correct the data.",
            field="nb_classes",
        )
    if (data_path / "val").is_dir():
        val = list_images(data_path / "val", train.classes, show=show)
    else:
        train, val = _held_out(train, data_path, val_fraction, seed)
    for number, folder in enumerate(extra, start=1):
        train = train.join(list_images(folder, train.classes, show=show), f"extra-{number}")
    return train, val


def _held_out(train: Listing, data_path: Path, fraction: float, seed: int) -> tuple[Listing, Listing]:
    """Divide a listing into training and validation images."""
    draw = random.Random(seed)
    held: set[int] = set()
    for label, name in enumerate(train.classes):
        members = [i for i, own in enumerate(train.labels) if own == label]
        if len(members) < 2:
            raise DataError(f"Class {name!r} has one image; it needs 2, since {data_path} has no val/ folder.")
        count = min(max(1, round(fraction * len(members))), len(members) - 1)
        held.update(draw.sample(members, count))
    kept = train.take([i for i in range(len(train)) if i not in held])
    return replace(kept, problems=train.problems), train.take(sorted(held))


@dataclass
class Images:
    """The readable images of a listing, decoded and prepared, kept in memory as far as allowed.

    Use `Images.load`.
    """

    listing: Listing
    prepare: Callable[[Any], Pixels]
    digest: str
    """SHA-256 over the names and contents of the files, skipped ones included."""
    skipped: tuple[tuple[str, str], ...]
    """Where something is that is no usable image, and why."""
    cache: dict[int, Pixels] = field(default_factory=dict)
    open: Callable[[bytes], Any] = decode
    """From a file's bytes to what `prepare` takes."""

    @classmethod
    def load(
        cls,
        listing: Listing,
        prepare: Callable[[Any], Pixels],
        *,
        what: str,
        cache_mb: int,
        world: World | None = None,
        open: Callable[[bytes], Any] = decode,
    ) -> Images:
        """Read and decode every image once: each process its share, in threads, one a core.

        All processes get the same images, digest and skipped ones, as any number of processes would. Each keeps what it
        decoded itself.

        Args:
            listing: what to read.
            prepare: from what `open` gives to what is kept and given out.
            what: name for the progress bar.
            cache_mb: MiB of prepared images kept by this process.
            world: the processes that share the work; default: this one alone.
            open: from a file's bytes to what `prepare` takes; default: the decoded image, uint8 (height, width, 3).
                This or `prepare` raises `ImageRejected` where it is none.

        Raises:
            DataError: no image of some class is usable, or a file cannot be read; the same on all processes.
        """
        mine = world.share(len(listing)) if world is not None else range(len(listing))
        kept: dict[int, Pixels] = {}
        room = cache_mb * 2**20
        rows: list[_Row] = []
        failure: DataError | None = None
        try:
            found: Iterable[tuple[_Row, Pixels | None]] = _examine(listing, lambda data: prepare(open(data)), mine)
            if world is None or world.main:
                found = progress(found, f"read {what}", total=len(mine), unit="image")
            for row, pixels in found:
                rows.append(row)
                if pixels is not None and pixels.nbytes <= room:
                    kept[row.index] = pixels
                    room -= pixels.nbytes
        except DataError as error:
            failure = error
        # A process that failed takes part, too: the others wait for it here.
        parts = world.gather((rows, failure)) if world is not None else [(rows, failure)]
        for _, wrong in parts:
            if wrong is not None:
                raise wrong
        rows = sorted((row for part, _ in parts for row in part), key=lambda row: row.index)
        digest = _digest(listing, (row.content for row in rows))
        good = [row.index for row in rows if row.reason is None]
        bad = [(listing.place(row.index), row.reason) for row in rows if row.reason is not None]
        usable = listing.take(good)
        lost = {listing.classes[label] for label in set(listing.labels) - set(usable.labels)}
        if lost:
            raise DataError(f"No image of {sorted(lost)} in {listing.root} can be read: {bad[0][1]}")
        cache = {position: kept[index] for position, index in enumerate(good) if index in kept}
        return cls(usable, prepare, digest, (*listing.problems, *bad), cache, open)

    def __len__(self) -> int:
        return len(self.listing)

    def __getitem__(self, index: int) -> Pixels:
        """Give a prepared image, uint8 (height, width, 3)."""
        kept = self.cache.get(index)
        return kept if kept is not None else self.prepare(self.open(self.listing.read(index)))

    @property
    def labels(self) -> NDArray[np.int64]:
        """(images,) indices into the classes."""
        return np.array(self.listing.labels, dtype=np.int64)


def load_for_training(
    listing: Listing, input_size: int, *, min_crop: float, cache_mb: int, world: World | None = None
) -> Images:
    """Load images at a size that suits random crops: the smallest crop still has about as many pixels as the input.

    Args:
        listing: what to read.
        input_size: width and height of the model's input in pixels.
        min_crop: the smallest share of an image's area that a crop takes.
        cache_mb, world: as in `Images.load`.

    Raises:
        DataError: as `Images.load`.
    """
    prepare = partial(_shrink, shorter=round(input_size / min_crop**0.5))
    return Images.load(listing, prepare, what="train", cache_mb=cache_mb, world=world)


def load_for_evaluation(
    listing: Listing, config: Input, *, what: str, cache_mb: int = 1024, world: World | None = None
) -> Images:
    """Load images as the served model sees them, (S, S, 3): `saaa.fitting.Picture` is the one way to its input."""
    prepare = partial(_as_served, model=config)
    return Images.load(listing, prepare, what=what, cache_mb=cache_mb, world=world, open=Picture)


def content_digest(listing: Listing) -> str:
    """Give the digest that `Images.load` would find, without decoding anything.

    Raises:
        DataError: a file cannot be read.
    """
    return _digest(listing, (hashlib.sha256(listing.read(i)).hexdigest() for i in range(len(listing))))


def _digest(listing: Listing, contents: Iterable[str]) -> str:
    """SHA-256 over the names and the digests of the contents of all files."""
    digest = hashlib.sha256()
    for name, content in zip(listing.names, contents, strict=True):
        digest.update(f"{name} {content}\n".encode())
    return digest.hexdigest()


def cores() -> int:
    """Count the processor's cores that this process may use: its share where torchrun started several."""
    return max(1, len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


@dataclass(frozen=True, slots=True)
class _Row:
    """What one image turned out to be."""

    index: int
    content: str
    """SHA-256 of its bytes."""
    reason: str | None
    """Why it is unusable."""


def _examine(
    listing: Listing, prepare: Callable[[bytes], Pixels], indices: Sequence[int]
) -> Iterator[tuple[_Row, Pixels | None]]:
    """Read images and prepare them from their bytes, in order; Pillow lets other threads run while it works."""

    def one(index: int) -> tuple[_Row, Pixels | None]:
        data = listing.read(index)
        content = hashlib.sha256(data).hexdigest()
        try:
            return _Row(index, content, None), prepare(data)
        except ImageRejected as error:
            return _Row(index, content, error.message), None

    with ThreadPoolExecutor(cores()) as threads:
        for start in range(0, len(indices), AT_ONCE):
            yield from threads.map(one, indices[start : start + AT_ONCE])


def _shrink(pixels: Pixels, shorter: int) -> Pixels:
    """Scale an image down, so that its shorter side has at most that many pixels."""
    height, width = pixels.shape[:2]
    factor = shorter / min(height, width)
    if factor >= 1:
        return pixels
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))


def _as_served(picture: Picture, model: Input) -> Pixels:
    return np.array(picture.fit(model)[0])  # torch wants to be able to write
