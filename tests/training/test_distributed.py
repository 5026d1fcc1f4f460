"""What processes tell each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from saaa.errors import DataError, OptionInvalid
from tests.training.several import together
from training.distributed import World, torch_device, world


def test_alone() -> None:
    with world("cpu") as own:
        assert own == World(0, 1, torch.device("cpu"))
        assert own.main
        assert own.gather("x") == ["x"]
        assert own.total([1, 2.5]) == [1.0, 2.5]
        assert own.first(lambda: 7) == 7
        assert list(own.share(3)) == [0, 1, 2]


def exchange(url: str) -> dict[str, Any]:
    with world("cpu", url) as own:
        # The same figures on all, however often they are asked for.
        found: dict[str, Any] = {
            "rank": own.rank,
            "gather": own.gather({"rank": own.rank}),
            "total": own.total([own.rank, 0.1, float("nan") if own.rank == 1 else 0.0]),
            "share": list(own.share(7)),
            "first": own.first(lambda: f"of {own.rank}"),
        }
        norm = nn.BatchNorm1d(2)
        buffers = dict(norm.named_buffers())
        buffers["running_mean"].fill_(own.rank + 1)
        own.align(norm)
        found["buffers"] = buffers["running_mean"].tolist()
        tensors = [torch.full((2, 1), own.rank + 1.0), torch.tensor(0.5), torch.zeros(0)]
        own.add_up(tensors)
        found["added"] = [tensor.tolist() for tensor in tensors]

        def fail() -> None:
            raise DataError("no data", field="data_path")

        def fail_strangely() -> None:
            raise LookupError("lost")

        for what, do in (("error", fail), ("strange", fail_strangely)):
            try:
                own.first(do)
            except (DataError, LookupError, RuntimeError) as error:
                found[what] = (type(error).__name__, str(error), getattr(error, "field", None))
        own.print("said once")
        return found


def test_three_processes(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    found = together(3, exchange, tmp_path / "meet")
    assert [one["rank"] for one in found] == [0, 1, 2]
    for one in found:
        assert one["gather"] == [{"rank": 0}, {"rank": 1}, {"rank": 2}]
        assert one["total"][:2] == pytest.approx([3, 0.3])
        assert one["total"][2] != one["total"][2], "not a number reaches all"
        assert one["first"] == "of 0"
        assert one["buffers"] == [1.0, 1.0]
        assert one["added"] == [[[6.0], [6.0]], 1.5, []]
        assert one["error"] == ("DataError", "no data", "data_path")
    assert [one["strange"][0] for one in found] == ["LookupError", "RuntimeError", "RuntimeError"]
    assert "lost" in found[1]["strange"][1]
    assert sorted(i for one in found for i in one["share"]) == list(range(7))
    assert capfd.readouterr().out.count("said once") == 1


def nowhere(_: str) -> None:
    with world("cpu", "env://"):
        raise AssertionError("they met")


def test_no_place_to_meet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for error in together(2, nowhere, tmp_path / "meet"):
        assert isinstance(error, OptionInvalid)
        assert "2 processes cannot meet at env://" in error.message


def test_devices() -> None:
    assert torch_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert torch_device("cpu", local_rank=1) == torch.device("cpu")
    for name in ("abacus", "cuda:99"):
        with pytest.raises(OptionInvalid, match="cannot be used here"):
            torch_device(name)
