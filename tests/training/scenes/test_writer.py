"""The world on disk: formats, truth, reproducibility, confounds."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from random import Random

import numpy as np
import pytest
from PIL import Image

from saaa.errors import DataError, OptionInvalid
from saaa.scene_graph import SceneGraph
from training.scenes import CLASSES, ScenesConfig, Summary, run, writer
from training.scenes.room import WALLS

SMALL = {"train": 24, "val": 6, "test": 6, "size": 96}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes") / "world"
    run(ScenesConfig(output_dir=folder, workers=1, **SMALL))
    return folder


def scenes_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "scenes.jsonl").read_text().splitlines()]


def test_scenes_and_masks(world: Path) -> None:
    scenes = scenes_of(world)
    assert len(scenes) == 36
    assert len({scene["id"] for scene in scenes}) == 36
    assert Counter(s["class"] for s in scenes if s["split"] == "train") == dict.fromkeys(CLASSES, 2)
    for scene in scenes:
        assert scene["file"] == f"{scene['split']}/{scene['class']}/{scene['id']}.jpg"
        assert Image.open(world / scene["file"]).size == (96, 96)
        labels = np.asarray(Image.open(world / "masks" / f"{scene['id']}.png"))
        assert labels.dtype == np.uint8
        graph = SceneGraph.from_region({**scene, "phrase": ""}, image_size=(96, 96))
        assert set(np.unique(labels)) - {0} == {item.id for item in graph.objects}
        for item in graph.objects:
            rows, columns = np.nonzero(labels == item.id)
            tight = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            assert item.box.ltrb() == tight
        assert scene["evidence"]
        assert scene["confound"] is None


def test_published_formats(world: Path) -> None:
    annotations = world / "annotations"
    words = np.load(annotations / "int2word.npy", allow_pickle=False)
    assert list(words[:3]) == ["BOS", "EOS", "UNK"]
    assert json.loads((annotations / "word2int.json").read_text()) == {word: k for k, word in enumerate(words)}
    for split, name, count in (("train", "trn", 24), ("val", "val", 6), ("test", "val_sub", 6)):
        names = np.load(annotations / "public_split" / f"{name}_names.npy", allow_pickle=False)
        assert list(names) == [f"{s['id']}.jpg" for s in scenes_of(world) if s["split"] == split]
        pairs = np.load(annotations / "regionfiles" / f"{name}_names.npy", allow_pickle=False)
        assert pairs.shape == (2 * count, 2)
        captions = json.loads((annotations / f"cleaned_{name}_region_descriptions.json").read_text())
        for image_id, region_id in pairs:
            region = json.loads((annotations / "regionfiles" / f"{image_id}.json").read_text())[region_id]
            graph = SceneGraph.from_region(region, image_size=(96, 96))
            assert len(graph.role_graph().types) == len(graph.nodes()) <= 10
            texts = captions[image_id][region_id]
            assert len(texts) >= 5
            assert region["phrase"] == texts[0]
            assert all(item.name in text.split() for item in graph.objects for text in texts)
            if name == "trn":
                assert all(word in words for text in texts for word in text.split())


def test_any_number_of_workers_gives_the_same_bytes(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "SMALL_WORLD", 1)
    made = run(ScenesConfig(output_dir=tmp_path / "world", workers=2, **SMALL))
    assert made.digest == json.loads((world / "world.json").read_text())["digest"] == writer.digest_of(world)
    assert (world / "contact_sheet.png").read_bytes() == (tmp_path / "world" / "contact_sheet.png").read_bytes()
    assert not [path for path in tmp_path.iterdir() if path.name != "world"]


def test_reuse_replace_refuse(world: Path, tmp_path: Path) -> None:
    before = (world / "world.json").stat().st_mtime_ns
    again = run(ScenesConfig(output_dir=world, workers=2, classes=CLASSES[::-1], **SMALL))
    assert again.reused
    assert (again.images, again.regions) == (36, 72)
    assert (world / "world.json").stat().st_mtime_ns == before

    small = ScenesConfig(output_dir=tmp_path / "w", train=1, val=1, test=1, size=64)
    first = run(small)
    other = run(ScenesConfig(output_dir=tmp_path / "w", train=1, val=1, test=1, size=64, seed=1))
    assert isinstance(other, Summary)
    assert not other.reused
    assert other.digest != first.digest
    assert [path.name for path in tmp_path.iterdir()] == ["w"]
    precious = tmp_path / "photos"
    precious.mkdir()
    (precious / "me.jpg").write_text("x")
    with pytest.raises(DataError, match="not a world"):
        run(ScenesConfig(output_dir=precious, train=1, val=1, test=1))
    assert (precious / "me.jpg").read_text() == "x"


@pytest.mark.parametrize("kind", ["colour", "backdrop", "object"])
def test_confounds_are_in_training_only(tmp_path: Path, kind: str) -> None:
    config = ScenesConfig(output_dir=tmp_path / kind, confound=(f"kitchen={kind}",), **SMALL)
    run(config)
    scenes = scenes_of(tmp_path / kind)
    marked = [s for s in scenes if s["confound"]]
    assert {(s["split"], s["class"]) for s in marked} == {("train", "kitchen")}
    assert len(marked) == 2
    cue = marked[0]["confound"]["cue"]
    if kind == "object":
        having = [s for s in scenes if s["split"] == "train" and cue in {item["name"] for item in s["objects"]}]
        assert {s["class"] for s in having} == {"kitchen"}
        assert len(having) == 2


def test_the_cue_of_a_colour_is_kept_from_other_classes() -> None:
    config = ScenesConfig(confound=("kitchen=colour", "office=backdrop"))
    kitchen, office = config.bias_for("kitchen"), config.bias_for("office")
    assert kitchen.wall in WALLS
    assert office.wall is None
    assert kitchen.wall in office.avoid_walls
    assert office.backdrop in kitchen.avoid_backdrops
    assert config.bias_for(None).wall is None
    assert config.bias_for(None).avoid_walls == {kitchen.wall}


OBJECTS = {"art_studio": "ball", "bedroom": "guitar", "kitchen": "basket"}


def test_held_out_cues_classes_and_pool(tmp_path: Path) -> None:
    confound = tuple(f"{label}=object" for label in OBJECTS)
    shape = {"train": 12, "val": 4, "test": 24, "size": 64, "classes": ("office", *OBJECTS), "confound": confound}
    run(ScenesConfig(output_dir=tmp_path / "a", workers=1, confound_held_out=0.5, pool=8, **shape))
    run(ScenesConfig(output_dir=tmp_path / "b", workers=1, **shape))
    scenes, plain = scenes_of(tmp_path / "a"), scenes_of(tmp_path / "b")
    for split, count in (("train", 3), ("val", 1), ("test", 6), ("pool", 2)):
        found = Counter(s["class"] for s in scenes if s["split"] == split)
        assert found == dict.fromkeys(sorted((*OBJECTS, "office")), count)
        assert sorted(path.name for path in (tmp_path / "a" / split).iterdir()) == sorted(found)
    assert not (tmp_path / "b" / "pool").exists()
    carried = Counter()
    for scene in scenes:
        names = {item["name"] for item in scene["objects"]}
        said = scene["confound"]
        if scene["class"] == "office":
            assert said is None
            assert scene["split"] in ("val", "test") or not names & set(OBJECTS.values())
            continue
        assert said["cue"] == OBJECTS[said["of"]]
        assert names & set(OBJECTS.values()) == {said["cue"]}
        carried[scene["split"], said["of"] == scene["class"]] += 1
    assert carried["train", False] == carried["pool", False] == 0
    assert min(carried["test", True], carried["test", False]) >= 4
    for scene in plain[:12]:
        assert (tmp_path / "a" / scene["file"]).read_bytes() == (tmp_path / "b" / scene["file"]).read_bytes()
    assert all(s["confound"] is None for s in plain[12:])


def test_a_pool_leaves_the_world_as_it_is(tmp_path: Path) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    for folder, pool in ((before, 0), (after, 1)):
        run(ScenesConfig(output_dir=folder, workers=1, train=2, val=2, test=2, pool=pool, size=64))
    unlike = ("world.json", "contact_sheet.png", "scenes.jsonl")
    files = [p.relative_to(before) for p in before.rglob("*") if p.is_file() and p.name not in unlike]
    assert len(files) > 24
    assert all((after / name).read_bytes() == (before / name).read_bytes() for name in files)
    assert scenes_of(after)[:-1] == scenes_of(before)


def test_held_out_cues_come_as_often_as_asked() -> None:
    config = ScenesConfig(confound=tuple(f"{label}=object" for label in OBJECTS), confound_held_out=0.25)
    drawn = Counter(config.cue_of("bedroom", "test", Random(k)) for k in range(2000))
    assert 0.21 < drawn["bedroom"] / 2000 < 0.29
    assert drawn["art_studio"] + drawn["kitchen"] == 2000 - drawn["bedroom"]
    assert 0.8 < drawn["art_studio"] / drawn["kitchen"] < 1.25
    assert config.cue_of("office", "test", Random(0)) is None


@pytest.mark.parametrize(
    "options",
    [
        {"train": 0}, {"size": 8}, {"confound": ("kitchen",)}, {"confound": ("moon=colour",)}, {"workers": -1},
        {"confound": ("kitchen=colour", "kitchen=object")}, {"confound_strength": 0.0}, {"quality": 100},
        {"regions": 1}, {"pool": -1}, {"classes": ("moon",)}, {"confound_held_out": 0.5},
        {"confound": ("kitchen=colour",), "classes": ("office",)},
        {"confound": ("kitchen=colour", "office=object"), "confound_held_out": 0.5},
        {"confound": ("kitchen=object", "art studio=object"), "confound_held_out": 1.5},
    ],
)  # fmt: skip
def test_bad_options(options: dict) -> None:
    with pytest.raises(OptionInvalid):
        ScenesConfig(**options)
