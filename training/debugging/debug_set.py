"""A debug set on disk: planned, then filled image by image.

    debug_set.json    what makes it this set and no other; whether it is complete; what a person should know of it
    manifest.jsonl    a line an image, planned or made; with digests once the set is complete
    images/<class>/   0000.jpg, ...: of the chosen the best first; what `saaa-train egdd --extra_data` reads

Every file is written whole, and an image that is there is done: whatever stops the work, the same command goes on.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, runtime_checkable

import numpy as np
from PIL import Image

from saaa.errors import DataError, GeneratorFailed, OptionInvalid
from training.debugging.generators.base import Generator, Pixels
from training.debugging.prompts import Prompt
from training.egdd.listing import Listing
from training.files import whole, write_json
from training.progress import counter

HEAD, MANIFEST, IMAGES = "debug_set.json", "manifest.jsonl", "images"
DRAWN_AT_ONCE = 8
"""Prompts that a generator gets in one call: what a failure may cost."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """One image of a debug set."""

    file: str
    """Below images/."""
    label: str
    source: str = ""
    """Of a chosen image: its name in the folder that it comes from."""
    prompt: str = ""
    """Of a generated image, as the four below; see `Prompt`."""
    negative: tuple[str, ...] = ()
    concept: str = ""
    seed: int | None = None
    digest: str = ""
    """SHA-256 of the file, once the set is complete."""

    def asked(self) -> Prompt:
        """What a generator is asked for."""
        return Prompt(label=self.label, text=self.prompt, negative=self.negative, concept=self.concept)


@dataclass(frozen=True)
class DebugSet:
    """A complete debug set."""

    folder: Path
    items: tuple[Item, ...]
    """By class, in the order of the plan: of the chosen the best first."""
    told: tuple[str, ...]
    """What a person should know: classes with too few candidates, prompts that could not be drawn."""

    @property
    def images(self) -> Path:
        """Its class folders."""
        return self.folder / IMAGES

    @property
    def counts(self) -> dict[str, int]:
        """Images a class."""
        return dict(Counter(item.label for item in self.items))


@runtime_checkable
class Planner(Protocol):
    """A generator that must know all that will be asked of it before it draws, from a supply that may change."""

    @property
    def supply(self) -> str:
        """What it draws from, as it is now."""

    def plan(self, wanted: Sequence[tuple[Prompt, int]]) -> None:
        """Take note of all prompts with their seeds, in order.

        Raises:
            GeneratorFailed: it cannot meet them.
        """


class Store:
    """A debug set in the making.

    Args:
        folder: made when absent; else empty, or of the same set.
        identity: what makes the set this one and no other; JSON values.
        supply: of a `Planner`. When it changes, a set that is not complete begins anew, for its images cost nothing.

    Raises:
        DataError: the folder holds something else, or cannot be read or written.
        OptionInvalid: it holds another debug set.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], supply: str = "") -> None:
        self.folder = folder
        self._identity, self._supply = json.loads(json.dumps(identity)), supply
        self.complete = False
        self.items: list[Item] = []
        """Empty until planned."""
        self.told: list[str] = []
        if (folder / HEAD).is_file():
            self._read()
            return
        if folder.is_dir() and (strangers := sorted(p.name for p in folder.iterdir() if p.name[0] != ".")):
            raise DataError(f"{folder} holds {strangers[0]} and no {HEAD}; give an empty or new folder.")
        self._write_head()

    def plan(self, items: Iterable[Item], told: Iterable[str] = ()) -> None:
        """Decide which images there shall be; images that are there already must stay as they were planned."""
        self.items = list(items)
        self.told += told
        self._write_head()
        self._write_manifest()

    def missing(self) -> list[Item]:
        """The images that are not there yet."""
        return [item for item in self.items if not self._path(item).is_file()]

    def add(self, item: Item, data: bytes) -> None:
        """Keep the encoded image of an item."""
        with whole(self._path(item)) as aside:
            aside.write_bytes(data)

    def finish(self) -> DebugSet:
        """Declare the set complete; every image must be there.

        Raises:
            DataError: a file cannot be read or written.
        """
        if not self.complete:
            self.items = [replace(item, digest=_digest(self._path(item))) for item in self.items]
            self._write_manifest()
            self.complete = True
            self._write_head()
        return DebugSet(self.folder, tuple(self.items), tuple(self.told))

    def _path(self, item: Item) -> Path:
        return self.folder / IMAGES / item.file

    def _read(self) -> None:
        try:
            head = json.loads((self.folder / HEAD).read_text(encoding="utf-8"))
            identity, self.complete, self.told = head["identity"], head["complete"], head["told"]
            changed = head.get("supply", "") != self._supply
            planned = (self.folder / MANIFEST).is_file()
            if planned and identity == self._identity:
                self.items = read_manifest(self.folder)
                self.complete = self.complete and not self.missing()  # somebody may have removed an image
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{self.folder / HEAD} does not describe a debug set: {error}") from error
        if identity == self._identity and changed:
            if self.complete:
                raise OptionInvalid(
                    f"{self.folder} is complete, and the images that it was made from have changed since. Put them "
                    "back to go on with it, or give another folder.",
                    field="out",
                )
            self._clear()
            planned = False
        if not planned:
            self.items, self.told, self.complete = [], [], False
            self._write_head()  # nothing was made yet, so the set may as well be another one
        elif identity != self._identity:
            keys = {*identity, *self._identity}
            others = sorted(key for key in keys if identity.get(key) != self._identity.get(key))
            raise OptionInvalid(
                f"{self.folder} holds a debug set with another {', '.join(others)}. Give the same options to go on "
                "with it, or another folder.",
                field="out",
            )

    def _clear(self) -> None:
        """Remove all but the head, the manifest first."""
        try:
            (self.folder / MANIFEST).unlink(missing_ok=True)
            for path in self.folder.iterdir():
                if path.is_dir():
                    shutil.rmtree(path)
        except OSError as error:
            raise DataError(f"{self.folder} cannot be cleared: {error.strerror or error}") from error

    def _write_head(self) -> None:
        head = {"identity": self._identity, "supply": self._supply, "complete": self.complete, "told": self.told}
        write_json(self.folder / HEAD, head)

    def _write_manifest(self) -> None:
        with whole(self.folder / MANIFEST) as aside:
            aside.write_text("".join(json.dumps(asdict(item)) + "\n" for item in self.items), encoding="utf-8")


def read_manifest(folder: Path) -> list[Item]:
    """Read the manifest of a debug set.

    Raises:
        DataError: there is none, or it is damaged.
    """
    path = folder / MANIFEST
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return [Item(**{**line, "negative": tuple(line["negative"])}) for line in lines]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is no manifest of a debug set: {error}") from error


def planned_choice(listing: Listing, indices: Iterable[Sequence[int]]) -> list[Item]:
    """Plan copies of images of a listing.

    Args:
        listing: what is chosen from.
        indices: of each class the chosen ones, best first.
    """
    return [
        Item(
            file=f"{listing.classes[listing.labels[i]]}/{number:04}{PurePosixPath(listing.names[i]).suffix.lower()}",
            label=listing.classes[listing.labels[i]],
            source=listing.names[i],
        )
        for own in indices
        for number, i in enumerate(own)
    ]


def planned_prompts(prompts: Mapping[str, Sequence[Prompt]], budget: int, seed: int) -> list[Item]:
    """Plan `budget` images a class, of its prompts in turn; every image has a seed of its own."""
    return [
        Item(
            file=f"{label}/{number:04}.jpg",
            label=label,
            prompt=prompt.text,
            negative=prompt.negative,
            concept=prompt.concept,
            seed=_seed(seed, label, number),
        )
        for label, own in prompts.items()
        for number in range(budget)
        for prompt in (own[number % len(own)],)
    ]


def copy(store: Store, listing: Listing) -> None:
    """Copy the images that are planned and not there yet.

    Raises:
        DataError: one cannot be read or written.
    """
    index = {name: i for i, name in enumerate(listing.names)}
    for item in store.missing():
        if item.source not in index:
            raise DataError(f"{item.source} is no longer in {listing.root}; put it back, or begin in another folder.")
        store.add(item, listing.read(index[item.source]))


def announce(generator: Generator, items: Iterable[Item]) -> None:
    """Tell a generator all that will be asked of it, if it wants to know.

    Raises:
        GeneratorFailed: it cannot meet that.
    """
    if isinstance(generator, Planner):
        generator.plan([(item.asked(), item.seed or 0) for item in items])


def draw(store: Store, generator: Generator, *, show: bool = True) -> None:
    """Draw the images that are planned and not there yet.

    A prompt that the generator does not understand gives its images to the other prompts of its class, and is told.

    Raises:
        OptionInvalid: the generator understands no prompt of some class.
        GeneratorFailed: it cannot go on now; what it drew is kept.
        DataError: an image cannot be written.
    """
    refused: set[Prompt] = set()
    missing = store.missing()
    with counter("draw", total=len(store.items), done=len(store.items) - len(missing), show=show) as bar:
        while missing:
            batch = missing[:DRAWN_AT_ONCE]
            try:
                _draw(store, generator, batch)
            except OptionInvalid:
                for item in batch:  # one of them is to blame, and is found alone
                    try:
                        _draw(store, generator, [item])
                    except OptionInvalid as error:
                        _refuse(store, item, refused, error)
                        break
            left = store.missing()
            bar.update(len(missing) - len(left))
            missing = left


def _draw(store: Store, generator: Generator, items: Sequence[Item]) -> None:
    pictures = generator.draw([item.asked() for item in items], [item.seed or 0 for item in items])
    if len(pictures) != len(items):
        raise GeneratorFailed(f"The generator gave {len(pictures)} images for {len(items)} prompts.")
    for item, pixels in zip(items, pictures, strict=True):
        store.add(item, _encoded(pixels))


def _refuse(store: Store, item: Item, refused: set[Prompt], error: OptionInvalid) -> None:
    """Plan anew without a prompt: the images that it still owes are shared among the other prompts of its class."""
    refused.add(item.asked())
    own = [other.asked() for other in store.items if other.label == item.label]
    others = [prompt for prompt in dict.fromkeys(own) if prompt not in refused]
    if not others:
        raise OptionInvalid(
            f"The generator draws none of the prompts of {item.label}, lastly {item.prompt!r}: {error.message}",
            field=error.field,
        ) from error
    owed = [other.file for other in store.missing() if other.asked() == item.asked()]
    given = {file: others[turn % len(others)] for turn, file in enumerate(owed)}
    items = [
        replace(other, prompt=new.text, negative=new.negative, concept=new.concept)
        if (new := given.get(other.file)) is not None
        else other
        for other in store.items
    ]
    store.plan(items, [f"{item.label}: {item.prompt!r} is not drawn: {error.message}"])


def _encoded(pixels: Pixels) -> bytes:
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise GeneratorFailed(f"The generator gave {pixels.dtype} {pixels.shape} where an RGB image is due.")
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "JPEG", quality=92, subsampling=0)  # as the procedural world's pictures
    return data.getvalue()


def _seed(seed: int, label: str, number: int) -> int:
    """48 bits: exact in JSON, and distinct among the images of a set."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{label}/{number}".encode()).digest()[:6])


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
