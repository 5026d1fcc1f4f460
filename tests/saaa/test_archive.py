"""Archives: deterministic, complete, and refused with a sentence when anything is wrong."""

from __future__ import annotations

import hashlib
import json
import subprocess
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from saaa import archive
from saaa.archive import Archive
from saaa.errors import ArchiveError
from saaa.work import ModelKind, TargetKind

CONFIG = {
    "architecture": {"model": "none"},
    "preprocessing": {
        "input_size": 32,
        "resize": "crop",
        "crop_fraction": 0.875,
        "mean": [0.5, 0.5, 0.5],
        "std": [0.25, 0.25, 0.25],
    },
    "classes": ["ä", "b"],
    "methods": [{"name": "m", "cost_forwards": 3.0, "reference": "r"}],
}
TENSORS = {
    "weight": np.arange(12, dtype=np.float32).reshape(3, 4),
    "count": np.array(7, np.int64),
    "half": np.ones((2, 2), np.float16),
}


def make(**changes: object) -> Archive:
    fields = {"kind": ModelKind.EGDD, "name": "model-a", "version": "1.0", "config": CONFIG, "tensors": TENSORS}
    return Archive(**fields | {"card": {"made": "by hand"}} | changes)  # type: ignore[arg-type]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "a.mar"
    archive.write(path, make())
    return path


def rewrite(path: Path, change: Callable[[dict[str, bytes]], object], *, compress: bool = False) -> None:
    """Pack an archive again after changing its members (name -> bytes); digests are left alone."""
    with zipfile.ZipFile(path) as packed:
        members = {name: packed.read(name) for name in packed.namelist()}
    change(members)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED) as packed:
        for name, data in members.items():
            packed.writestr(zipfile.ZipInfo(name), data, packed.compression)


def resum(members: dict[str, bytes]) -> None:
    """Make the digests right again."""
    names = [line.split("  ")[1] for line in members["SHA256SUMS"].decode().splitlines()]
    members["SHA256SUMS"] = "".join(f"{hashlib.sha256(members[name]).hexdigest()}  {name}\n" for name in names).encode()


def edit_config(**changes: object) -> Callable[[dict[str, bytes]], None]:
    def change(members: dict[str, bytes]) -> None:
        members["config.json"] = json.dumps(json.loads(members["config.json"]) | changes).encode()
        resum(members)

    return change


def test_what_is_written_is_read(path: Path) -> None:
    found = archive.read(path)
    assert found == replace(make(), tensors=found.tensors)
    assert found.tensors.keys() == TENSORS.keys()
    for name, value in TENSORS.items():
        assert found.tensors[name].dtype == value.dtype
        assert found.tensors[name].shape == value.shape
        np.testing.assert_array_equal(found.tensors[name], value)


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    other_order = {
        "config": dict(reversed(CONFIG.items())),
        "tensors": dict(reversed(TENSORS.items())),
    }
    digests = [
        archive.write(tmp_path / "1.mar", make()),
        archive.write(tmp_path / "2.mar", make(**other_order)),
        archive.write(tmp_path / "3.mar", make(card={"made": "otherwise"})),
    ]
    contents = [(tmp_path / f"{n}.mar").read_bytes() for n in (1, 2, 3)]
    assert contents[0] == contents[1] != contents[2]
    assert digests[0] == digests[1] != digests[2]


def test_the_digest_is_that_of_the_sums(path: Path) -> None:
    with zipfile.ZipFile(path) as packed:
        digest = hashlib.sha256(packed.read("SHA256SUMS")).hexdigest()
    assert archive.read(path).digest == archive.info(path).digest == digest


def test_an_unpacked_folder_reads_alike_whatever_torchserve_adds(path: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    with zipfile.ZipFile(path) as packed:
        packed.extractall(folder)
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "handler.pyc").write_bytes(b"x")
    assert archive.read(folder).digest == archive.read(path).digest
    assert archive.info(folder) == archive.info(path)
    checked = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=folder, capture_output=True, check=False)
    assert checked.returncode == 0, checked.stdout
    (folder / "config.json").write_text("{}")
    with pytest.raises(ArchiveError, match="format None is unknown"):
        archive.read(folder)
    (folder / "config.json").unlink()
    with pytest.raises(ArchiveError, match=r"config\.json is missing"):
        archive.read(folder)


def test_info_says_what_the_configuration_says(path: Path) -> None:
    info = archive.info(path, check_weights=True)
    assert (info.name, info.version, info.kind, info.input_size) == ("model-a", "1.0", ModelKind.EGDD, 32)
    assert (info.resize, info.crop_fraction, info.classes) == ("crop", 0.875, ("ä", "b"))
    assert [(m.name, m.cost_forwards) for m in info.methods] == [("m", 3.0)]
    assert json.loads(info.card_json) == {"made": "by hand"}


def test_methods_say_what_they_explain_and_without_it_classes(path: Path) -> None:
    method = {"name": "m", "cost_forwards": 1, "reference": "r"}
    assert archive.info(path).methods[0].targets == (TargetKind.CLASS,)
    rewrite(path, edit_config(methods=[{**method, "targets": ["word", "node"]}]))
    assert archive.info(path).methods[0].targets == (TargetKind.WORD, TargetKind.NODE)
    rewrite(path, edit_config(methods=[{**method, "targets": ["colour"]}]))
    with pytest.raises(ArchiveError, match="malformed"):
        archive.info(path)


def test_the_format_of_one_before_is_read_and_others_are_not(path: Path) -> None:
    for version in (archive.OLDEST_FORMAT, archive.FORMAT):
        rewrite(path, edit_config(format=version))
        assert archive.read(path).name == "model-a"
    for version in (archive.OLDEST_FORMAT - 1, archive.FORMAT + 1, True, "1", None):
        rewrite(path, edit_config(format=version))
        with pytest.raises(ArchiveError, match="is unknown; this saaa reads formats"):
            archive.read(path)


def drop(name: str) -> Callable[[dict[str, bytes]], object]:
    return lambda members: members.pop(name)


def put(name: str, data: bytes, *, summed: bool = True) -> Callable[[dict[str, bytes]], None]:
    def change(members: dict[str, bytes]) -> None:
        members[name] = data
        if summed:
            resum(members)

    return change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (drop("model.safetensors"), r"model\.safetensors is missing"),
        (drop("SHA256SUMS"), "SHA256SUMS is missing"),
        (drop("MAR-INF/MANIFEST.json"), "MANIFEST.json is missing"),
        (put("extra.txt", b"", summed=False), "unexpected member 'extra.txt'"),
        (put("../evil.py", b"", summed=False), "unexpected member '../evil.py'"),
        (put("model.safetensors", b"other", summed=False), r"model\.safetensors does not match its digest"),
        (put("card.json", b"{}", summed=False), r"card\.json does not match its digest"),
        (put("model.safetensors", b"not tensors"), r"model\.safetensors cannot be read"),
        (put("card.json", b'{"a": NaN}'), r"card\.json is not valid JSON: NaN"),
        (put("card.json", b"[" * 100_000), r"card\.json is not valid JSON"),
        (put("card.json", b"[]"), "must be a JSON object"),
        (put("config.json", b"\xff\xfe"), r"config\.json is not valid JSON"),
        (put("handler.py", b"import os\n"), "archives carry no code of their own"),
        (put("MAR-INF/MANIFEST.json", b'{"model": {"handler": "x.py"}}'), "does not match config"),
        (put("SHA256SUMS", b"", summed=False), "SHA256SUMS must list"),
        (edit_config(kind="other"), "kind 'other' is unknown"),
        (edit_config(kind="ega"), "handler.py is not the one"),
        (edit_config(name="../x"), "name '../x' is not allowed"),
        (edit_config(version=3), "version 3 is not allowed"),
        (edit_config(preprocessing={}), "incomplete or malformed"),
        (edit_config(preprocessing=dict(CONFIG["preprocessing"], input_size=0)), "input_size of 1 to 4096"),  # type: ignore[call-overload]
        (edit_config(classes=[]), "must list its classes"),
    ],
)  # fmt: skip
def test_a_wrong_member_is_refused(path: Path, change: Callable[[dict[str, bytes]], object], says: str) -> None:
    rewrite(path, change)
    with pytest.raises(ArchiveError, match=says) as refused:
        archive.read(path)
    assert str(path) in refused.value.message


def test_a_compressed_member_is_refused(path: Path) -> None:
    rewrite(path, put("card.json", b'{"bomb": "' + b"0" * 1_000_000 + b'"}'), compress=True)
    with pytest.raises(ArchiveError, match="is compressed"):
        archive.read(path)


def test_a_size_above_the_limit_is_refused(path: Path, tmp_path: Path) -> None:
    big = b'{"a": "' + b"0" * archive.MAX_MEMBER_BYTES + b'"}'
    rewrite(path, put("card.json", big))
    with pytest.raises(ArchiveError, match=r"card\.json claims \d+ bytes"):
        archive.info(path)
    with pytest.raises(ArchiveError, match=r"card\.json has \d+ bytes"):
        archive.write(tmp_path / "b.mar", make(card={"a": "0" * archive.MAX_MEMBER_BYTES}))
    assert not (tmp_path / "b.mar").exists()


def test_a_member_twice_is_refused(path: Path) -> None:
    with warnings.catch_warnings(), zipfile.ZipFile(path, "a") as packed:
        warnings.simplefilter("ignore")
        packed.writestr("card.json", b"{}")
    with pytest.raises(ArchiveError, match="is there twice"):
        archive.read(path)


def test_bytes_that_only_another_reader_would_find_are_refused(path: Path) -> None:
    """TorchServe reads local headers one after the other; Python reads the directory at the end."""
    data = path.read_bytes()
    path.write_bytes(b"PK\x03\x04 hidden" + data)
    with pytest.raises(ArchiveError, match="belong to no member"):
        archive.read(path)
    path.write_bytes(data + b"trailing")
    with pytest.raises(ArchiveError, match=r"belong to no member|cannot be read"):
        archive.read(path)


def test_every_truncation_is_refused(path: Path, tmp_path: Path) -> None:
    data = path.read_bytes()
    cut = tmp_path / "cut.mar"
    for length in [*range(0, len(data), 97), len(data) - 1]:
        cut.write_bytes(data[:length])
        with pytest.raises(ArchiveError):
            archive.read(cut)


def test_every_flipped_byte_is_refused_or_harmless(path: Path, tmp_path: Path) -> None:
    """Bytes that no reader looks at (dates, attributes) may change; nothing else."""
    data, whole = path.read_bytes(), archive.read(path)
    bad = tmp_path / "bad.mar"
    for position in range(0, len(data), 13):
        flipped = bytearray(data)
        flipped[position] ^= 0x55
        bad.write_bytes(flipped)
        try:
            found = archive.read(bad)
        except ArchiveError:
            continue
        assert found.digest == whole.digest


def test_no_file_and_no_archive_are_said_so(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="there is no such archive"):
        archive.read(tmp_path / "none.mar")
    (tmp_path / "text.mar").write_text("hello")
    with pytest.raises(ArchiveError, match="cannot be read"):
        archive.info(tmp_path / "text.mar")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"name": ""}, "name '' is not allowed"),
        ({"name": "a b"}, "name 'a b' is not allowed"),
        ({"name": "x" * 64}, "at most 63"),
        ({"version": "1/2"}, "version '1/2' is not allowed"),
        ({"card": {"a": float("nan")}}, r"card\.json cannot hold"),
        ({"card": {"a": {1, 2}}}, r"card\.json cannot hold"),
        ({"config": CONFIG | {"format": 1}}, "must not contain format"),
        ({"config": {}}, "incomplete"),
        ({"tensors": {"a": np.array(["text"])}}, "cannot be stored"),
        ({"kind": ModelKind.EGA}, "must give its vocabulary"),
    ],
)
def test_what_cannot_be_kept_is_not_written(tmp_path: Path, changes: dict[str, object], says: str) -> None:
    (tmp_path / "a.mar").write_text("before")
    with pytest.raises(ArchiveError, match=says):
        archive.write(tmp_path / "a.mar", make(**changes))
    assert [p.name for p in tmp_path.iterdir()] == ["a.mar"]
    assert (tmp_path / "a.mar").read_text() == "before"
