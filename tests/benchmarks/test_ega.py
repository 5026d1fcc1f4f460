"""The captioner's quality benchmark: what it makes of the reports, and coco-mini's graphs and folds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.ega import KEYS, report
from benchmarks.ega_coco import HELD, compare, make_graphs, whole_pictures
from benchmarks.ega_runs import mean, means, measured
from benchmarks.ega_world import summarise
from saaa.scene_graph import SceneGraph
from training.ega.metrics import cider
from training.ega.published import AnnotationFolder, Region, Skipped


def run_report(*ciders: float, proposed: float = 2.0, shuffled: float = 1.0, accuracy: float = 0.8) -> dict[str, Any]:
    """A report of one region an image."""
    captions = [
        {
            "image": str(k),
            "cider": value,
            "proposed": {"cider": proposed + k},
            "other_graph": {"cider": shuffled},
        }
        for k, value in enumerate(ciders)
    ]
    kinds = ("true", "proposed", "shuffled")
    return {
        "captions": captions,
        "ega_cider": float(np.mean(ciders)),
        "node_accuracy": accuracy,
        "mention": {"object": accuracy, "attribute": 0.5, "relationship": None},
        "object_precision": 0.9,
        "metrics": {"bleu4": 20.0, "spice": None},
        "missing": {"spice": "no jars"},
        "graphs": {kind: {"cider": 1.0, "object_recall": 0.5, "object_precision": 0.5} for kind in kinds},
    }


def test_runs_are_brought_together(capsys: pytest.CaptureFixture[str]) -> None:
    with_ = [run_report(10, 20), run_report(30, 40, accuracy=1.0)]
    without = [run_report(8, 14), run_report(26, 30)]
    found = summarise(with_, without)
    assert found["cider_with"] == [15, 35]
    assert found["cider_without"] == [11, 28]
    # Image 0: 20 against 17, image 1: 30 against 22.
    assert found["with_above_without"]["difference"] == pytest.approx(5.5)
    assert found["with_above_without"]["interval"] == [3, 8]
    assert found["node_accuracy"] == {"with": pytest.approx(0.9), "without": pytest.approx(0.8)}
    assert found["mention"] == {"object": pytest.approx(0.9), "attribute": 0.5, "relationship": None}
    assert found["metrics"] == {"bleu4": 20, "spice": None}
    # 2 and 3 against 1.
    assert found["proposed_above_shuffled"] == {"difference": pytest.approx(1.5), "interval": [1, 2]}
    found["mention"]["relationship"] = 0.7
    report({**dict.fromkeys(KEYS), **found})
    out = capsys.readouterr().out
    assert "with above without: 5.5 (95 % 3.0 to 8.0)" in out
    assert "MISSED mention.relationship 0.7, at least 0.85" in out
    assert "ok     node_accuracy.with 0.9" in out


def test_means_of_figures_that_are_not_all_there() -> None:
    assert mean([None, 2.0, 4.0]) == 3
    assert mean([None]) is None
    assert means([{"a": 1, "b": {"c": None}}, {"a": 2, "b": {"c": 4}}]) == {"a": 1.5, "b": {"c": 4}}
    assert means([None, {"a": 2}]) == {"a": 2}


def test_a_finished_run_is_not_made_again(tmp_path: Path) -> None:
    """Were it made again, `saaa-train` would miss its data."""
    commands = {"train": ["--epochs", "1"], "evaluate": ["--data_path", "nowhere"], "served": "best.pt"}
    (tmp_path / "commands.json").write_text(json.dumps(commands))
    (tmp_path / "held_out.json").write_text('{"ega_cider": 5}')
    assert measured(tmp_path, commands["train"], commands["evaluate"]) == {"ega_cider": 5}
    with pytest.raises(SystemExit):
        measured(tmp_path, ["--epochs", "0"], [])
    assert not (tmp_path / "held_out.json").exists()


def region(image: str, name: str, caption: str) -> Region:
    thing = {"object_id": 0, "name": name, "attributes": [], "x": 0, "y": 0, "w": 4, "h": 4}
    graph = SceneGraph.from_region({"objects": [thing], "relationships": []})
    return Region(image_id=image, region_id="0", graph=graph, captions=(caption,))


def test_kinds_of_captions_are_compared_over_pictures() -> None:
    regions = [
        region("a", "dog", "a dog on grass"),
        region("b", "cat", "a cat in snow"),
        region("c", "bus", "a red bus"),
    ]
    right = [r.captions[0].split() for r in regions]
    wrong = [*right[1:], right[0]]
    said = {"guided": right, "shuffled": wrong, "global_only": [right[0], ["nothing"], ["nothing"]]}
    found = compare(regions, {0: said, 1: said})
    references = [r.captions for r in regions]
    for kind, captions in said.items():
        assert found[kind] == pytest.approx(cider(captions, references).mean())
    assert found["guided_above_shuffled"]["difference"] == pytest.approx(found["guided"] - found["shuffled"])
    low, high = found["guided_above_shuffled"]["interval"]
    assert 0 < low <= found["guided_above_shuffled"]["difference"] <= high
    assert found["mention"]["guided"]["object"] == 1
    assert found["mention"]["shuffled"]["object"] == 0
    assert found["object_precision"] == {"guided": 1, "shuffled": 0, "global_only": 1}
    assert found["metrics"]["guided"]["bleu1"] == pytest.approx(100)


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """Three made-up pictures of COCO."""
    pictures = [{"id": k, "file_name": f"{k}.jpg", "width": 64, "height": 48} for k in (1, 2, 3)]
    captions = [
        {"id": 10 * k, "image_id": k, "caption": f"A dog in the {where}."}
        for k, where in enumerate(("snow", "sun", "sun"), 1)
    ]
    boxes = [{"id": k, "image_id": k, "category_id": 18, "bbox": [1, 2, 9, 8], "iscrowd": 0} for k in (1, 2, 3)]
    (tmp_path / "captions.json").write_text(json.dumps({"images": pictures, "annotations": captions}))
    categories = [{"id": 18, "name": "dog"}]
    (tmp_path / "instances.json").write_text(json.dumps({"categories": categories, "annotations": boxes}))
    return tmp_path


def test_the_graph_of_a_whole_picture(coco: Path) -> None:
    """Same regions, captions, vocabulary and splits; one node, which is the picture."""
    graphs, whole = coco / "fold" / "graphs", coco / "fold" / "whole"
    make_graphs(coco, graphs, {"trn": ["2.jpg", "3.jpg"], HELD: ["1.jpg"]})
    whole_pictures(coco, graphs, whole)
    for split in ("trn", HELD):
        one, other = (AnnotationFolder(f / "annotations").regions(split, Skipped()) for f in (graphs, whole))
        assert [(r.image_id, r.region_id, r.captions) for r in one] == [
            (r.image_id, r.region_id, r.captions) for r in other
        ]
        for found in other:
            (thing,) = found.graph.objects
            assert (thing.box.x, thing.box.y, thing.box.width, thing.box.height) == (0, 0, 64, 48)
            assert not found.graph.relationships
    words = AnnotationFolder(whole / "annotations").vocabulary().words
    assert "sun" in words
    assert "snow" not in words
