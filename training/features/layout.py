"""The published layout of features.

    MP/<set>_ft.npy               global features, float32 (images, size), in the order of public_split/<set>_names.npy
    SA/<image_id>.jpg.hdf5        region features: dataset "<image_id>.jpg", float32 (boxes, size), with the attributes
                                  "boxes", int32 (boxes, 4): left, top, right, bottom, the last two inclusive; "image_w"
                                  and "image_h", pixels of the image

A "/" in an image id is "_" in file and dataset names. Boxes are those of objects, and for relationships the union of
subject and object. What we write has the attribute "global", too: the image's row in MP.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import h5py  # type: ignore[import-untyped]
import numpy as np
from numpy.typing import NDArray

from saaa.errors import DataError
from training.files import whole

GLOBAL, REGIONS = "MP", "SA"
RUN = "features.json"
"""Of `saaa-train features`: what made the features; published ones come without."""
BoxKey = tuple[int, int, int, int]
"""Left, top, right, bottom, the last two inclusive; see `saaa.scene_graph.Box.key`."""


@dataclass(frozen=True, kw_only=True)
class ImageFeatures:
    """What is known of one image's regions."""

    boxes: NDArray[np.float64]
    """(n, 4), as stored; published files hold whole numbers, some of them as floats."""
    features: NDArray[np.float32]
    """(n, size), a row a box."""


def region_file(folder: Path, image_id: str) -> Path:
    """Where the region features of an image are, in an SA folder."""
    return folder / f"{_flat(image_id)}.jpg.hdf5"


def global_file(folder: Path, split: str) -> Path:
    """Where the global features of a split are, in an MP folder."""
    return folder / f"{split}_ft.npy"


def write_image(
    folder: Path,
    image_id: str,
    boxes: NDArray[np.int32],
    features: NDArray[np.float32],
    image: NDArray[np.float32],
    size: tuple[int, int],
) -> None:
    """Write one image's file, whole or not at all.

    Args:
        folder: the SA folder.
        image_id: names file and dataset.
        boxes: (n, 4), see above.
        features: (n, size).
        image: (global size,).
        size: width and height of the image in pixels.

    Raises:
        DataError: the file cannot be written.
    """
    # The newest format only: an older one holds no more than 64 KiB of attributes, some 4,000 boxes.
    with whole(region_file(folder, image_id)) as aside, h5py.File(aside, "w", libver="latest") as file:
        data = file.create_dataset(f"{_flat(image_id)}.jpg", data=features)
        data.attrs["boxes"] = boxes
        data.attrs["image_w"], data.attrs["image_h"] = size
        data.attrs["global"] = image


def read_image(folder: Path, image_id: str) -> ImageFeatures:
    """Read the region features of one image.

    Raises:
        DataError: the file is missing, damaged, or not in this layout.
    """
    path = region_file(folder, image_id)
    if not path.is_file():
        raise DataError(f"There is no file {path}.")
    try:
        with h5py.File(path, "r") as file:
            data = file[f"{_flat(image_id)}.jpg"]
            boxes = np.asarray(data.attrs["boxes"], np.float64)
            features = np.asarray(data[...], np.float32)
    except (OSError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise DataError(f"{path} is damaged or not in the published layout: {error}") from error
    if boxes.ndim != 2 or boxes.shape[1] != 4 or features.ndim != 2 or len(boxes) != len(features):
        raise DataError(f"{path}: boxes {boxes.shape} and features {features.shape} do not fit each other.")
    return ImageFeatures(boxes=boxes, features=features)


def read_own(folder: Path, image_id: str) -> tuple[set[BoxKey], NDArray[np.float32]] | None:
    """The boxes and the global features that `write_image` wrote; None when there is no such file, or a damaged one."""
    try:
        with h5py.File(region_file(folder, image_id), "r") as file:
            attributes = file[f"{_flat(image_id)}.jpg"].attrs
            boxes = {(int(a), int(b), int(c), int(d)) for a, b, c, d in attributes["boxes"]}
            return boxes, np.asarray(attributes["global"], np.float32)
    except (OSError, KeyError, RuntimeError, TypeError, ValueError):
        return None


def read_global(folder: Path, split: str, images: int) -> NDArray[np.float32]:
    """The global features of a split, memory-mapped.

    Raises:
        DataError: the file is missing, damaged, or has not a row for each image of the split.
    """
    path = global_file(folder, split)
    try:
        found: NDArray[np.float32] = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise DataError(f"There is no file {path}.") from error
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    if found.ndim != 2 or found.dtype.kind != "f" or len(found) != images:
        raise DataError(
            f"{path} holds {found.dtype} {found.shape}; it must have a row of floats for each of the {images} images "
            f"of the split {split}."
        )
    return found


def _flat(image_id: str) -> str:
    return image_id.replace("/", "_")
