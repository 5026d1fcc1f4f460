"""Result files are whole or not there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from saaa.errors import DataError
from training.files import read_json, whole, whole_folder, write_json


def test_new_folder_and_replacement(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "c.json"
    write_json(path, {"x": 1})
    write_json(path, {"x": "é"})
    assert json.loads(path.read_text(encoding="utf-8")) == {"x": "é"}
    assert [p.name for p in path.parent.iterdir()] == ["c.json"]


@pytest.mark.parametrize("error", [KeyError("x"), OSError(28, "No space left on device")])
def test_what_was_there_stays(tmp_path: Path, error: Exception) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write() -> None:
        with whole(path) as aside:
            aside.write_text("ne")
            raise error

    with pytest.raises(DataError if isinstance(error, OSError) else KeyError):
        write()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"Cannot write .*a\.json: "):
        write_json(tmp_path / "file" / "a.json", {})


def test_a_folder_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    for number in "12":
        with whole_folder(folder) as aside:
            (aside / number).touch()
    assert [path.name for path in folder.iterdir()] == ["2"]
    assert [path.name for path in folder.parent.iterdir()] == ["b"]


@pytest.mark.parametrize("error", [KeyError("x"), OSError(28, "No space left on device")])
def test_a_folder_that_was_there_stays(tmp_path: Path, error: Exception) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    (folder / "old").touch()

    def write() -> None:
        with whole_folder(folder) as aside:
            (aside / "new").touch()
            raise error

    with pytest.raises(DataError if isinstance(error, OSError) else KeyError):
        write()
    assert [path.name for path in folder.iterdir()] == ["old"]
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize(
    ("content", "says"),
    [(None, "no file .*; make it"), (b"[1]", "must hold a JSON object"), (b"{", "as JSON"), (b"\xff", "as JSON")],
)
def test_what_holds_no_object_is_told(tmp_path: Path, content: bytes | None, says: str) -> None:
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=says):
        read_json(path, advice="make it")
    path.write_bytes(b'{"x": 1}')
    assert read_json(path) == {"x": 1}
