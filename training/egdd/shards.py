"""WebDataset shards: tar files of `<key>.jpg` (or another image) and `<key>.cls` (the class), made and indexed.

They are indexed once and then read at random by offset, like files in folders. The webdataset library is not used: it
streams with a shuffle buffer, so what a step sees depends on workers and processes, and a run that stopped at some step
could not go on exactly. The price is random reads where a stream reads in one go.
"""

from __future__ import annotations

import io
import random
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from saaa.errors import DataError
from training.egdd.config import ShardsConfig
from training.egdd.listing import IMAGE_SUFFIXES, Extent, Listing, list_folders, read_classes, save_classes
from training.progress import progress

CLASS_SUFFIX = ".cls"
CLASS_FILES = ("classes.json", "classes.txt")
NOT_TAR = (tarfile.TarError, ValueError, OverflowError)
"""What tarfile raises on bytes that are no tar file."""
LONGEST_CLASS = 1000
"""Bytes of a .cls member that are read; a longer one is no class."""


def list_shards(root: Path, classes: Sequence[str] | None = None, *, show: bool = False) -> Listing:
    """Index the shards `root`/*.tar.

    A key is a member's path up to the first dot of its last part. A class is a name or a number: with a file
    classes.json or classes.txt beside the shards a number is a position in it, without one it is a name if there is
    such a class, else a position in `classes`. An image is named by its member's path, with its shard in front where
    two shards have the same.

    What is torn or foreign (a shard's broken rest, an image without a class, a member that is neither) is among the
    listing's problems, one entry an image and one for each suffix of a shard's other members.

    Args:
        root: the folder.
        classes: the classes a model knows; default: those of the file beside the shards, or else of the shards
            themselves, at least 2.
        show: whether to show a progress bar.

    Raises:
        DataError: no image, a shard that is no tar file at all, a class without images, fewer than 2 classes, or a
            class the model does not know.
    """
    problems: list[tuple[str, str]] = []
    samples: list[_Sample] = []
    shards = sorted(root.glob("*.tar"))
    for shard in progress(shards, f"index {root.name}", unit="shard") if show else shards:
        samples.extend(_index(shard, problems))
    if not samples:
        raise DataError(f"The shards of {root} hold no image with a class" + (f": {problems[0]}." if problems else "."))
    beside = next((root / name for name in CLASS_FILES if (root / name).is_file()), None)
    own = read_classes(beside) if beside is not None else None
    texts = {sample.text for sample in samples}
    known = tuple(classes) if classes is not None else own if own is not None else _by_number(texts)
    label_of = {text: _label(text, own, known, root) for text in texts}
    empty = [name for label, name in enumerate(known) if label not in label_of.values()]
    if classes is None and empty:
        raise DataError(f"The shards of {root} hold no image of {empty}; pack them again, or correct {beside}.")
    if len(known) < 2:
        raise DataError(f"{root} needs shards with images of at least 2 classes; it has 1: {list(known)}.")
    often = Counter(sample.member for sample in samples)
    rows = [
        (label_of[s.text], s.member if often[s.member] == 1 else f"{s.extent.file}/{s.member}", s.extent)
        for s in samples
    ]
    rows.sort(key=lambda row: row[:2])
    return Listing(
        root,
        known,
        tuple(name for _, name, _ in rows),
        tuple(label for label, _, _ in rows),
        tuple(extent for _, _, extent in rows),
        tuple(problems),
    )


def write_shards(config: ShardsConfig) -> Listing:
    """Pack class folders into shards and classes.json; the images' bytes are copied, not decoded.

    The same folders and options give the same bytes. Keys are the images' paths, with "_" for dots and a number where
    two would be equal; where no key had to be changed, training from the shards is the same as from the folders, to the
    bit.

    Returns:
        What was packed.

    Raises:
        DataError: as `list_folders`; there are shards in output_dir already, or it cannot be written.
    """
    if not config.data_path.is_dir():
        raise DataError(f"There is no folder {config.data_path}.")
    listing = list_folders(config.data_path)
    folder = config.output_dir
    if folder.is_dir() and any(folder.glob("*.tar")):
        raise DataError(f"{folder} holds shards already; remove them or choose another --output_dir.")
    order = list(range(len(listing)))
    random.Random(config.seed).shuffle(order)
    aside: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        keys = _keys(listing.names)
        members = ((keys[i], listing.names[i], listing.read(i), listing.labels[i]) for i in order)
        shown = progress(members, "pack", total=len(order), unit="image")
        _write(shown, folder, config.shard_mb * 2**20, aside)
        save_classes(listing.classes, folder / CLASS_FILES[0])
        for path in aside:
            path.replace(path.with_name(path.name.removeprefix(".").removesuffix(".partial")))
    except OSError as error:
        raise DataError(f"Cannot write shards into {folder}: {error.strerror or error}") from error
    finally:
        for path in aside:
            path.unlink(missing_ok=True)
    print(f"{len(listing)} images of {len(listing.classes)} classes in {len(aside)} shards -> {folder}")
    return listing


@dataclass(frozen=True)
class _Sample:
    member: str
    extent: Extent
    text: str
    """The content of its .cls."""


@dataclass
class _Parts:
    """The members of one key."""

    images: list[tuple[str, Extent]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)


def _index(shard: Path, problems: list[tuple[str, str]]) -> Iterator[_Sample]:
    """Find the samples of a shard; append what is none to `problems`."""
    keys: dict[str, _Parts] = {}
    foreign: Counter[str] = Counter()
    try:
        length = shard.stat().st_size
        with shard.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for member in _members(tar, shard, length, problems):
                path = PurePosixPath(member.name)
                stem, dot, rest = path.name.partition(".")
                suffix = (dot + rest).lower()
                if not stem or suffix not in (*IMAGE_SUFFIXES, CLASS_SUFFIX):
                    foreign[suffix if stem else ""] += 1
                    continue
                parts = keys.setdefault(str(path.with_name(stem)), _Parts())
                if suffix == CLASS_SUFFIX:
                    file.seek(member.offset_data)
                    content = file.read(min(member.size, LONGEST_CLASS))
                    parts.texts.append(content.decode("utf-8", "replace").strip())
                else:
                    parts.images.append((str(path), Extent(shard.name, member.offset_data, member.size)))
    except NOT_TAR as error:
        raise DataError(f"{shard} is no tar file: {error}") from error
    except OSError as error:
        raise DataError(f"{shard} cannot be read: {error.strerror or error}") from error
    problems.extend(
        (shard.name, f"{count} members {suffix or 'hidden or without suffix'} are neither image nor class")
        for suffix, count in sorted(foreign.items())
    )
    for key, parts in keys.items():
        if not len(parts.images) == len(parts.texts) == 1:
            found = f"{len(parts.images)} images and {len(parts.texts)} classes, not one of each"
            problems.append((f"{shard.name}: {key}", found))
        elif not parts.texts[0]:
            problems.append((f"{shard.name}: {key}", "its class is empty"))
        else:
            yield _Sample(*parts.images[0], parts.texts[0])


def _members(
    tar: tarfile.TarFile, shard: Path, length: int, problems: list[tuple[str, str]]
) -> Iterator[tarfile.TarInfo]:
    """Give the whole files of a shard; a torn rest is noted."""
    torn = ""
    try:
        while not torn and (member := tar.next()) is not None:
            if member.offset_data + member.size > length:
                torn = f"{member.name} is cut off"
            elif member.isreg() and not member.issparse():
                yield member
        if not torn:
            # tarfile takes whatever is no header for the end; the true end is a block of zeros.
            assert tar.fileobj is not None
            tar.fileobj.seek(tar.offset)
            end = tar.fileobj.read(tarfile.BLOCKSIZE)
            if any(end) or len(end) < tarfile.BLOCKSIZE:
                torn = f"neither a member nor the end is at byte {tar.offset}"
    except NOT_TAR as error:
        torn = str(error)
    if torn:
        problems.append((shard.name, f"torn, what may follow is not used: {torn}"))


def _label(text: str, own: tuple[str, ...] | None, known: tuple[str, ...], root: Path) -> int:
    """Give the index into `known` of what a .cls says."""
    names = own if own is not None else known
    number = int(text) if text.isascii() and text.isdigit() else None
    literal = text in names and (own is None or number is None)
    name = text if literal or number is None or number >= len(names) else names[number]
    if name not in known:
        raise DataError(f"The classes of the shards of {root} must be among {list(known)}; found {name!r}.")
    return known.index(name)


def _by_number(texts: set[str]) -> tuple[str, ...]:
    """Sort classes: as numbers if all are, else as words."""
    numbers = all(text.isascii() and text.isdigit() for text in texts)
    return tuple(sorted(texts, key=lambda text: (int(text) if numbers else 0, text)))


def _keys(names: Sequence[str]) -> list[str]:
    """Give each image a key of its own."""
    taken: set[str] = set()
    keys = []
    for name in names:
        path = PurePosixPath(name)
        plain = str(path.with_name(path.stem.replace(".", "_")))
        key, count = plain, 1
        while key in taken:
            count += 1
            key = f"{plain}_{count}"
        taken.add(key)
        keys.append(key)
    return keys


def _write(samples: Iterable[tuple[str, str, bytes, int]], folder: Path, limit: int, aside: list[Path]) -> None:
    """Write (key, name, bytes, label) into shards of about `limit` bytes, under names that no one reads yet."""
    tar: tarfile.TarFile | None = None
    with ExitStack() as opened:
        for key, name, data, label in samples:
            if tar is None or tar.offset + len(data) > limit:
                opened.close()
                aside.append(folder / f".shard-{len(aside):06}.tar.partial")
                tar = opened.enter_context(tarfile.open(aside[-1], "w", format=tarfile.PAX_FORMAT))
            for suffix, content in ((PurePosixPath(name).suffix, data), (CLASS_SUFFIX, str(label).encode())):
                member = tarfile.TarInfo(key + suffix)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
