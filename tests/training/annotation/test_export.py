"""Tasks of a run: right pictures for right questions, and answers to them read back."""

from __future__ import annotations

import json
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from saaa.annotations import read_answers
from saaa.annotations.drawing import BOX, NAME
from saaa.annotations.readers import DESCRIPTION, RATING, TYPE
from saaa.errors import DataError, OptionInvalid
from training.annotation import ExportConfig, export_tasks
from training.annotation.export import UNASKED
from training.cli import main


def load(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def index(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "index.jsonl").read_text().splitlines()]


def test_tasks_of_words(captioned: Path, tmp_path: Path) -> None:
    counts = export_tasks(ExportConfig(run=captioned, out=tmp_path / "a"))
    tasks = load(tmp_path / "a/tasks.json")
    words = [(r, m) for r in index(captioned) for m in r["maps"] if m["name"] not in UNASKED]
    assert counts == {"images": 4, "attribution": len(words), "rationale": 4, "skipped": 0}
    assert len(tasks) == len({task["task_id"] for task in tasks}) == len(words) > 0
    by_unit = {(t["metadata"]["unit"]["image"], t["metadata"]["unit"]["position"]): t for t in tasks}
    for record, made in words:
        stem = record["file"].rsplit("/", 1)[-1].removesuffix(".jpg")
        task = by_unit[stem, made["target"]]
        assert task["metadata"]["unit"] == {
            "image": stem, "region": "0", "target": "word", "position": made["target"], "word": made["name"],
        }  # fmt: skip
        assert task["metadata"]["filename"] == f"p1_{stem}-0__caption_{made['target']}_attr_result.jpg"
        assert [field["field_id"] for field in task["params"]["fields"]] == [TYPE, DESCRIPTION, RATING]
    pictures = {path.name for path in (tmp_path / "a/pictures").iterdir()}
    assert pictures == {t["metadata"]["filename"] for t in tasks} | {
        f"photo_{r['file'][-10:-4]}-0.jpg" for r in index(captioned)
    }
    export_tasks(ExportConfig(run=captioned, out=tmp_path / "b"))
    for name in ("tasks.json", "label_studio/attribution.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_pictures(captioned: Path, world: Path, tmp_path: Path) -> None:
    """The highlighted picture is the photo where the map is cold, and warmer where it is hot."""
    export_tasks(ExportConfig(run=captioned, out=tmp_path / "a", side=32))
    record = index(captioned)[0]
    base = f"{record['file'][-10:-4]}-0"
    photo = np.asarray(Image.open(tmp_path / f"a/pictures/photo_{base}.jpg"), np.int64)
    assert photo.shape == (32, 32, 3)
    whole = np.asarray(Image.open(world / record["file"]).resize((32, 32)), np.int64)
    assert abs(photo - whole).mean() < 12
    target = next(m["target"] for m in record["maps"] if m["name"] not in UNASKED)
    blend = np.asarray(Image.open(tmp_path / f"a/pictures/p1_{base}__caption_{target}_attr_result.jpg"), np.int64)
    assert abs(blend - photo).max() > 40


def test_tasks_of_classes(classified: Path, tmp_path: Path) -> None:
    export_tasks(ExportConfig(run=classified, out=tmp_path / "a", limit=3, order="name"))
    tasks = load(tmp_path / "a/tasks.json")
    assert len(tasks) == 6
    first = index(classified)[0]
    assert [t["metadata"]["unit"]["word"] for t in tasks[:2]] == [made["name"] for made in first["maps"]]
    assert tasks[0]["metadata"]["unit"]["image"] == first["file"]
    assert "__class_" in tasks[0]["metadata"]["filename"]
    assert len(load(tmp_path / "a/label_studio/rationale.json")) == 3


def test_labels_name_what_is_read(captioned: Path, tmp_path: Path) -> None:
    export_tasks(ExportConfig(run=captioned, out=tmp_path / "a", pictures_url="http://x/"))
    studio = tmp_path / "a/label_studio"
    for name in ("attribution", "rationale"):
        tasks, labels = load(studio / f"{name}.json"), ET.parse(studio / f"{name}.xml").getroot()
        for element in labels.iter():
            if "value" in element.attrib and element.attrib["value"].startswith("$"):
                assert all(element.attrib["value"][1:] in task["data"] for task in tasks)
            if "toName" in element.attrib:
                assert labels.find(f".//*[@name='{element.attrib['toName']}']") is not None
        assert all((tmp_path / "a/pictures" / t["data"]["image"].removeprefix("http://x/")).is_file() for t in tasks)


def test_answers_to_tasks_come_back(captioned: Path, tmp_path: Path) -> None:
    """Fill in tasks of each format as their tools do; the import knows every unit again.

    Boxes are of the image, 64 x 64, though people saw a picture of half that size.
    """
    export_tasks(ExportConfig(run=captioned, out=tmp_path / "a", side=32))
    scale = load(tmp_path / "a/tasks.json")
    for k, task in enumerate(scale):
        task |= {
            "status": "completed",
            "response": {"annotations": {TYPE: "object", DESCRIPTION: "cup", RATING: f"{1 + k % 5}"}},
        }
    studio = load(tmp_path / "a/label_studio/attribution.json")
    for k, task in enumerate(studio):
        values = (("content_type", {"choices": ["object"]}), ("content_description", {"text": ["cup"]}))
        result = [{"from_name": n, "value": v} for n, v in (*values, ("relevance_rating", {"number": 1 + k % 5}))]
        task |= {"id": k, "annotations": [{"id": k, "completed_by": 1, "result": result}]}
    found = []
    for name, tasks in (("s.json", scale), ("l.json", studio)):
        (tmp_path / name).write_text(json.dumps(tasks))
        answers = read_answers([tmp_path / name])
        assert answers.problems == ()
        found.append([(r.unit, r.rating) for r in answers.ratings])
    assert found[0] == found[1]
    assert [unit.word for unit, _ in found[0]] == [task["metadata"]["unit"]["word"] for task in scale]
    rationale = load(tmp_path / "a/label_studio/rationale.json")[0]
    box = {"x": 25, "y": 25, "width": 50, "height": 50}
    size = {"original_width": 32, "original_height": 32, "id": "q"}
    result = [{"from_name": BOX, "value": box, **size}, {"from_name": NAME, "value": {"text": ["ball"]}, **size}]
    (tmp_path / "r.json").write_text(json.dumps([{**rationale, "id": 1, "annotations": [{"id": 1, "result": result}]}]))
    (graph,) = read_answers([tmp_path / "r.json"]).rationales
    assert (graph.image, graph.region) == (rationale["data"]["unit"]["image"], "0")
    assert graph.graph.objects[0].box.ltrb() == (16, 16, 48, 48)


def test_changed_and_lost_images_are_told(captioned: Path, world: Path, tmp_path: Path) -> None:
    data = shutil.copytree(world, tmp_path / "data")
    first, second, *_ = index(captioned)
    (data / first["file"]).unlink()
    Image.new("RGB", (64, 64)).save(data / second["file"])
    counts = export_tasks(ExportConfig(run=captioned, out=tmp_path / "a", data=data))
    assert (counts["rationale"], counts["skipped"]) == (2, 2)
    assert "has changed" in (tmp_path / "a/skipped.txt").read_text()


def test_bad_input(captioned: Path, tmp_path: Path, capsys) -> None:
    with pytest.raises(DataError, match="not a run of"):
        export_tasks(ExportConfig(run=tmp_path, out=tmp_path / "a"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full/x").touch()
    with pytest.raises(DataError, match="not an empty folder"):
        export_tasks(ExportConfig(run=captioned, out=tmp_path / "full"))
    with pytest.raises(DataError, match="name the images"):
        export_tasks(ExportConfig(run=captioned, out=tmp_path / "a", data=tmp_path / "none"))
    unfinished = shutil.copytree(captioned, tmp_path / "run")
    (unfinished / "run.json").write_text(json.dumps({**load(captioned / "run.json"), "complete": False}))
    with pytest.raises(DataError, match="not finished"):
        export_tasks(ExportConfig(run=unfinished, out=tmp_path / "a"))
    for options in ({"limit": 0}, {"side": 1}):
        with pytest.raises(OptionInvalid):
            ExportConfig(run=captioned, out=tmp_path, **options)
    assert main(["annotate", "export", "--run", str(tmp_path), "--out", str(tmp_path / "b")]) == 2
    assert "saaa-train annotate export: " in capsys.readouterr().err
