"""path.json: where the files of each split are; and `saaa-train ega prepare`, which writes it and model.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py  # type: ignore[import-untyped]
import numpy as np

from saaa.errors import DataError
from training.ega.names import read_names
from training.ega.published_config import PrepareConfig
from training.ega.published_model import model_content, read_prepared
from training.features.layout import GLOBAL, REGIONS, global_file
from training.files import write_json

SETS = ("trn", "val", "val_sub", "val_sub_opt")
"""The published splits; `prepare` lists those that are there."""


@dataclass(frozen=True, kw_only=True)
class Paths:
    """What path.json says."""

    output_dir: Path
    annotations: Path
    """In the published layout, see `training.ega.published`."""
    global_features: Mapping[str, Path]
    """The folder of <set>_ft.npy, by split."""
    region_features: Mapping[str, Path]
    """The folder of <image_id>.jpg.hdf5, by split."""
    ignored: tuple[str, ...]
    """Keys without effect here."""


def read_paths(path: Path, splits: Sequence[str]) -> Paths:
    """Read path.json; relative paths in it start where the program is started, as published.

    Args:
        path: the file.
        splits: those that are used.

    Raises:
        DataError: it cannot be read, lacks a key or a split, or a file does not lie as published.
    """
    content = read_prepared(path)
    one = ("output_dir", "word2int_file", "int2word_file")
    each = ("mp_ft_file", "name_file", "region_anno_dir", "obj_ft_dir")
    for key in (*one, *each):
        if not isinstance(content.get(key), str if key in one else dict):
            kind = "a path" if key in one else "the path of each split"
            raise DataError(f"{path}: {key} must be {kind}.")
    for split in splits:
        if missing := [key for key in each if not isinstance(content[key].get(split), str)]:
            there = ", ".join(content[missing[0]]) or "none"
            raise DataError(f"{path}: {missing[0]} has no split {split!r}; it has {there}.")
    words = Path(content["int2word_file"])
    notes = words.parent
    places = {"int2word_file": notes / "int2word.npy", "word2int_file": notes / "word2int.json"}
    for key, place in places.items():
        _must_lie(path, key, Path(content[key]), place)
    for split in splits:
        _must_lie(
            path, f"name_file of {split}", Path(content["name_file"][split]), notes / f"public_split/{split}_names.npy"
        )
        _must_lie(path, f"region_anno_dir of {split}", Path(content["region_anno_dir"][split]), notes / "regionfiles")
        given = Path(content["mp_ft_file"][split])
        _must_lie(path, f"mp_ft_file of {split}", given, global_file(given.parent, split))
    return Paths(
        output_dir=Path(content["output_dir"]),
        annotations=notes,
        global_features={split: Path(content["mp_ft_file"][split]).parent for split in splits},
        region_features={split: Path(content["obj_ft_dir"][split]) for split in splits},
        ignored=tuple(sorted(set(content) - {*one, *each})),
    )


def prepare(config: PrepareConfig) -> Path:
    """Write model.json and path.json for a data folder; prints the folder that they are in, as published, and gives it.

    Raises:
        DataError: vocabulary, splits or features are missing or malformed, or the files cannot be written.
    """
    notes = (config.annotations or config.data_path / "annotations").resolve()
    features = (config.features or config.data_path / "features").resolve()
    images = (config.global_features or features / GLOBAL).resolve()
    regions = (config.region_features or features / REGIONS).resolve()
    splits = [split for split in SETS if (notes / "regionfiles" / f"{split}_names.npy").is_file()]
    if "trn" not in splits or "val" not in splits:
        raise DataError(f"{notes}/regionfiles must list the splits trn and val; it has {', '.join(splits) or 'none'}.")
    output = config.output_dir.resolve()
    content = model_content(
        words=read_names(notes / "int2word.npy").size,
        region_size=_region_size(regions),
        image_size=_image_size(global_file(images, "val")),
        width=config.width,
        layers=config.layers,
        max_nodes=config.max_nodes,
        max_tokens=config.max_tokens,
        batch_size=config.batch_size,
        epochs=config.epochs,
        lr=config.lr,
    )
    paths = {
        "output_dir": str(output),
        "mp_ft_file": {split: str(global_file(images, split)) for split in splits},
        "name_file": {split: str(notes / "public_split" / f"{split}_names.npy") for split in splits},
        "word2int_file": str(notes / "word2int.json"),
        "int2word_file": str(notes / "int2word.npy"),
        "region_anno_dir": {split: str(notes / "regionfiles") for split in splits},
        "obj_ft_dir": {split: str(regions) for split in splits},
    }
    write_json(output / "model.json", content)
    write_json(output / "path.json", paths)
    print(output)
    return output


def _region_size(folder: Path) -> int:
    """Numbers of a region's features, told from the first file."""
    try:
        path = next(iter(sorted(folder.glob("*.hdf5"))))
        with h5py.File(path, "r") as file:
            return int(next(iter(file.values())).shape[1])
    except StopIteration:
        raise DataError(
            f"{folder} has no features of regions (<image_id>.jpg.hdf5); saaa-train features makes them."
        ) from None
    except (OSError, AttributeError, IndexError) as error:
        raise DataError(f"{path} is damaged or not in the published layout: {error}") from error


def _image_size(path: Path) -> int:
    try:
        return int(np.load(path, mmap_mode="r", allow_pickle=False).shape[1])
    except (OSError, ValueError, EOFError, IndexError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def _must_lie(path: Path, key: str, given: Path, place: Path) -> None:
    if given.resolve() != place.resolve():
        raise DataError(f"{path}: {key} is {given}; the published layout has it at {place}.")
    if not given.exists():
        raise DataError(f"{path}: {key} is {given}, which is not there.")
