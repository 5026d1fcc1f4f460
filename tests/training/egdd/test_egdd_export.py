"""Exported outputs: large class lists, names in any script, whole files only."""

from __future__ import annotations

import multiprocessing
import os
import resource
from pathlib import Path

import h5py
import numpy as np
import pytest

from saaa.errors import DataError
from training.egdd.data import Images
from training.egdd.export import export
from training.egdd.listing import Extent, Listing
from training.egdd.measures import Predictions


def images_of(names: tuple[str, ...], classes: tuple[str, ...]) -> Images:
    listing = Listing(Path("data"), classes, names, (0,) * len(names), tuple(map(Extent, names)))
    return Images(listing, lambda pixels: pixels, "digest", ())


def outputs(count: int, known: int) -> Predictions:
    rng = np.random.default_rng(0)
    return Predictions(
        rng.normal(size=(count, known)).astype(np.float32), rng.normal(size=(count, 4)).astype(np.float32)
    )


def test_as_many_classes_as_imagenet_21k_has(tmp_path: Path) -> None:
    classes = tuple(f"{k}: Küche 厨房" for k in range(21_843))
    names = ("Küche/厨房.png", "b" * 300)
    found = outputs(2, len(classes))
    export(tmp_path / "a.h5", found, images_of(names, classes), classes=classes, model="m")
    with h5py.File(tmp_path / "a.h5") as file:
        assert file.attrs["classes"].tolist() == list(classes)
        assert file["names"].asstr()[()].tolist() == list(names)
        np.testing.assert_array_equal(file["logits"], found.logits)


def test_same_input_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        export(tmp_path / name, outputs(5, 3), images_of(tuple("vwxyz"), tuple("abc")), classes=tuple("abc"), model="m")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def _export_with_little_room(path: Path, room: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
    found, images = outputs(500, 3), images_of(tuple(map(str, range(500))), tuple("abc"))
    try:
        export(path, found, images, classes=tuple("abc"), model="m")
    except DataError as error:
        os._exit(0 if str(error).startswith(f"Cannot write {path}: ") and "\n" not in str(error) else 1)
    os._exit(2)


@pytest.mark.parametrize("room", [0, 100, 5000])
def test_full_disk_leaves_what_was_there(tmp_path: Path, room: int) -> None:
    """A limit on the size of files stands for it, in a process of its own: HDF5 notices when it writes or closes."""
    path = tmp_path / "a.h5"
    path.write_text("the last one")
    process = multiprocessing.get_context("fork").Process(target=_export_with_little_room, args=(path, room))
    process.start()
    process.join(60)
    assert process.exitcode == 0
    assert path.read_text() == "the last one"
    assert [p.name for p in tmp_path.iterdir()] == ["a.h5"]
