"""Test images with the maps of two models side by side."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, zip_longest
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from saaa.client.attributions import Region
from saaa.images import decode, fit
from saaa.runtime.executor import Executor
from saaa.work import AUTO_METHOD, ExplainOptions, Work, WorkBatch, WorkItem
from training.attribute.gallery import overlay
from training.debugging.pool import Candidates
from training.debugging.slices import COUNTER
from training.egdd.measures import log_probabilities

SIDE = 256
"""Longer side of a picture, pixels."""
JPEG_QUALITY = 88


@dataclass(frozen=True)
class Example:
    """A test image, explained by both models."""

    name: str
    label: str
    slice: str
    before: tuple[str, float]
    """The class that the first model predicts, and its probability."""
    after: tuple[str, float]
    photo: bytes
    """JPEG, as the maps."""
    maps: tuple[tuple[str, bytes], ...]
    """What each shows, and it laid over the photo."""


def choose(before: Candidates, after: Candidates, slices: Mapping[str, str], count: int) -> list[int]:
    """Choose test images that the retraining changed: of five about four that were repaired (those against the confound
    first) and one that is wrong now, the classes in turn; then those that are wrong still."""
    names = before.listing.names
    first = sorted(range(len(names)), key=lambda i: (slices.get(names[i]) != COUNTER, i))
    repaired = _in_turn([i for i in first if before.wrong[i] and not after.wrong[i]], before)
    broken = _in_turn([i for i in first if not before.wrong[i] and after.wrong[i]], before)
    still = _in_turn([i for i in first if before.wrong[i] and after.wrong[i]], before)
    few = -(-count // 5)
    return [*repaired[: count - min(few, len(broken))], *broken[:few], *still][:count]


def explain(
    models: tuple[Path, Path],
    outputs: tuple[Candidates, Candidates],
    indices: Sequence[int],
    slices: Mapping[str, str],
    *,
    method: str = AUTO_METHOD,
    threads: int | None = None,
) -> list[Example]:
    """Explain images with two models: what each predicted, and the true class.

    Args:
        models: the archives, before and after.
        outputs: what they say of the images.
        indices: which images.
        slices: by image name.
        method: attribution method.
        threads: of torch on the CPU.
    """
    maps: dict[int, list[tuple[str, bytes]]] = {i: [] for i in indices}
    listing = outputs[0].listing
    images = {i: decode(listing.read(i)) for i in indices}
    for when, model, found in zip(("before", "after"), models, outputs, strict=True):
        executor = Executor.open(model, threads=threads)
        info = executor.info
        for i in indices:
            pixels, geometry = fit(images[i], info.input_size, mode=info.resize, crop_fraction=info.crop_fraction)
            targets = tuple(dict.fromkeys((int(found.logits[i].argmax()), listing.labels[i])))
            (result,) = executor.run(
                WorkBatch(
                    model=info.name,
                    version=info.version,
                    work=Work.EXPLAIN,
                    pixels=pixels[None],
                    items=(WorkItem(targets=targets),),
                    explain=ExplainOptions(method=method),
                )
            )
            covered = {key: value for key, value in asdict(geometry).items() if key != "size"}
            for made in result.maps:
                values = np.asarray(made.values, np.float32)
                _, blend = overlay(images[i], values, Region(**covered), _size(images[i]))
                maps[i].append((f"{when}: {listing.classes[made.target]}", _jpeg(blend)))
    return [
        Example(
            name=listing.names[i],
            label=listing.classes[listing.labels[i]],
            slice=slices.get(listing.names[i], ""),
            before=_predicted(outputs[0], i),
            after=_predicted(outputs[1], i),
            photo=thumbnail(images[i]),
            maps=tuple(maps[i]),
        )
        for i in indices
    ]


def thumbnail(pixels: NDArray[np.uint8], side: int = SIDE) -> bytes:
    """Encode an image, (height, width, 3), at this longer side."""
    return _jpeg(Image.fromarray(pixels).resize(_size(pixels, side), Image.Resampling.LANCZOS))


def _in_turn(indices: Sequence[int], found: Candidates) -> list[int]:
    """One of each class in turn."""
    by_label: dict[int, list[int]] = {}
    for i in indices:
        by_label.setdefault(found.listing.labels[i], []).append(i)
    return [i for i in chain.from_iterable(zip_longest(*by_label.values())) if i is not None]


def _predicted(found: Candidates, index: int) -> tuple[str, float]:
    row = log_probabilities(found.logits[index : index + 1])[0]
    best = int(row.argmax())
    return found.listing.classes[best], float(np.exp(row[best]))


def _size(pixels: NDArray[np.uint8], side: int = SIDE) -> tuple[int, int]:
    scale = side / max(pixels.shape[:2])
    return max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale))


def _jpeg(picture: Image.Image) -> bytes:
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=JPEG_QUALITY)
    return data.getvalue()
