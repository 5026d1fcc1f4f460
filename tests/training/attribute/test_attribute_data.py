"""What there is to explain: listing, classes, graphs, limits, loading ahead, bad images."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from saaa.errors import DataError, OptionInvalid
from saaa.scene_graph import Box, Relationship, SceneGraph, SceneObject
from saaa.work import ModelInfo, ModelKind
from tests.training.attribute.conftest import PHOTOS, TEXT, TORN
from training.attribute import AttributeConfig
from training.attribute import data as data_module
from training.attribute.data import Item, find_items, load, load_ahead, union
from training.attribute.targets import Wanted, check_labels, read_targets

MODEL = ModelInfo(
    name="m", version="1", kind=ModelKind.EGDD, digest="", input_size=16, classes=("attic", "bathroom", "cellar", "den")
)
CAPTIONER = replace(MODEL, kind=ModelKind.EGA, classes=(), max_nodes=10)


def config(data: Path, **options) -> AttributeConfig:
    return AttributeConfig(data=data, out=Path("unused"), archive=Path("unused"), **options)


def test_images_and_their_classes(photos: Path) -> None:
    items = find_items(config(photos), MODEL).all
    assert [item.file for item in items] == sorted(p.relative_to(photos).as_posix() for p in photos.rglob("*.*g"))
    assert len(items) == PHOTOS
    assert {item.file.split("/")[0] for item in items} == {item.label for item in items}


def test_the_innermost_folder_names_the_class(tmp_path: Path) -> None:
    for name in ("attic/den/a.png", "attic/other/b.png", "other/c.png", "d.PNG", "e.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    labels = {item.file: item.label for item in find_items(config(tmp_path), MODEL).all}
    assert labels == {"attic/den/a.png": "den", "attic/other/b.png": "attic", "other/c.png": None, "d.PNG": None}


@pytest.mark.parametrize(("limit", "chosen"), [(1, [0]), (2, [0, 11]), (21, [*range(21)]), (99, [*range(PHOTOS)])])
def test_limit_spreads(photos: Path, limit: int, chosen: list[int]) -> None:
    every = find_items(config(photos), MODEL).all
    assert find_items(config(photos, limit=limit), MODEL).all == tuple(every[k] for k in chosen)


def test_graphs_of_images_and_regions(world: Path) -> None:
    images = find_items(config(world), MODEL).all
    assert len(images) == 8
    regions = find_items(config(world, split="val_sub"), CAPTIONER).all
    assert [item.region for item in regions] == ["0"] * 5
    known = {item.file: item.graph for item in images}
    for item in regions:
        told = json.loads((world / f"annotations/regionfiles/{item.path.stem}.json").read_text())["0"]
        assert item.graph == known[item.file] == SceneGraph.from_region(told)


def test_a_procedural_world_gives_whole_graphs(world: Path, tmp_path: Path) -> None:
    shutil.copytree(world, tmp_path / "world")
    graph = SceneGraph((SceneObject(5, "door", Box(1, 2, 3, 4), ("open",)),))
    (tmp_path / "world/scenes.jsonl").write_text(json.dumps({"file": "trn/scene/000001.jpg", **graph.to_region()}))
    found = find_items(config(tmp_path / "world"), MODEL).all
    assert [item.graph == graph for item in found] == [True] + [False] * 7
    (tmp_path / "world/scenes.jsonl").write_text('{"file": 1}')
    with pytest.raises(DataError, match=r"scenes\.jsonl does not describe"):
        find_items(config(tmp_path / "world"), MODEL)


def test_what_cannot_be_used_is_told(world: Path, tmp_path: Path) -> None:
    shutil.copytree(world, tmp_path / "world")
    (tmp_path / "world/val_sub/scene/000004.jpg").unlink()
    found = find_items(config(tmp_path / "world"), MODEL)
    assert len(found.all) == 7
    assert found.skipped == ("region 0 of image 000004: there is no such image",)


def test_union_joins_regions() -> None:
    cup, table = SceneObject(1, "cup", Box(0, 0, 4, 4), ("red",)), SceneObject(2, "table", Box(0, 4, 9, 5))
    one = SceneGraph((cup, table), (Relationship(1, 1, 2, "on"),))
    moved = SceneObject(1, "mug", Box(1, 1, 4, 4), ("red", "full"))
    two = SceneGraph((moved, table, SceneObject(3, "cat", Box(5, 0, 2, 4))), (Relationship(1, 3, 2, "near"),))
    joined = union([one, two, one])
    assert [(o.id, o.name, o.attributes) for o in joined.objects] == [
        (1, "cup", ("red", "full")), (2, "table", ()), (3, "cat", ()),
    ]  # fmt: skip
    assert joined.objects[0].box == cup.box
    assert joined.relationships == (Relationship(1, 1, 2, "on"), Relationship(2, 3, 2, "near"))


def test_digest_tells_data_sets_apart(photos: Path, tmp_path: Path) -> None:
    shutil.copytree(photos, tmp_path / "copy")
    digest = find_items(config(photos), MODEL).digest
    assert find_items(config(tmp_path / "copy"), MODEL).digest == digest
    (tmp_path / "copy" / TEXT).write_bytes(b"longer than before")
    assert find_items(config(tmp_path / "copy"), MODEL).digest != digest
    assert find_items(config(photos, limit=5), MODEL).digest != digest


@pytest.mark.parametrize(
    ("options", "model", "says"),
    [
        ({"data": "nowhere"}, MODEL, "There is no folder"),
        ({"data": "empty"}, MODEL, "There is no image in"),
        ({"data": "photos", "split": "trn"}, MODEL, "there are none"),
        ({"data": "photos"}, CAPTIONER, "A captioner is guided by graphs"),
        ({"data": "photos", "annotations": Path("nowhere")}, MODEL, "lists no split|no annotation folder"),
        ({"data": "world", "split": "tst"}, MODEL, "has no split 'tst'; choose one of trn, val_sub"),
        ({"data": "photos", "annotations": "world"}, MODEL, "None of the images is below"),
    ],
)
def test_nothing_to_explain(options, model, says: str, photos: Path, world: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    folders = {"photos": photos, "world": world}
    given = {**options, "data": folders.get(options["data"], tmp_path / options["data"])}
    if given.get("annotations") == "world":
        given["annotations"] = world / "annotations"
    with pytest.raises(DataError, match=says):
        find_items(config(**given), model)


def test_loading_and_refusing(photos: Path) -> None:
    items = {item.file: item for item in find_items(config(photos), MODEL).all}
    torn, text = load(items[TORN], MODEL), load(items[TEXT], MODEL)
    assert torn.error is not None
    assert torn.error.message == "the JPEG data is cut off; send the complete file"
    assert text.error is not None
    assert text.error.reason == "IMAGE_REJECTED"
    assert text.sha256 == hashlib.sha256(b"no picture").hexdigest()
    gone = load(Item(file="x.jpg", path=photos / "x.jpg"), MODEL)
    assert gone.error is not None
    assert "No such file" in gone.error.message
    assert gone.sha256 is None
    good = next(iter(items.values()))
    loaded = load(good, replace(MODEL, resize="crop"))
    assert loaded.pixels is not None
    assert loaded.pixels.shape == (16, 16, 3)
    assert (loaded.width, loaded.height) == Image.open(good.path).size
    assert loaded.geometry is not None
    assert loaded.geometry.height == 60
    assert loaded.geometry.width < loaded.width


def test_loading_ahead_is_one_batch_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[str] = []
    lock = threading.Lock()

    def slow(item: Item, model: ModelInfo) -> data_module.Loaded:
        with lock:
            begun.append(item.file)
        return data_module.Loaded(item=item, pixels=np.zeros((1, 1, 3), np.uint8))

    monkeypatch.setattr(data_module, "load", slow)
    batches = [[Item(file=f"{b}{k}", path=Path()) for k in range(3)] for b in range(4)]
    seen = 0
    for number, loaded in enumerate(load_ahead(batches, MODEL, workers=2)):
        assert [one.item.file for one in loaded] == [item.file for item in batches[number]]
        assert len(begun) <= 3 * (number + 2)
        seen += 1
    assert seen == 4
    assert list(load_ahead([], MODEL, workers=1)) == []


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (None, Wanted(top=1)), ("predicted", Wanted(top=1)), ("true", Wanted(true=True)), ("top2", Wanted(top=2)),
        ("den", Wanted(classes=(3,))), ("cellar, attic,cellar", Wanted(classes=(2, 0))),
    ],
)  # fmt: skip
def test_targets_of_a_classifier(text: str | None, wanted: Wanted) -> None:
    assert read_targets(text, MODEL) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (None, Wanted(words=True)), ("words", Wanted(words=True)), ("nodes", Wanted(nodes=True)),
        ("words,nodes", Wanted(words=True, nodes=True)),
    ],
)  # fmt: skip
def test_targets_of_a_captioner(text: str | None, wanted: Wanted) -> None:
    assert read_targets(text, CAPTIONER) == wanted


def test_a_class_may_be_called_top2() -> None:
    assert read_targets("top2", replace(MODEL, classes=("top1", "top2"))) == Wanted(classes=(1,))


@pytest.mark.parametrize(
    ("text", "model", "says"),
    [
        ("dne", MODEL, "has no class 'dne'; choose predicted, true, top2"), ("top0", MODEL, "choose top1 to top4"),
        ("top5", MODEL, "choose top1 to top4"), ("", MODEL, "no class ''"), ("words", MODEL, "no class 'words'"),
        ("true", CAPTIONER, "choose words, nodes or words,nodes"),
    ],
)  # fmt: skip
def test_wrong_targets(text: str, model: ModelInfo, says: str) -> None:
    with pytest.raises(OptionInvalid, match=says):
        read_targets(text, model)


def test_true_classes_must_be_known() -> None:
    items = [Item(file="den/a.png", path=Path(), label="den"), Item(file="b.png", path=Path())]
    check_labels(Wanted(top=1), items)
    check_labels(Wanted(true=True), items[:1])
    with pytest.raises(DataError, match=r"1 of 2 are not, b\.png"):
        check_labels(Wanted(true=True), items)
