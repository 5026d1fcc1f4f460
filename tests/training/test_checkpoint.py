"""Checkpoints: whole or not at all, safe to read."""

from __future__ import annotations

import pickle
import resource
from pathlib import Path
from typing import Any

import pytest
import torch

from saaa.errors import CheckpointError
from training.checkpoint import load_checkpoint, save_checkpoint


def test_round_trip(tmp_path: Path) -> None:
    content: dict[str, Any] = {"model": {"w": torch.arange(6.0).view(2, 3)}, "epoch": 3, "history": [{"loss": 0.5}]}
    save_checkpoint(tmp_path / "a.pt", "egdd", content)
    found = load_checkpoint(tmp_path / "a.pt", "egdd")
    assert torch.equal(found["model"]["w"], content["model"]["w"])
    assert found["history"] == [{"loss": 0.5}]
    assert [p.name for p in tmp_path.iterdir()] == ["a.pt"]


def test_failed_write_leaves_the_previous_one(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    save_checkpoint(path, "egdd", {"epoch": 1})

    class Unwritable:
        def __reduce__(self) -> Any:
            raise RuntimeError("disk full")

    with pytest.raises(CheckpointError, match="disk full"):
        save_checkpoint(path, "egdd", {"epoch": 2, "bad": Unwritable()})
    assert load_checkpoint(path, "egdd")["epoch"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["a.pt"]


def test_full_disk(tmp_path: Path) -> None:
    """A limit on the size of files stands in for the end of the disk."""
    path = tmp_path / "a.pt"
    save_checkpoint(path, "egdd", {"epoch": 1, "w": torch.zeros(100_000)})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, hard))
    try:
        with pytest.raises(CheckpointError, match=r"Cannot write the checkpoint .*a\.pt: File too large"):
            save_checkpoint(path, "egdd", {"epoch": 2, "w": torch.zeros(200_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert load_checkpoint(path, "egdd")["epoch"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["a.pt"]


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="Cannot write"):
        save_checkpoint(tmp_path / "none" / "a.pt", "egdd", {})


class Bomb:
    """Makes a file when it is unpickled by an unsafe reader."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def test_reading_refuses_what_is_not_a_checkpoint(tmp_path: Path) -> None:
    path, trace = tmp_path / "a.pt", tmp_path / "executed"
    with pytest.raises(CheckpointError, match="no checkpoint"):
        load_checkpoint(path, "egdd")
    for data in (b"", b"not a checkpoint", pickle.dumps(Bomb(trace)), pickle.dumps({"format": 1})):
        path.write_bytes(data)
        with pytest.raises(CheckpointError):
            load_checkpoint(path, "egdd")
    torch.save({"format": 1, "kind": "egdd", "bomb": Bomb(trace)}, path)
    with pytest.raises(CheckpointError):
        load_checkpoint(path, "egdd")
    assert not trace.exists()
    torch.save([1, 2], path)
    with pytest.raises(CheckpointError, match="not a checkpoint of"):
        load_checkpoint(path, "egdd")
    save_checkpoint(path, "ega", {})
    with pytest.raises(CheckpointError, match="but of `saaa-train ega`"):
        load_checkpoint(path, "egdd")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError):
        load_checkpoint(path, "ega")
