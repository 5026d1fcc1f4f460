"""What the speed benchmark says of its figures, what it keeps, and its parts on models of a few weights."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("openvino", reason="needs the extra saaa[openvino]")

from benchmarks.serving_results import Gate
from benchmarks.serving_systems import Place
from benchmarks.speed import Options, cpu, write
from benchmarks.speed_captioner import captions
from benchmarks.speed_report import draw, gates, share, tables
from benchmarks.speed_served import BESIDE, EXPLAIN, PREDICT, Served, gates_of_served, summary
from benchmarks.speed_turns import WARM_UP, medians
from tests.training.ega.tiny_world import make

TIMES = {"torch_fp32": 40.0, "openvino_direct": 10.0, "ours": 10.5}
EXPLAINED = {"torch_forward": 40.0, "torch": 90.0, "ours": 39.0}
STEP = {"torch_fp32": 6.0, "torch": 4.0, "ours": 2.4}
CAPTIONED = {"equal": 0.99, "cider_ratio": 1.004}
MAPS = dict.fromkeys(("pointing", "mass", "rank", "object_top1", "insertion", "shapley_cosine"), 0.96)
FAITHFUL = MAPS | {"deletion": 0.05, "mprt": 0.01}


def figures(**changes: Any) -> dict[str, Any]:
    """All that is judged, and all of it reached."""
    found: dict[str, Any] = {
        "cpu": {"name": "some processor", "features": []},
        "precision": "bf16",
        "predict": {name: {"1": TIMES, "8": TIMES} for name in ("vit_tiny", "efficientnet_lite0")},
        "explain": {"1": EXPLAINED, "8": EXPLAINED},
        "four_classes": EXPLAINED | {"ours": 90.0},
        "decode_step": {"1": STEP, "16": STEP, "80": STEP | {"ours": 5.0}},
        "parity": {"captions": {"graphs": 50, "greedy": CAPTIONED, "beam": CAPTIONED}},
        "served": served(20),
        "maps": {"scenes": 100, "torch": FAITHFUL, "openvino_fp32": {}, "openvino_bf16": FAITHFUL},
        "start_s": {"torch": 6.0, "openvino_cold": 5.0, "openvino_warm": 3.0},
    }
    return found | changes


def served(blocks: int) -> dict[str, Any]:
    """A service twice as fast as what is beside it, on a machine that gets slower and slower."""
    rows = [
        {"block": k, PREDICT: 40 / (k + 1), EXPLAIN: 24 / (k + 1), BESIDE: 20 / (k + 1), "setting": "", "runtime": "x"}
        for k in range(blocks)
    ]
    return json.loads(json.dumps(summary(rows)))


def test_every_gate_is_told_and_reached() -> None:
    found = gates(figures())
    assert len(found) == 2 * 2 * 2 + 2 + 1 + 2 + 2 * 2 + 2 + 8 + 1
    assert len({gate.name for gate in found}) == len(found)
    assert {gate.reached for gate in found} == {True}


@pytest.mark.parametrize(
    ("changes", "missed"),
    [
        (
            {"predict": {"vit_tiny": {"8": TIMES | {"openvino_direct": 9.0}}}},
            "vit_tiny, batch 8: prediction, ours / bare",
        ),
        ({"predict": {"efficientnet_lite0": {"1": TIMES | {"torch_fp32": 25.0}}}}, "efficientnet_lite0, batch 1"),
        ({"explain": {"8": EXPLAINED | {"ours": 40.5}}}, "vit_tiny, batch 8: one class"),
        ({"four_classes": EXPLAINED | {"ours": 101.0}}, "four classes"),
        ({"decode_step": {"16": STEP | {"ours": 3.1}}}, "decode step, 16 rows"),
        (
            {"parity": {"captions": {"greedy": CAPTIONED | {"equal": 0.97}}}},
            "greedy captions of validation graphs",
        ),
        (
            {"parity": {"captions": {"beam": CAPTIONED | {"cider_ratio": 0.994}}}},
            "beam captions of validation graphs",
        ),
        ({"maps": {"openvino_bf16": FAITHFUL | {"mprt": 0.2}}}, "compiled maps: mprt"),
        ({"start_s": {"torch": 6.0, "openvino_cold": 3.0, "openvino_warm": 3.7}}, "worker's start"),
    ],
)
def test_a_miss_is_one(changes: dict[str, Any], missed: str) -> None:
    found = [gate for gate in gates(figures(**changes)) if gate.reached is False]
    assert len(found) == 1
    assert found[0].name.startswith(missed) or missed in found[0].name
    assert "MISSED" in str(found[0])


def test_without_units_for_bf16_explanations_may_take_longer_and_four_classes_are_not_judged() -> None:
    slower = {batch: EXPLAINED | {"ours": 71.0} for batch in ("1", "8")}
    maps = {"openvino_fp32": FAITHFUL}
    found = {gate.name: gate for gate in gates(figures(precision="fp32", explain=slower, maps=maps))}
    assert [gate.reached for name, gate in found.items() if "one class" in name] == [True, True]
    assert [gate.reached for name, gate in found.items() if "four classes" in name] == [None]
    assert [gate.value for name, gate in found.items() if "pointing" in name] == [0.96]


def test_what_was_not_measured_is_not_judged() -> None:
    bare = {name: figures()[name] for name in ("cpu", "precision")}
    found = gates(bare)
    assert len(found) == len(gates(figures()))
    assert {(gate.value, gate.reached) for gate in found} == {(None, None)}
    assert "bf16" in tables(bare)


def test_served_ratios_are_of_blocks_and_few_are_not_judged() -> None:
    predict, explain = gates_of_served(served(20))
    assert (predict.value, predict.reached) == (2.0, True)
    assert (explain.value, explain.interval) == (pytest.approx(1.2), pytest.approx((1.2, 1.2)))
    assert [gate.reached for gate in gates_of_served(served(2))] == [None, None]


def test_bars_are_shares_of_the_bound() -> None:
    assert share(Gate("g", 0.5, 0.25, False), 0.2) == pytest.approx(0.8)
    assert share(Gate("g", 2.0, 1.8, True), 2.0) == pytest.approx(0.9)
    assert share(Gate("g", 0.0, 1.8, True), 0.0) == share(Gate("g", 9.0, 0.1, False), 9.0) == 2.0


def test_the_picture_is_drawn_whatever_was_measured(tmp_path: Path) -> None:
    for name, told in (("all", figures()), ("none", {name: figures()[name] for name in ("cpu", "precision")})):
        path = tmp_path / f"{name}.png"
        draw(told, gates(told), path)
        assert path.read_bytes().startswith(b"\x89PNG")


def test_figures_of_another_processor_are_not_kept(tmp_path: Path) -> None:
    path, machine = tmp_path / "speed.json", {"cpu": cpu(), "precision": "fp32"}
    write(path, {**machine, "predict": {"a": 1}, "parity": {"a": 1}}, machine)
    write(path, {**machine, "served": 2, "parity": {"captions": 2}}, machine)
    write(path, {**machine, "predict": {"b": 2}}, machine)
    both = {"predict": {"a": 1, "b": 2}, "parity": {"a": 1, "captions": 2}}
    assert json.loads(path.read_text()) == {**machine, **both, "served": 2}
    other = machine | {"precision": "bf16"}
    write(path, {**other, "served": 3}, other)
    assert json.loads(path.read_text()) == {**other, "served": 3, "predict": {}, "parity": {}}


def test_calls_take_turns() -> None:
    order: list[str] = []
    found = medians({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 3)
    assert order == ["a", "b"] * (WARM_UP + 3)
    assert found.keys() == {"a", "b"}


def test_compiled_captions_are_torchs(tmp_path: Path, tiny_models: Path) -> None:
    world = make(tmp_path / "world", {"trn": 2, "val_sub": 8})
    told = captions(tiny_models / "ega.mar", world, 8, "fp32", rounds=1)
    found = told["said"]
    assert found["graphs"] >= 8
    assert all(times["torch"] > 0 and times["ours"] > 0 for times in told["caption"].values())
    assert list(told["caption"]) == [1, 8]
    for way in ("greedy", "beam"):
        assert found[way]["equal"] == 1.0
        assert found[way]["cider_ours"] == found[way]["cider_torch"]


def test_servers_in_other_folders_find_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    options = Options()
    monkeypatch.chdir("/")
    assert options.output == tmp_path / "build" / "bench"


@pytest.mark.slow
def test_served_beside_torch_in_process(tmp_path: Path) -> None:
    part = Served(Place(folder=tmp_path / "serving", environments=tmp_path / "env"), blocks=1, calls=16)
    found = asyncio.run(part.measure())
    assert found.keys() == {PREDICT, EXPLAIN, BESIDE, "ratios", "setting", "runtime"}
    assert found["runtime"].startswith("openvino")
    assert all(found[name] > 0 for name in (PREDICT, EXPLAIN, BESIDE))
    assert asyncio.run(part.measure()) == found  # what is there is not measured again
