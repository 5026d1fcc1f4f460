"""Class folders: listing, splitting, decoding, batches."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from saaa.errors import DataError
from saaa.images import decode, fit
from saaa.models.classifier import ClassifierConfig
from training.egdd.data import (
    epoch_batches,
    find_splits,
    list_images,
    load_for_evaluation,
    load_for_training,
)

CLASSES = ("blue", "green", "red")


def test_listing(class_folders: Path) -> None:
    found = list_images(class_folders / "train")
    assert found.classes == CLASSES
    assert len(found.files) == 24
    assert all(file.parts[0] == CLASSES[label] for file, label in zip(found.files, found.labels, strict=True))


def test_listing_takes_images_only(own_folders: Path) -> None:
    (own_folders / "train" / "red" / "README.txt").write_text("no image")
    (own_folders / "train" / "red" / "deep").mkdir()
    shutil.copy(own_folders / "train" / "red" / "00.png", own_folders / "train" / "red" / "deep" / "A.PNG")
    (own_folders / "train" / ".cache").mkdir()
    assert len(list_images(own_folders / "train").files) == 16


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="There is no folder"):
        list_images(tmp_path / "none")


def test_empty_class(own_folders: Path) -> None:
    (own_folders / "train" / "void").mkdir()
    with pytest.raises(DataError, match="void holds no image"):
        list_images(own_folders / "train")


def test_one_class(own_folders: Path) -> None:
    shutil.rmtree(own_folders / "train" / "red")
    shutil.rmtree(own_folders / "train" / "blue")
    with pytest.raises(DataError, match=r"at least 2 classes; it has 1: \['green'\]"):
        list_images(own_folders / "train")


def test_class_that_the_model_does_not_know(own_folders: Path) -> None:
    shutil.copytree(own_folders / "train", own_folders / "val")
    (own_folders / "val" / "red").rename(own_folders / "val" / "pink")
    with pytest.raises(DataError, match="pink"):
        find_splits(own_folders, val_fraction=0.2, seed=0)


def test_val_may_lack_a_class(own_folders: Path) -> None:
    shutil.copytree(own_folders / "train", own_folders / "val")
    shutil.rmtree(own_folders / "val" / "green")
    _, val = find_splits(own_folders, val_fraction=0.2, seed=0)
    assert val.classes == CLASSES
    assert set(val.labels) == {0, 2}


def test_seeded_split(own_folders: Path) -> None:
    train, val = find_splits(own_folders, val_fraction=0.4, seed=7)
    assert len(train.files) == 9
    assert len(val.files) == 6
    assert not set(train.files) & set(val.files)
    assert [val.labels.count(label) for label in range(3)] == [2, 2, 2]
    assert find_splits(own_folders, val_fraction=0.4, seed=7)[1].files == val.files
    assert any(find_splits(own_folders, val_fraction=0.4, seed=s)[1].files != val.files for s in range(5))


def test_class_of_one_image_cannot_be_split(own_folders: Path) -> None:
    for file in sorted((own_folders / "train" / "red").iterdir())[1:]:
        file.unlink()
    with pytest.raises(DataError, match="'red' has one image"):
        find_splits(own_folders, val_fraction=0.2, seed=0)


def test_corrupt_images_are_skipped_and_listed(own_folders: Path) -> None:
    (own_folders / "train" / "red" / "02.png").write_bytes(b"\x89PNG broken")
    (own_folders / "train" / "blue" / "04.png").write_bytes(b"")
    listing = list_images(own_folders / "train")
    images = load_for_training(listing, 32, cache_mb=16)
    assert len(images) == 13
    assert [file.as_posix() for file, _ in images.skipped] == ["blue/04.png", "red/02.png"]
    assert all(reason for _, reason in images.skipped)
    assert len(images.labels) == 13


def test_class_whose_images_are_all_corrupt(own_folders: Path) -> None:
    for file in (own_folders / "train" / "red").iterdir():
        file.write_bytes(b"nothing")
    with pytest.raises(DataError, match="red"):
        load_for_training(list_images(own_folders / "train"), 32, cache_mb=16)


def test_cache_changes_nothing(class_folders: Path) -> None:
    listing = list_images(class_folders / "val")
    config = ClassifierConfig(architecture="test_efficientnet", classes=CLASSES, input_size=32)
    kept = load_for_evaluation(listing, config, what="val", cache_mb=16)
    read = load_for_evaluation(listing, config, what="val", cache_mb=0)
    assert len(kept.cache) == len(kept) == 12
    assert not read.cache
    assert kept.digest == read.digest
    for i in range(len(kept)):
        np.testing.assert_array_equal(kept[i], read[i])


def test_evaluation_sees_what_serving_sees(class_folders: Path) -> None:
    listing = list_images(class_folders / "val")
    config = ClassifierConfig(
        architecture="test_efficientnet", classes=CLASSES, input_size=32, resize="crop", crop_fraction=0.9
    )
    images = load_for_evaluation(listing, config, what="val")
    data = (listing.root / listing.files[5]).read_bytes()
    np.testing.assert_array_equal(images[5], fit(decode(data), 32, mode="crop", crop_fraction=0.9)[0])


def test_large_training_images_are_kept_smaller(own_folders: Path) -> None:
    Image.new("RGB", (300, 100), "white").save(own_folders / "train" / "red" / "00.png")
    images = load_for_training(list_images(own_folders / "train"), 20, cache_mb=16)
    shapes = {images[i].shape for i in range(len(images))}
    assert shapes == {(40, 40, 3), (40, 120, 3)}


def test_digest_tells_contents_and_names(own_folders: Path) -> None:
    def digest() -> str:
        return load_for_training(list_images(own_folders / "train"), 32, cache_mb=1).digest

    first = digest()
    assert digest() == first
    red = own_folders / "train" / "red"
    (red / "00.png").rename(red / "99.png")
    renamed = digest()
    assert renamed != first
    shutil.copy(red / "01.png", red / "99.png")
    assert digest() not in (first, renamed)


@given(
    count=st.integers(2, 70),
    size=st.integers(1, 40),
    seed=st.integers(0, 9),
    epoch=st.integers(0, 9),
    even=st.booleans(),
)
def test_batches(count: int, size: int, seed: int, epoch: int, even: bool) -> None:
    batches = epoch_batches(count, size, seed=seed, epoch=epoch, even=even)
    flat = [i for batch in batches for i in batch]
    assert batches
    assert len(set(flat)) == len(flat)
    assert set(flat) <= set(range(count))
    assert len({len(batch) for batch in batches}) == 1
    assert count - len(flat) < len(batches[0])
    if even:
        assert len(batches[0]) % 2 == 0
    else:
        assert len(batches[0]) == min(size, count)
    assert batches == epoch_batches(count, size, seed=seed, epoch=epoch, even=even)


def test_epochs_are_shuffled_differently() -> None:
    assert epoch_batches(30, 30, seed=0, epoch=0, even=False) != epoch_batches(30, 30, seed=0, epoch=1, even=False)
