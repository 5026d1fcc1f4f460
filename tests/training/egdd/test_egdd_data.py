"""Class folders: listing, splitting, reading once, class names."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from saaa.errors import DataError, OptionInvalid
from saaa.images import decode, fit
from saaa.models.classifier import ClassifierConfig
from tests.training.egdd.conftest import draw
from training.distributed import World
from training.egdd.config import ShardsConfig
from training.egdd.data import Images, Listing, cores, find_splits, list_images, load_for_evaluation, load_for_training
from training.egdd.listing import read_classes, save_classes
from training.egdd.shards import write_shards

T = TypeVar("T")
CLASSES = ("blue", "green", "red")


@dataclass(frozen=True)
class ThreadWorld(World):
    """Processes played by threads: the exchange is a list and a barrier."""

    barrier: threading.Barrier = field(default_factory=lambda: threading.Barrier(1))
    table: dict[int, Any] = field(default_factory=dict)

    def gather(self, value: T) -> list[T]:
        self.table[self.rank] = value
        self.barrier.wait(20)
        return [self.table[rank] for rank in range(self.size)]


def on_all(size: int, do: Callable[[World], T]) -> list[T | BaseException]:
    """Run something as each of `size` processes; an error is its result."""
    barrier, table = threading.Barrier(size), dict[int, Any]()
    with ThreadPoolExecutor(size) as pool:
        runs = [pool.submit(do, ThreadWorld(rank, size, barrier=barrier, table=table)) for rank in range(size)]
        return [run.exception() or run.result() for run in runs]


def load(listing: Listing, size: int = 32, *, min_crop: float = 0.25, cache_mb: int = 16, **options: Any) -> Images:
    return load_for_training(listing, size, min_crop=min_crop, cache_mb=cache_mb, **options)


def test_listing(class_folders: Path) -> None:
    found = list_images(class_folders / "train")
    assert found.classes == CLASSES
    assert len(found) == len(set(found.names)) == 24
    assert all(name.split("/")[0] == CLASSES[label] for name, label in zip(found.names, found.labels, strict=True))
    for i in (0, 13, 23):
        assert found.read(i) == (class_folders / "train" / found.names[i]).read_bytes()
        assert found.place(i) == found.names[i]


def test_listing_takes_images_only(own_folders: Path) -> None:
    (own_folders / "train" / "red" / "README.txt").write_text("no image")
    (own_folders / "train" / "red" / "deep").mkdir()
    shutil.copy(own_folders / "train" / "red" / "00.png", own_folders / "train" / "red" / "deep" / "A.PNG")
    (own_folders / "train" / ".cache").mkdir()
    assert len(list_images(own_folders / "train")) == 16


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
    assert len(train) == 9
    assert len(val) == 6
    assert not set(train.names) & set(val.names)
    assert [val.labels.count(label) for label in range(3)] == [2, 2, 2]
    assert find_splits(own_folders, val_fraction=0.4, seed=7)[1].names == val.names
    assert any(find_splits(own_folders, val_fraction=0.4, seed=s)[1].names != val.names for s in range(5))


def test_extra_images_follow_and_are_not_held_out(own_folders: Path, tmp_path: Path) -> None:
    extra = [tmp_path / "one", tmp_path / "two"]
    draw(extra[0], 2, seed=8)
    shutil.rmtree(extra[0] / "green")
    draw(extra[1], 1, seed=9)
    train, val = find_splits(own_folders, val_fraction=0.4, seed=7)
    more, same = find_splits(own_folders, val_fraction=0.4, seed=7, extra=extra)
    assert same == val
    assert more.take(range(len(train))) == train.take(range(len(train)))
    assert more.names[len(train) :] == (
        *("extra-1/blue/00.png", "extra-1/blue/01.png", "extra-1/red/00.png", "extra-1/red/01.png"),
        *("extra-2/blue/00.png", "extra-2/green/00.png", "extra-2/red/00.png"),
    )
    assert more.labels[len(train) :] == (0, 0, 2, 2, 0, 1, 2)
    assert more.read(len(train) + 2) == (extra[0] / "red" / "00.png").read_bytes()
    assert Path(more.place(len(train) + 2)) == extra[0] / "red" / "00.png"


def test_digest_of_extra_images_tells_contents_not_places(own_folders: Path, tmp_path: Path) -> None:
    def digest(folder: Path) -> str:
        return load(find_splits(own_folders, val_fraction=0.4, seed=7, extra=[folder])[0]).digest

    draw(tmp_path / "one", 2, seed=8)
    first = digest(tmp_path / "one")
    shutil.move(tmp_path / "one", tmp_path / "moved")
    assert digest(tmp_path / "moved") == first
    Image.new("RGB", (9, 9)).save(tmp_path / "moved" / "red" / "00.png")
    assert digest(tmp_path / "moved") != first


def test_extra_shards(own_folders: Path, tmp_path: Path) -> None:
    draw(tmp_path / "one", 2, seed=8)
    (tmp_path / "one" / "red" / "01.png").write_bytes(b"broken")
    write_shards(ShardsConfig(data_path=tmp_path / "one", output_dir=tmp_path / "shards"))
    train, _ = find_splits(own_folders, val_fraction=0.4, seed=7, extra=[tmp_path / "shards"])
    images = load(train)
    assert [images.labels[-5:].tolist(), len(images)] == [[0, 0, 1, 1, 2], 14]
    ((place, _),) = images.skipped
    assert place == f"{tmp_path}/shards/shard-000000.tar: extra-1/red/01.png"
    assert images.listing.read(13) == (tmp_path / "one" / "red" / "00.png").read_bytes()


def test_extra_images_of_a_class_that_train_lacks(own_folders: Path, tmp_path: Path) -> None:
    draw(tmp_path / "one", 1, seed=8)
    (tmp_path / "one" / "red").rename(tmp_path / "one" / "pink")
    with pytest.raises(DataError, match=r"one must be among .*'red'\]; found \['pink'\]"):
        find_splits(own_folders, val_fraction=0.2, seed=0, extra=[tmp_path / "one"])


def test_class_of_one_image_cannot_be_split(own_folders: Path) -> None:
    for file in sorted((own_folders / "train" / "red").iterdir())[1:]:
        file.unlink()
    with pytest.raises(DataError, match="'red' has one image"):
        find_splits(own_folders, val_fraction=0.2, seed=0)


def test_corrupt_images_are_skipped_and_listed(own_folders: Path) -> None:
    (own_folders / "train" / "red" / "02.png").write_bytes(b"\x89PNG broken")
    (own_folders / "train" / "blue" / "04.png").write_bytes(b"")
    listing = list_images(own_folders / "train")
    images = load(listing)
    assert len(images) == 13
    assert [place for place, _ in images.skipped] == ["blue/04.png", "red/02.png"]
    assert all(reason for _, reason in images.skipped)
    assert len(images.labels) == 13


def test_class_whose_images_are_all_corrupt(own_folders: Path) -> None:
    for file in (own_folders / "train" / "red").iterdir():
        file.write_bytes(b"nothing")
    with pytest.raises(DataError, match="red"):
        load(list_images(own_folders / "train"))


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
    data = listing.read(5)
    np.testing.assert_array_equal(images[5], fit(decode(data), 32, mode="crop", crop_fraction=0.9)[0])


def test_large_training_images_are_kept_smaller(own_folders: Path) -> None:
    Image.new("RGB", (300, 100), "white").save(own_folders / "train" / "red" / "00.png")
    train = list_images(own_folders / "train")

    def shapes(min_crop: float) -> set[tuple[int, ...]]:
        images = load(train, 20, min_crop=min_crop)
        return {images[i].shape for i in range(len(images))}

    assert shapes(0.25) == {(40, 40, 3), (40, 120, 3)}, "a quarter of 40 x 40 is 20 x 20"
    assert shapes(1.0) == {(20, 20, 3), (20, 60, 3)}
    assert shapes(0.01) == {(40, 40, 3), (100, 300, 3)}, "never enlarged"


def test_digest_tells_contents_and_names(own_folders: Path) -> None:
    def digest() -> str:
        return load(list_images(own_folders / "train")).digest

    first = digest()
    assert digest() == first
    red = own_folders / "train" / "red"
    (red / "00.png").rename(red / "99.png")
    renamed = digest()
    assert renamed != first
    shutil.copy(red / "01.png", red / "99.png")
    assert digest() not in (first, renamed)


def test_digest_by_hand(class_folders: Path) -> None:
    digest = hashlib.sha256()
    for path in sorted((class_folders / "val").rglob("*.png")):
        name, content = path.relative_to(class_folders / "val").as_posix(), hashlib.sha256(path.read_bytes())
        digest.update(f"{name} {content.hexdigest()}\n".encode())
    assert load(list_images(class_folders / "val")).digest == digest.hexdigest()


@pytest.mark.parametrize("size", [2, 3])
def test_processes_share_the_reading(own_folders: Path, size: int) -> None:
    (own_folders / "train" / "red" / "02.png").write_bytes(b"broken")
    (own_folders / "train" / "blue" / "04.png").write_bytes(b"")
    listing = list_images(own_folders / "train")
    alone = load(listing)
    for images in on_all(size, lambda world: load(listing, world=world)):
        assert isinstance(images, Images)
        assert (images.listing, images.digest, images.skipped) == (alone.listing, alone.digest, alone.skipped)
        assert 0 < len(images.cache) <= -(-15 // size)
        for i in range(len(alone)):
            np.testing.assert_array_equal(images[i], alone[i])


def test_an_unreadable_file_ends_all_processes(own_folders: Path) -> None:
    listing = list_images(own_folders / "train")
    (own_folders / "train" / "green" / "01.png").unlink()
    outcomes = on_all(2, lambda world: load(listing, world=world))
    assert all(isinstance(outcome, DataError) and "green/01.png" in outcome.message for outcome in outcomes)


def test_full_cache_stays_within_its_room(class_folders: Path) -> None:
    listing = list_images(class_folders / "train")
    images = load(listing, 400, min_crop=1.0, cache_mb=1)
    assert len(images.cache) == 24
    small = Images.load(listing, lambda pixels: np.resize(pixels, (300, 400, 3)), what="train", cache_mb=1)
    assert len(small.cache) == 2**20 // (300 * 400 * 3) == 2


def test_number_of_classes(class_folders: Path) -> None:
    find_splits(class_folders, val_fraction=0.2, seed=0, nb_classes=3)
    with pytest.raises(OptionInvalid, match="has 3 classes; --nb_classes says 12") as caught:
        find_splits(class_folders, val_fraction=0.2, seed=0, nb_classes=12)
    assert caught.value.field == "nb_classes"


def test_cores_are_shared_by_local_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    alone = cores()
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(alone))
    assert cores() == 1
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(10 * alone))
    assert cores() == 1


def test_listing_needs_no_torch() -> None:
    program = "import sys, training.egdd.data, training.egdd.shards; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


NAMES = st.lists(st.text(st.characters(codec="utf-8"), min_size=1), min_size=2, max_size=9, unique=True)


@given(NAMES)
def test_saved_classes_are_read_back(tmp_path_factory: pytest.TempPathFactory, names: list[str]) -> None:
    path = tmp_path_factory.mktemp("classes") / "classes.json"
    save_classes(names, path)
    assert read_classes(path) == tuple(names)


@pytest.mark.parametrize("text", ['["bath", "den"]', '{"den": 1, "bath": 0}', "bath\n\n  den \n"])
def test_classes_in_three_ways(tmp_path: Path, text: str) -> None:
    (tmp_path / "file").write_text(text)
    assert read_classes(tmp_path / "file") == ("bath", "den")


@pytest.mark.parametrize(
    "content",
    [b"", b"one", b'["a", "a"]', b'{"a": 0, "b": 2}', b'{"a": 0, "b": "x"}', b"[1, 2]", b"7", b"\xff\xfe\n\xff"],
)
def test_no_classes(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(DataError, match="file"):
        read_classes(tmp_path / "file")


def test_no_file_of_classes(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_classes(tmp_path / "none")
