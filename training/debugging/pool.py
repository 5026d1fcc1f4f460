"""What a model says of the images of a folder: whom to choose from, and what it gets wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from saaa.errors import DataError, OptionInvalid
from training.debugging.selectors import Failures
from training.egdd.data import Images, list_images, load_for_evaluation
from training.egdd.listing import Listing


@dataclass(frozen=True)
class Candidates:
    """Readable images, and a model's outputs for them."""

    listing: Listing
    """n images; its classes are all that the model knows, C of them."""
    logits: NDArray[np.float32]
    """(n, C)."""
    embeddings: NDArray[np.float32]
    """(n, d), what the model's last layer sees."""

    @property
    def labels(self) -> NDArray[np.int64]:
        """(n,) indices into the classes."""
        return np.array(self.listing.labels, dtype=np.int64)

    @property
    def wrong(self) -> NDArray[np.bool_]:
        """(n,), which images the model gets wrong."""
        return np.asarray(self.logits.argmax(axis=1) != self.labels)

    @property
    def failures(self) -> Failures:
        """Those that it gets wrong."""
        return Failures(self.embeddings[self.wrong], self.labels[self.wrong])


def look(
    model: Path,
    folder: Path,
    classes: Sequence[str] | None = None,
    *,
    batch_size: int = 32,
    threads: int | None = None,
) -> Candidates:
    """Predict the images of a folder.

    Args:
        model: an archive (.mar) or a checkpoint of `saaa-train egdd`.
        folder: class folders or shards; its classes must be among the model's.
        classes: those whose images are looked at; default: all of the folder.
        batch_size: images of one forward.
        threads: of torch on the CPU; default: torch's choice.

    Raises:
        DataError: no such folder, an unknown class, no image of the classes, or no readable one of some class.
        OptionInvalid: a class that the model does not know, or a network without penultimate features.
        ArchiveError, CheckpointError: the model is unusable.
    """
    # Imported here: torch takes seconds, and whoever only names a strategy should not wait for it.
    import torch

    from training.egdd.evaluation import predict, read_classifier

    if threads is not None:
        torch.set_num_threads(threads)
    classifier = read_classifier(model)
    listing = _listed(folder, classifier.config.classes, classes)
    images = load_for_evaluation(listing, classifier.config, what=folder.name)
    found = predict(classifier, images, batch_size=batch_size, embeddings=True, show=True)
    assert found.embeddings is not None
    return Candidates(images.listing, found.logits, found.embeddings)


def listed(model: Path, folder: Path, classes: Sequence[str] | None = None) -> Listing:
    """List the images of a folder with the labels of `look`, without reading them.

    Raises:
        DataError, OptionInvalid, ArchiveError, CheckpointError: as `look`.
    """
    from training.egdd.evaluation import read_classifier

    return _listed(folder, read_classifier(model).config.classes, classes)


def readable(listing: Listing) -> Listing:
    """Keep the images that can be decoded, as `look` does.

    Raises:
        DataError: no image of some class can.
    """
    return Images.load(listing, lambda pixels: pixels, what=listing.root.name, cache_mb=0).listing


def _listed(folder: Path, known: Sequence[str], classes: Sequence[str] | None) -> Listing:
    """List the images of some classes among those that a model knows."""
    unknown = sorted(set(classes or ()) - set(known))
    if unknown:
        raise OptionInvalid(f"The model knows no class {', '.join(unknown)}; it knows {', '.join(known)}.")
    listing = list_images(folder, known)
    if classes is None:
        return listing
    labels = {known.index(name) for name in classes}
    kept = listing.take([i for i, label in enumerate(listing.labels) if label in labels])
    if not kept:
        raise DataError(f"{folder} has no image of {', '.join(classes)}.")
    return kept
