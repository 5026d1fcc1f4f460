"""Whole exports: the published one's counts, every oddity told, nothing good lost."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saaa.annotations import read_answers
from saaa.annotations.ratings import AnswerRejected, check_image, read_rating
from saaa.role_graph import NodeKind
from tests.annotation_exports import COUNTS, facade, odd_export, scale, studio, write

PUBLISHED = "coco-model-asg/tasks.json"


def types(ratings) -> dict[str, int]:
    return dict(Counter("" if r.stated is None else r.stated.name.lower() for r in ratings))


def test_the_published_export(shared_data: Path) -> None:
    found = read_answers([shared_data / PUBLISHED])
    assert len(found.ratings) == 134
    assert len({rating.unit.image for rating in found.ratings}) == 30
    assert types(found.ratings) == {"object": 72, "relationship": 57, "attribute": 4, "": 1}
    assert math.isclose(sum(r.rating for r in found.ratings) / 134, 2.813, abs_tol=5e-4)
    assert sorted(p.reason.split(" (")[0] for p in found.problems if not p.kept) == [
        "it has no response", "it has no response", "it has no response", "its annotations are empty",
    ]  # fmt: skip
    assert "no content type" in {p.reason for p in found.problems}


def test_an_export_with_the_same_oddities(tmp_path: Path) -> None:
    found = read_answers([write(tmp_path / "tasks.json", odd_export())])
    assert found.records == 16
    assert types(found.ratings) == COUNTS
    assert {r.unit.image for r in found.ratings} == {f"COCO_val2014_{k:012d}" for k in (1, 2, 3)}
    assert Counter(p.reason for p in found.problems if not p.kept) == {
        "its annotations are empty": 1,
        "it has no response (status processing)": 2,
    }
    by_place = {(r.unit.image[-1], r.unit.position): r for r in found.ratings}
    assert by_place["1", 4].content.subject == "horse"  # a plural of what the relationship names
    assert by_place["2", 1].content.subject == "bus"
    assert by_place["2", 1].content.predicate == "red"
    assert by_place["2", 3].stated is None
    assert by_place["2", 3].content.kind is NodeKind.RELATIONSHIP
    assert by_place["2", 5].content.objects == ()
    assert by_place["3", 1].content.subject == "sign"
    assert by_place["3", 1].typed == "sgin"
    told = {(p.id, p.reason) for p in found.problems}
    assert ("task-COCO_val2014_000000000003-1", "'sgin' read as 'sign'") in told


def test_label_studio(tmp_path: Path) -> None:
    unit = {"image": "den/004.jpg", "region": "7", "target": "class", "position": 2, "word": "den"}
    task = studio(unit, (1, "object", "lamp", 4.5), ({"id": 2, "email": "x"}, "object", "lamps", 5), (3, "", "", None))
    task["annotations"].append({"id": 5, "was_cancelled": True, "result": []})
    task["annotations"].append("no annotation")
    found = read_answers([write(tmp_path / "ls.json", [task, {"id": 9, "data": {}, "annotations": []}])])
    first, second = found.ratings
    assert (first.unit.image, first.unit.region, first.unit.target, first.unit.word) == (
        "den/004.jpg",
        "7",
        "class",
        "den",
    )
    assert (first.id, first.annotator, first.rating, first.content.subject) == ("1/10", "1", 4.5, "lamp")
    assert (second.annotator, second.content.subject) == ("2", "lamp")
    assert sum(not p.kept for p in found.problems) == 4


def test_label_studio_drawing(tmp_path: Path) -> None:
    box = {"original_width": 200, "original_height": 100}

    def item(key: str, control: str, value: dict) -> dict:
        return {"id": key, "from_name": control, "to_name": "picture", "value": value, **box}

    result = [
        item("a", "object_box", {"x": 10, "y": 20, "width": 30, "height": 40}),
        item("a", "object_name", {"text": ["The lamp"]}),
        item("a", "object_attributes", {"text": "red, tall"}),
        item("b", "object_box", {"x": 50, "y": 50, "width": 80, "height": 90}),
        item("b", "object_name", {"text": ["table"]}),
        item("z", "relationships", {"text": ["(lamp, on, the table)", "(lamp, on, moon)"]}),
    ]
    task = {"id": 4, "data": {"unit": {"image": "x"}}, "annotations": [{"id": 6, "completed_by": 3, "result": result}]}
    (rationale,) = read_answers([write(tmp_path / "ls.json", [task])]).rationales
    lamp, table = rationale.graph.objects
    assert (lamp.name, lamp.attributes, lamp.box.ltrb()) == ("lamp", ("red", "tall"), (20, 20, 80, 60))
    assert (table.name, table.box.ltrb()) == ("table", (100, 50, 200, 100))  # cut at the image's edge
    (link,) = rationale.graph.relationships
    assert (link.subject_id, link.name, link.object_id) == (1, "on", 2)
    result[1]["value"]["text"] = [" "]
    found = read_answers([write(tmp_path / "ls.json", [task])])
    assert found.rationales == ()
    assert "graph is not valid" in found.problems[0].reason


def test_the_facades_ratings(tmp_path: Path) -> None:
    graph = {"objects": [{"object_id": 1, "name": "lamp", "x": 1, "y": 2, "w": 3, "h": 4}]}
    lines = [facade("r1"), facade("r2", task="human_graph", human_graph=graph), facade("r3", relevance=7)]
    path = tmp_path / "ratings.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = read_answers([path])
    (rating,) = found.ratings
    assert (rating.id, rating.annotator, rating.rating, rating.unit.word) == ("r1", "a7", 2.5, "kitchen")
    assert (rating.unit.image, rating.unit.target, rating.unit.position) == ("ab" * 32, "class", 3)
    (rationale,) = found.rationales
    assert rationale.graph.objects[0].name == "lamp"
    assert [p.id for p in found.problems] == ["r3"]


def test_hostile_records_lose_no_good_one(tmp_path: Path) -> None:
    good = scale(5, 1, "object", "cup", "4")
    script = scale(5, 2, "object", "<script>alert(1)</script>\x1b[2J", 5)
    hostile = [
        scale(5, 3, "object", "cup", "0"), scale(5, 4, "object", "cup", "5.1"), scale(5, 5, "object", "cup", "nan"),
        scale(5, 6, "object", "cup", float("inf")), scale(5, 7, "object", "cup", "four"),
        scale(5, 8, "object", "cup", True),
        scale(5, 9, "object", "cup", [[1]]),
        scale(5, 10, "object", "cup", {"a": 1}), scale(5, 11, "object", "cup", None),
        scale("../../etc/passwd", 1, "object", "cup", "3"), scale("/etc/x", 1, "object", "cup", "3"),
        scale("a\\..\\b", 1, "object", "cup", "3"), scale("C:x", 1, "object", "cup", "3"),
        {**good, "metadata": None}, {**good, "metadata": {"filename": 7}}, {**good, "metadata": {"filename": "x.jpg"}},
        {**good, "response": 7}, {**good, "response": {"annotations": [1]}}, {"task_id": 3}, {}, [], "text", None,
        {"data": {}, "annotations": 7},
        {"data": {"unit": {"image": 5}}, "annotations": [{"result": [7, {"value": 1}]}]},
    ]  # fmt: skip
    odd = [
        scale(5, 12, 7, {"a": 1}, "3"), scale(5, 13, "object", "x" * 5000, "3"), scale(5, 14, "object", "cup", "4,5"),
        scale(5, 15, "object", "cup", "4/5"), scale(5, 16, "object", "cup", 3),
    ]  # fmt: skip
    found = read_answers([write(tmp_path / "x.json", [good, script, *hostile, *odd])])
    assert len(found.ratings) == 2 + len(odd)
    assert [r.rating for r in found.ratings] == [4, 5, 3, 3, 4.5, 4, 3]
    assert found.ratings[1].content.subject == "script alert 1 /script 2j"
    assert len({p.record for p in found.problems if not p.kept}) == len(hostile)
    assert not any(ord(c) < 32 for p in found.problems for c in p.reason + p.id)


def test_duplicate_ids(tmp_path: Path) -> None:
    first = scale(5, 1, "object", "cup", "4", id_="t")
    other = scale(5, 2, "object", "mat", "2", id_="t")
    found = read_answers([write(tmp_path / "a.json", [first, other, first]), write(tmp_path / "b.json", [other])])
    assert [(r.id, r.rating) for r in found.ratings] == [("t", 4), ("t#2", 2)]
    assert [(p.source, p.record, p.kept) for p in found.problems] == [
        ("a.json", 2, True), ("a.json", 3, False), ("b.json", 1, False),
    ]  # fmt: skip


@settings(max_examples=60)
@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from("task_id metadata filename response annotations data unit image result value from_name format "
                        "relevance attribution id text x".split()),
        inner, max_size=4,
    ), max_leaves=12,
))  # fmt: skip
def test_no_record_stops_the_import(tmp_path_factory, record) -> None:
    good = scale(5, 1, "object", "cup", "4")
    found = read_answers(
        [write(tmp_path_factory.mktemp("h") / "x.json", [record, {"format": "saaa.rating.v1", "x": record}, good])]
    )
    assert found.ratings[-1].unit.image == "COCO_val2014_000000000005"
    assert {p.record for p in found.problems if not p.kept} | {1} >= {1, 2}


@given(st.floats(1, 5))
def test_ratings_are_read_exactly(value: float) -> None:
    assert read_rating(value) == (value, None)
    text = f"{value:.2f}"
    assert read_rating(f" {text} ") == (float(text), None)
    assert read_rating(text.replace(".", ","))[0] == float(text)


def test_image_names() -> None:
    for name in ("COCO_val2014_000000353409", "den/deep/00 1.jpg", "Büro.png"):
        assert check_image(name) == name
    for name in ("", " ", None, 5, "../x", "a/../b", "/x", "\\\\host\\x", "a\nb", "x" * 300, "C:\\x"):
        with pytest.raises(AnswerRejected):
            check_image(name)
