"""The Model ASG of a hand-made export."""

from __future__ import annotations

from pathlib import Path

from saaa.annotations import model_asgs, read_answers
from tests.annotation_exports import odd_export, scale, studio, write


def test_model_asg(tmp_path: Path) -> None:
    tasks = [*odd_export(), scale(1, 8, "object", "man", "1.5")]
    one, two, three = model_asgs(read_answers([write(tmp_path / "x.json", tasks)]).ratings)
    assert one.to_json() == {
        "image": "COCO_val2014_000000000001",
        "region": None,
        "objects": [
            {"name": "man", "relevance": 3, "ratings": 2, "attributes": []},
            {"name": "horse", "relevance": 5, "ratings": 1, "attributes": []},
            {"name": "grass", "relevance": None, "ratings": 0, "attributes": []},
        ],
        "relationships": [
            {"subject": "man", "name": "riding", "object": "horse", "relevance": 4, "ratings": 1},
            {"subject": None, "name": "on", "object": "grass", "relevance": 3.5, "ratings": 1},
        ],
        "unnamed": [],
    }
    bus = two.to_json()["objects"][0]
    assert (bus["name"], bus["relevance"], bus["attributes"]) == (
        "bus", 1, [{"name": "red", "relevance": 1.2, "ratings": 1}],
    )  # fmt: skip
    assert [name for name, _ in two.unnamed] == [""]
    assert [thing.name for thing in three.objects] == ["sign", "parking lot"]
    assert [name for name, _ in three.unnamed] == ["white"]
    assert [link.name for link in three.relationships] == ["next to", "in front of"]


def test_regions_are_apart(tmp_path: Path) -> None:
    tasks = [
        studio({"image": "a", "region": region}, (1, "object", "cup", rating), id_=k)
        for k, (region, rating) in enumerate((("1", 2), ("2", 4), ("1", 3)))
    ]
    found = model_asgs(read_answers([write(tmp_path / "x.json", tasks)]).ratings)
    assert [(asg.region, asg.objects[0].relevance.mean) for asg in found] == [("1", 2.5), ("2", 4)]
