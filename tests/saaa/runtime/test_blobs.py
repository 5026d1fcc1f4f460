"""Compiled graphs on disk: only our own, whole and fitting ones are used."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saaa.runtime.blobs import MODELS, Blobs

KEY = "digest openvino 1 fp32 threads 1 x86_64 abc"


def only_file(folder: Path) -> Path:
    (path,) = [path for path in folder.rglob("*") if path.is_file()]
    return path


def test_what_is_kept_comes_back(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path / "new" / "folder", KEY)
    assert blobs.load("a") is None
    blobs.store("a", b"one\ntwo")
    assert blobs.load("a") == b"one\ntwo"
    assert blobs.load("b") is None
    blobs.store("a", b"three")
    assert blobs.load("a") == b"three"
    assert only_file(tmp_path / "new" / "folder").stat().st_mode & 0o077 == 0


def test_another_model_processor_or_version_finds_nothing(tmp_path: Path) -> None:
    Blobs(tmp_path, KEY).store("a", b"one")
    assert Blobs(tmp_path, KEY + "d").load("a") is None
    # Not even under the name of its own file.
    other = Blobs(tmp_path, "other")
    other._folder.mkdir()
    only_file(tmp_path).rename(other._path("a"))
    assert other.load("a") is None


@settings(max_examples=30)
@given(place=st.integers(min_value=0), change=st.integers(1, 255))
def test_a_changed_byte_is_noticed(tmp_path_factory: pytest.TempPathFactory, place: int, change: int) -> None:
    folder = tmp_path_factory.mktemp("blobs")
    blobs = Blobs(folder, KEY)
    blobs.store("a", bytes(range(256)))
    path = only_file(folder)
    data = bytearray(path.read_bytes())
    data[place % len(data)] ^= change
    path.write_bytes(data)
    assert blobs.load("a") in (None, bytes(range(256)))


def test_a_torn_file_is_noticed(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path, KEY)
    blobs.store("a", b"0123456789")
    whole = only_file(tmp_path).read_bytes()
    for length in (0, 1, len(whole) - 10, len(whole) - 1):
        only_file(tmp_path).write_bytes(whole[:length])
        assert blobs.load("a") is None


def test_what_others_may_write_is_not_used(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path, KEY)
    blobs.store("a", b"one")
    only_file(tmp_path).chmod(0o620)
    assert blobs.load("a") is None


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
def test_what_others_own_is_not_used(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path, KEY)
    blobs.store("a", b"one")
    os.chown(only_file(tmp_path), 12345, 12345)
    assert blobs.load("a") is None


def test_only_the_models_used_last_are_kept(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    kept = [Blobs(tmp_path, f"model {number}") for number in range(MODELS)]
    for number, blobs in enumerate(kept):
        for name in "ab":
            blobs.store(name, b"one")
        os.utime(blobs._folder, (number, number))
    assert kept[0].load("a") == b"one"  # which makes it the newest
    Blobs(tmp_path, "new").store("a", b"one")
    assert [blobs.load("b") for blobs in kept] == [b"one", None, *[b"one"] * (MODELS - 2)]
    assert Blobs(tmp_path, "new").load("a") == b"one"
    assert (tmp_path / "notes").is_dir()
    assert len(list(tmp_path.iterdir())) == MODELS + 1


def test_a_folder_that_cannot_be_written_only_costs_time(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    blobs = Blobs(tmp_path / "file" / "folder", KEY)
    blobs.store("a", b"one")
    assert blobs.load("a") is None
