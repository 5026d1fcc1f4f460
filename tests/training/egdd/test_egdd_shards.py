"""Shards: packed and indexed, they are the same data as the folders; of torn and foreign ones what is whole is read."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from saaa.errors import DataError
from tests.training.egdd.tiny_run import assert_same, options
from tests.training.runs import losses
from training.egdd.config import ShardsConfig
from training.egdd.data import Listing, find_splits, list_images, load_for_training
from training.egdd.listing import read_classes
from training.egdd.shards import write_shards
from training.egdd.train import train

CLASSES = ("blue", "green", "red")


def pack(source: Path, target: Path, **options: Any) -> Listing:
    return write_shards(ShardsConfig(data_path=source, output_dir=target, **options))


def tar(path: Path, members: Mapping[str, bytes], kind: int = tarfile.USTAR_FORMAT) -> bytes:
    """Write a shard by hand and give its bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=kind) as file:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    return path.read_bytes()


def image(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (9, 7), (value, value, value)).save(buffer, "PNG")
    return buffer.getvalue()


def content(listing: Listing) -> dict[str, tuple[str, bytes]]:
    return {
        name: (listing.classes[label], listing.read(i))
        for i, (name, label) in enumerate(zip(listing.names, listing.labels, strict=True))
    }


@pytest.fixture(scope="module")
def shards(class_folders: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shards")
    for part in ("train", "val"):
        pack(class_folders / part, root / part)
    return root


def test_same_data_as_the_folders(class_folders: Path, shards: Path) -> None:
    for own, theirs in zip(
        find_splits(shards, val_fraction=0.2, seed=0),
        find_splits(class_folders, val_fraction=0.2, seed=0),
        strict=True,
    ):
        assert (own.classes, own.names, own.labels, own.problems) == (theirs.classes, theirs.names, theirs.labels, ())
        assert content(own) == content(theirs)
        a = load_for_training(own, 16, min_crop=0.5, cache_mb=1)
        b = load_for_training(theirs, 16, min_crop=0.5, cache_mb=0)
        assert a.digest == b.digest
        np.testing.assert_array_equal(a[7], b[7])


def test_same_training_as_from_the_folders(class_folders: Path, shards: Path, tmp_path: Path) -> None:
    for name, data in (("shards", shards), ("folders", class_folders)):
        train(options(data, tmp_path / name, epochs=2, cache_mb=0))
    assert losses(tmp_path / "shards") == losses(tmp_path / "folders")
    assert_same(tmp_path / "shards" / "last.pt", tmp_path / "folders" / "last.pt")


def test_held_out_from_shards_as_from_folders(own_folders: Path, tmp_path: Path) -> None:
    pack(own_folders / "train", tmp_path / "packed" / "train")
    ours = find_splits(tmp_path / "packed", val_fraction=0.4, seed=3)
    theirs = find_splits(own_folders, val_fraction=0.4, seed=3)
    assert [part.names for part in ours] == [part.names for part in theirs]


def test_other_readers_understand_them(shards: Path) -> None:
    """Members of a key follow each other, the class is a number, as WebDataset's readers want it."""
    key = re.compile(r"((?:.*/|)[^.]+)[.]([^/]*)")
    with tarfile.open(shards / "train" / "shard-000000.tar") as file:
        members = file.getmembers()
        classes = read_classes(shards / "train" / "classes.json")
        for picture, label in zip(members[::2], members[1::2], strict=True):
            a, b = key.fullmatch(picture.name), key.fullmatch(label.name)
            assert a
            assert b
            assert a[1] == b[1]
            assert (a[2], b[2]) == ("png", "cls")
            text = file.extractfile(label)
            assert text
            assert classes[int(text.read())] == picture.name.split("/")[0]
    assert json.loads((shards / "train" / "classes.json").read_text()) == {"blue": 0, "green": 1, "red": 2}
    order = [member.name.split("/")[0] for member in members]
    assert order != sorted(order), "the classes are mixed"


def test_packing_is_deterministic(class_folders: Path, tmp_path: Path) -> None:
    def bytes_of(seed: int, name: str) -> bytes:
        pack(class_folders / "val", tmp_path / name, seed=seed)
        return (tmp_path / name / "shard-000000.tar").read_bytes()

    assert bytes_of(0, "a") == bytes_of(0, "b") != bytes_of(1, "c")


def test_shards_have_a_size(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (10, 300, 300, 3), dtype=np.uint8)
    for i, pixels in enumerate(noise):
        path = tmp_path / "folders" / CLASSES[i % 3] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    pack(tmp_path / "folders", tmp_path / "out", shard_mb=1)
    sizes = [path.stat().st_size for path in sorted((tmp_path / "out").glob("*.tar"))]
    assert len(sizes) == 4, "three pictures of 0.27 MB are in one"
    assert max(sizes) < 1.1 * 2**20
    assert content(list_images(tmp_path / "out")) == content(list_images(tmp_path / "folders"))
    assert sorted(path.name for path in (tmp_path / "out").iterdir())[:2] == ["classes.json", "shard-000000.tar"]


def test_names_that_are_no_keys(tmp_path: Path) -> None:
    pictures = {
        "x/a.b.png": 1,
        "x/a_b.png": 2,
        "x/a_b.PNG": 3,
        "x.y/.odd..png": 4,
        "y/ü n.png": 5,
        f"y/{'l' * 180}.png": 6,
    }
    for name, value in pictures.items():
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(image(value))
    pack(tmp_path / "in", tmp_path / "out")
    packed, plain = list_images(tmp_path / "out"), list_images(tmp_path / "in")
    assert not packed.problems
    assert len(set(packed.names)) == 6
    assert sorted(content(packed).values()) == sorted(content(plain).values())


def test_no_second_packing_into_a_folder(class_folders: Path, tmp_path: Path) -> None:
    pack(class_folders / "val", tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(DataError, match="holds shards already"):
        pack(class_folders / "train", tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_full_disk_leaves_no_shards(class_folders: Path, tmp_path: Path) -> None:
    program = (
        "import resource, sys; from pathlib import Path; from saaa.errors import DataError;"
        "from training.egdd.config import ShardsConfig; from training.egdd.shards import write_shards;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000));\n"
        "try: write_shards(ShardsConfig(data_path=Path(sys.argv[1]), output_dir=Path(sys.argv[2])))\n"
        "except DataError as error: sys.exit(error.message)"
    )
    words = [sys.executable, "-c", program, str(class_folders / "train"), str(tmp_path / "out")]
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert f"Cannot write shards into {tmp_path / 'out'}" in done.stderr
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("texts", "file", "classes"),
    [
        (["den", "bath"], None, ["bath", "den"]),
        (["10", "9"], None, ["9", "10"]),
        (["1", "0\n"], '["den", "bath"]', ["den", "bath"]),
        (["den", "bath"], '{"den": 0, "bath": 1}', ["den", "bath"]),
        (["1", "0"], '["1", "0"]', ["1", "0"]),
    ],
)
def test_classes_of_foreign_shards(tmp_path: Path, texts: list[str], file: str | None, classes: list[str]) -> None:
    members = {
        f"{i}.{end}": data for i, t in enumerate(texts) for end, data in (("png", image(i)), ("cls", t.encode()))
    }
    tar(tmp_path / "0.tar", members)
    if file is not None:
        (tmp_path / "classes.json").write_text(file)
    found = list_images(tmp_path)
    assert list(found.classes) == classes
    named = [text.strip() for text in texts]
    expected = [classes[int(t)] if file is not None and t.isdigit() else t for t in named]
    assert {name: kind for name, (kind, _) in content(found).items()} == dict(
        zip(["0.png", "1.png"], expected, strict=True)
    )


def test_val_has_an_order_of_its_own(tmp_path: Path) -> None:
    """A number is a position in the file beside it; without one, in the classes of train."""
    tar(tmp_path / "a.tar", {"x.png": image(0), "x.cls": b"0", "y.png": image(1), "y.cls": b"1"})
    assert list_images(tmp_path, CLASSES).labels == (0, 1)
    (tmp_path / "classes.txt").write_text("red\nblue\n")
    found = list_images(tmp_path, CLASSES)
    assert {name: kind for name, (kind, _) in content(found).items()} == {"x.png": "red", "y.png": "blue"}
    (tmp_path / "classes.txt").write_text("pink\nblue\n")
    with pytest.raises(DataError, match=r"must be among \['blue', 'green', 'red'\]; found 'pink'"):
        list_images(tmp_path, CLASSES)


@pytest.mark.parametrize(
    ("members", "file", "message"),
    [
        ({"x.png": b"", "x.cls": b"den"}, None, "at least 2 classes; it has 1"),
        ({"x.txt": b"a"}, None, "hold no image with a class"),
        ({}, None, "hold no image with a class"),
        ({"x.png": b"", "x.cls": b"0", "y.png": b"", "y.cls": b"1"}, "a\nb\nc", r"hold no image of \['c'\]"),
        ({"x.png": b"", "x.cls": b"0", "y.png": b"", "y.cls": b"2"}, "a\nb", "must be among .* found '2'"),
    ],
)
def test_unusable_shards(tmp_path: Path, members: dict[str, bytes], file: str | None, message: str) -> None:
    tar(tmp_path / "0.tar", members)
    if file is not None:
        (tmp_path / "classes.txt").write_text(file)
    with pytest.raises(DataError, match=message):
        list_images(tmp_path)


def test_no_tar_file(tmp_path: Path) -> None:
    for data in (b"", b"no tar file at all" * 100, b"\x1f\x8b" + bytes(600)):
        (tmp_path / "0.tar").write_bytes(data)
        with pytest.raises(DataError, match=r"0\.tar is no tar file"):
            list_images(tmp_path)


def test_shards_and_folders_in_one(tmp_path: Path) -> None:
    tar(tmp_path / "0.tar", {})
    (tmp_path / "red").mkdir()
    with pytest.raises(DataError, match="keep one of the two"):
        list_images(tmp_path)


def test_foreign_members_are_listed(tmp_path: Path) -> None:
    good = {"1.png": image(1), "1.cls": b"a", "d.x/2.JPG": image(2), "d.x/2.cls": b"b"}
    more = {"1.json": b"{}", "2.json": b"{}", "._1.png": b"", "README": b"", "3.png": image(3), "4.cls": b"a"}
    double = {"5.png": b"", "5.jpg": b"", "5.cls": b"a", "6.png": b"", "6.cls": b" "}
    tar(tmp_path / "0.tar", good | more | double)
    found = list_images(tmp_path)
    assert found.names == ("1.png", "d.x/2.JPG")
    assert dict(found.problems) == {
        "0.tar": "2 members .json are neither image nor class",
        "0.tar: 3": "1 images and 0 classes, not one of each",
        "0.tar: 4": "0 images and 1 classes, not one of each",
        "0.tar: 5": "2 images and 1 classes, not one of each",
        "0.tar: 6": "its class is empty",
    }
    assert found.problems[0] == ("0.tar", "2 members hidden or without suffix are neither image nor class")


def test_same_key_in_two_shards(tmp_path: Path) -> None:
    for number in range(2):
        tar(tmp_path / f"{number}.tar", {"x.png": image(number), "x.cls": f"{number}".encode()})
    found = list_images(tmp_path)
    assert content(found) == {"0.tar/x.png": ("0", image(0)), "1.tar/x.png": ("1", image(1))}


def test_corrupt_images_of_shards_are_listed(tmp_path: Path) -> None:
    members = {f"{i}.{end}": data for i in range(8) for end, data in (("png", image(i)), ("cls", b"%d" % (i % 2)))}
    tar(tmp_path / "train" / "0.tar", members | {"2.png": b"broken", "9.txt": b""})
    train, val = find_splits(tmp_path, val_fraction=0.5, seed=0)
    skipped = [load_for_training(part, 16, min_crop=1.0, cache_mb=1).skipped for part in (train, val)]
    assert sorted(place for part in skipped for place, _ in part) == ["0.tar", "0.tar: 2.png"]
    assert skipped[0][0][0] == "0.tar", "what belongs to no image counts once, in train"


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes, dict[str, tuple[str, bytes]]]:
    root = tmp_path_factory.mktemp("torn")
    members = {f"k{i}.{end}": d for i in range(6) for end, d in (("png", image(i)), ("cls", b"%d" % (i % 2)))}
    data = tar(
        root / "0.tar", members | {f"{'long' * 40}.png": image(9), f"{'long' * 40}.cls": b"1"}, tarfile.PAX_FORMAT
    )
    return root, data, content(list_images(root))


@settings(max_examples=60)
@given(cut=st.integers(0, 30_000))
def test_torn_shards_give_what_is_whole(shard: tuple[Path, bytes, dict[str, tuple[str, bytes]]], cut: int) -> None:
    root, data, whole = shard
    (root / "0.tar").write_bytes(data[:cut])
    end = len(data.rstrip(b"\0"))
    try:
        found = list_images(root)
    except DataError:
        assert cut < len(data) // 2
        return
    got = content(found)
    assert got.items() <= whole.items()
    if len(got) < len(whole):
        assert found.problems
    if cut < end:
        assert any("torn" in reason for _, reason in found.problems)
    else:
        assert got == whole


@settings(max_examples=100)
@given(places=st.lists(st.tuples(st.integers(0, 30_000), st.integers(0, 255)), max_size=4))
def test_damaged_shards_never_crash(
    shard: tuple[Path, bytes, dict[str, tuple[str, bytes]]], places: list[tuple[int, int]]
) -> None:
    root, data, _ = shard
    damaged = bytearray(data)
    for place, value in places:
        damaged[place % len(data)] = value
    (root / "0.tar").write_bytes(damaged)
    try:
        found = list_images(root)
    except DataError:
        return
    for i, extent in enumerate(found.extents):
        assert len(found.read(i)) == extent.size


def test_a_shard_that_shrinks_under_us(tmp_path: Path) -> None:
    data = tar(tmp_path / "0.tar", {"x.png": image(0), "x.cls": b"0", "y.png": image(1), "y.cls": b"1"})
    found = list_images(tmp_path)
    (tmp_path / "0.tar").write_bytes(data[:600])
    with pytest.raises(DataError, match="has become shorter"):
        found.read(1)
