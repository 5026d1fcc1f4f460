"""Slices: of a world by whose cue an image carries, of other data by what their file says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from saaa.errors import DataError
from training.debugging.slices import ALIGNED, COUNTER, find_slices
from training.egdd.listing import list_folders
from training.scenes import ScenesConfig, run

CUES = {"bathroom": "globe", "kitchen": "basket"}


def test_a_world_with_held_out_cues(tmp_path: Path) -> None:
    confound = tuple(f"{label}=object" for label in CUES)
    shape = {"train": 6, "val": 2, "test": 14, "size": 64, "classes": (*CUES, "office")}
    run(ScenesConfig(output_dir=tmp_path, workers=1, confound=confound, confound_held_out=0.5, **shape))
    found = find_slices(tmp_path, "test")
    names = {}
    for line in (tmp_path / "scenes.jsonl").read_text().splitlines():
        scene = json.loads(line)
        names[scene["file"]] = {item["name"] for item in scene["objects"]}
    listing = list_folders(tmp_path / "test")
    assert {name for name in listing.names if not name.startswith("office")} == set(found)
    for image, name in found.items():
        own = CUES[image.split("/")[0]]
        assert name == (ALIGNED if own in names[f"test/{image}"] else COUNTER)
        assert len(names[f"test/{image}"] & set(CUES.values())) == 1
    assert set(found.values()) == {ALIGNED, COUNTER}
    assert set(find_slices(tmp_path, "train").values()) == {ALIGNED}
    assert find_slices(tmp_path, "tes") == {}


def test_slices_of_other_data(tmp_path: Path) -> None:
    assert find_slices(tmp_path, "test") == {}
    given = {"test/dog/1.jpg": "indoors", "test/dog/2.jpg": "outdoors", "val/dog/1.jpg": "indoors"}
    (tmp_path / "slices.json").write_text(json.dumps(given))
    assert find_slices(tmp_path, "test") == {"dog/1.jpg": "indoors", "dog/2.jpg": "outdoors"}


@pytest.mark.parametrize("text", ["{", "[]", '{"test/a.jpg": 1}', '{"test/a.jpg": ""}', "[" * 100_000])
def test_a_broken_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "slices.json").write_text(text)
    with pytest.raises(DataError, match=r"slices\.json"):
        find_slices(tmp_path, "test")


@pytest.mark.parametrize("line", ["{", "[]", '{"file": "test/a.jpg"}'])
def test_a_broken_world(tmp_path: Path, line: str) -> None:
    (tmp_path / "scenes.jsonl").write_text(line + "\n")
    with pytest.raises(DataError, match=r"scenes\.jsonl"):
        find_slices(tmp_path, "test")
