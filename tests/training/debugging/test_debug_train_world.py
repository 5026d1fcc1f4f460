"""The whole loop as a command on a small confounded world, answered by the simulated annotator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from saaa import archive as archives
from training.cli import main
from training.debugging.config import RECIPE
from training.scenes.classes import RULES
from training.scenes.config import confound_cue

CLASSES = ("art_studio", "bathroom", "bedroom")
CUES = {label: confound_cue(label, "object") for label in CLASSES}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes, each with an object that has nothing to do with it in 95 % of its training scenes, and in half of
    its test scenes; another class's object in the other half."""
    root = tmp_path_factory.mktemp("world")
    words = ["scenes", "--output_dir", str(root / "world"), "--size", "96", "--seed", "7", "--workers", "1"]
    words += ["--train", "120", "--pool", "60", "--val", "90", "--test", "90", "--classes", *CLASSES]
    words += ["--confound", *(f"{label}=object" for label in CLASSES)]
    words += ["--confound_strength", "0.95", "--confound_held_out", "0.5"]
    assert main(words) == 0
    (root / "egdd.yaml").write_text(yaml.safe_dump({**RECIPE, "input_size": 96, "batch_size": 24, "epochs": 5}))
    return root


def debug_train(world: Path, strategy: str, *words: str) -> dict[str, Any]:
    out = world / "out"
    common = ["--data", str(world / "world"), "--out", str(out), "--egdd", str(world / "egdd.yaml"), "--budget", "20"]
    assert main(["debug-train", *common, "--threads", "1", "--strategy", strategy, *words]) == 0
    report: dict[str, Any] = json.loads((out / strategy / "report.json").read_text())
    return report


@pytest.mark.slow
def test_ours_beside_random(world: Path) -> None:
    ours = debug_train(world, "ours", "--annotator", "simulated")
    random = debug_train(world, "s-random")
    assert ours["annotator"] == {"kind": "simulated", "noise": 0}
    page = (world / "out" / "ours" / "report.html").read_text()
    assert "a simulated annotator" in page
    assert "</html>" in page
    for label, concepts in ours["concepts"].items():
        needed = {kind for kind, _ in RULES[label].needs}
        assert {c["concept"] for c in concepts if c["verdict"] == "confounded"} <= {CUES[label]}
        assert {c["concept"] for c in concepts if c["verdict"] == "valid" and c["kind"] == "object"} <= needed
    assert any(c["verdict"] == "confounded" for concepts in ours["concepts"].values() for c in concepts)

    # The base follows its cues; the debug set undoes some of that.
    for report in (ours, random):
        assert report["models"]["before"] == ours["models"]["before"]
        assert report["test"]["slices"]["aligned"]["images"] + report["test"]["slices"]["counter"]["images"] == 90
    gaps = ours["test"]["confound_gap"]
    assert gaps["before"] > 0.15
    assert gaps["after"] < gaps["before"]
    made = [
        json.loads(line) for line in (world / "out" / "ours" / "debug_set" / "manifest.jsonl").read_text().splitlines()
    ]
    assert len(made) == 60
    assert all(CUES[item["label"]] != item["concept"] for item in made)
    versions = [archives.info(path).version for path in sorted((world / "out" / "models").glob("*.mar"))]
    assert versions == ["1.0", "1.1", "1.2"]
