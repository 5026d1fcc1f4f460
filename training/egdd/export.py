"""Outputs of a classifier as HDF5, for choosing debug images.

The file holds, for n images, K classes and D features, in the order of the data:

    logits      (n, K) float32
    embeddings  (n, D) float32, what the last linear layer sees
    labels      (n,) int64, true class
    predicted   (n,) int64, most probable class
    names       (n,) UTF-8 strings, file names within the data

and as attributes `classes` (K UTF-8 strings, what labels and predicted index), `model` (the file of the weights) and
`data_digest` (SHA-256 of the data, as the model card has it).
"""

from __future__ import annotations

from pathlib import Path

import h5py  # type: ignore[import-untyped]
import numpy as np

from saaa.errors import DataError
from training.egdd.data import Images
from training.egdd.measures import Predictions
from training.files import whole


def export(path: Path, found: Predictions, images: Images, *, classes: tuple[str, ...], model: str) -> None:
    """Write predictions with their embeddings.

    Args:
        path: the file.
        found: of `images`, with embeddings.
        images: what was predicted.
        classes: the model's.
        model: what to call the model.

    Raises:
        DataError: the file cannot be written.
    """
    try:
        # The format of HDF5 1.8: older ones cannot hold the names of more than 4000 classes in an attribute.
        with whole(path) as aside, h5py.File(aside, "w", libver=("v108", "latest")) as file:
            file["logits"] = found.logits
            file["embeddings"] = found.embeddings
            file["labels"] = images.labels
            file["predicted"] = found.logits.argmax(axis=1).astype(np.int64)
            file.create_dataset("names", data=list(images.listing.names), dtype=h5py.string_dtype())
            file.attrs.create("classes", list(classes), dtype=h5py.string_dtype())
            file.attrs["model"] = model
            file.attrs["data_digest"] = images.digest
    except RuntimeError as error:  # of HDF5, which cannot close a file on a full disk
        raise DataError(f"Cannot write {path}: {str(error).splitlines()[0]}") from error
