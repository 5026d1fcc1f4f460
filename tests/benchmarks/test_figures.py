"""A benchmark's file of figures keeps what other parts have measured."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.figures import add_figures


def test_parts_stand_beside_each_other(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    add_figures(path, {"a": 1}, ("a", "b", "c"))
    assert json.loads(path.read_text()) == {"a": 1, "b": None, "c": None}
    add_figures(path, {"b": 2}, ("a", "b", "c"))
    add_figures(path, {"a": 3}, ("a", "b", "c"))
    assert json.loads(path.read_text()) == {"a": 3, "b": 2, "c": None}
