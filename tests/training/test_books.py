"""The table of steps and the curves of a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

from saaa.errors import CheckpointError
from training.books import make_folder, open_books
from training.distributed import World


@dataclass(frozen=True)
class Row:
    step: int
    loss: float
    note: str


def keep(folder: Path, rows: list[Row], *, done: int = 0, resumed: bool = False, world: World | None = None) -> Any:
    options: dict[str, Any] = {"drawn": ("loss",), "log_dir": folder / "log", "done": done, "resumed": resumed}
    with open_books(world or World(), folder, Row, **options) as books:
        if books is not None:
            for row in rows:
                books.step(row)
            books.add(rows[-1].step, {"val/loss": 7.0})
        return books


def lines(folder: Path) -> list[str]:
    return (folder / "steps.csv").read_text().splitlines()


def test_a_resumed_run_keeps_the_rows_before_it_and_drops_those_after(tmp_path: Path) -> None:
    keep(tmp_path, [Row(1, 0.5, "a"), Row(2, 0.25, "b"), Row(3, 0.125, "c")])
    assert lines(tmp_path) == ["step,loss,note", "1,0.5,a", "2,0.25,b", "3,0.125,c"]
    with (tmp_path / "steps.csv").open("a") as table:
        table.write("4,0.0")  # torn by a crash
    keep(tmp_path, [Row(3, 9.0, "d")], done=2, resumed=True)
    assert lines(tmp_path) == ["step,loss,note", "1,0.5,a", "2,0.25,b", "3,9.0,d"]
    log = EventAccumulator(str(tmp_path / "log")).Reload()
    assert set(log.Tags()["scalars"]) == {"train/loss", "val/loss"}
    assert [event.value for event in log.Scalars("train/loss")] == [0.5, 0.25, 9.0]


def test_a_new_run_begins_a_new_table(tmp_path: Path) -> None:
    keep(tmp_path, [Row(1, 0.5, "a")])
    keep(tmp_path, [Row(1, 0.75, "b")])
    assert lines(tmp_path) == ["step,loss,note", "1,0.75,b"]


def test_only_the_main_process_keeps_books(tmp_path: Path) -> None:
    assert keep(tmp_path, [], world=World(1, 2)) is None
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match="Cannot write to"):
        make_folder(tmp_path / "file" / "out")
    make_folder(tmp_path / "new" / "out")
    assert not list((tmp_path / "new" / "out").iterdir())
    (tmp_path / "steps.csv").write_text("step,loss,note\nno number,1,2\n")
    with pytest.raises(CheckpointError, match="Cannot write the books"):
        keep(tmp_path, [Row(1, 0.5, "a")], done=1, resumed=True)
