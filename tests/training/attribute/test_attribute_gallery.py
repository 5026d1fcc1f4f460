"""The gallery: what it shows first, what a map looks like over its picture, a page that stands alone."""

from __future__ import annotations

import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from saaa.client.attributions import Region
from tests.training.attribute.conftest import TORN
from training.attribute import AttributeConfig, run
from training.attribute.gallery import choose, confidence, mistaken, overlay
from training.attribute.table import top_concepts


def record(item: int, chance: float, predicted: str = "den", label: str | None = "den") -> dict[str, Any]:
    return {"item": item, "label": label, "predictions": [{"class": predicted, "probability": chance}]}


@pytest.mark.parametrize(
    ("order", "items"),
    [
        ("least_confident", [3, 0, 4]), ("most_confident", [1, 2, 0]), ("mistakes", [2, 3, 1]), ("name", [0, 1, 2]),
    ],
)  # fmt: skip
def test_order(order, items: list[int]) -> None:
    records = [
        record(0, 0.5), record(1, 0.9, label=None), record(2, 0.8, "attic"), record(3, 0.3, "attic"), record(4, 0.5)
    ]  # fmt: skip
    for given in (records, records[::-1]):
        assert [r["item"] for r in choose(given, order, 3)] == items
    assert [mistaken(r) for r in records] == [False, False, True, True, False]


def test_confidence_of_a_caption() -> None:
    said = {"item": 0, "label": None, "caption": {"log_probabilities": list(np.log([0.5, 0.125]))}}
    assert confidence(said) == pytest.approx(0.25)
    assert confidence({"caption": {"log_probabilities": []}}) == 0
    assert not mistaken(said)


def test_top_concepts() -> None:
    concepts = [
        {"kind": "object", "name": "cup", "score": 0.2}, {"kind": "attribute", "name": "red", "score": 0.9},
        {"kind": "object", "name": "mat", "score": 0.8},
    ]  # fmt: skip
    assert [c["name"] for c in top_concepts({"concepts": concepts}, 2)] == ["mat", "cup"]
    weighted = [dict(concepts[0], weight=0.1), dict(concepts[1], weight=0.7), concepts[2]]
    assert [c["name"] for c in top_concepts({"concepts": weighted}, 2)] == ["red", "cup"]
    assert top_concepts({}, 3) == []


def test_overlay_is_hot_where_the_map_is() -> None:
    """A map of one hot cell over the right half of a grey picture."""
    grid = np.zeros((2, 2), np.float32)
    grid[0, 1] = 1
    image = np.full((40, 80, 3), 120, np.uint8)
    photo, blend = overlay(image, grid, Region(x=40, y=0, width=40, height=40), (160, 80))
    assert photo.size == blend.size == (160, 80)
    assert set(np.unique(np.asarray(photo))) == {120}
    warmth = np.asarray(blend, np.int64) @ [1, 0, -1]
    assert np.unravel_index(warmth.argmax(), warmth.shape)[0] < 40
    assert np.unravel_index(warmth.argmax(), warmth.shape)[1] >= 120
    assert warmth[10, 150] > 60
    assert not warmth[:, :79].any()


def test_overlay_of_a_signed_map() -> None:
    grid = np.array([[1, -1]], np.float32)
    _, blend = overlay(np.full((20, 40, 3), 128, np.uint8), grid, Region(x=0, y=0, width=40, height=20), (40, 20))
    warmth = np.asarray(blend, np.int64) @ [1, 0, -1]
    assert warmth[10, 2] > 30
    assert warmth[10, 38] < -30


class Page(HTMLParser):
    """Collects what the page loads and says; complains of tags that do not close."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.files: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        assert tag not in ("script", "link", "iframe")
        if tag == "img":
            assert given["alt"]
            self.files.append(str(given["src"]))
        if tag not in ("img", "meta"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def config(photos: Path, out: Path, models: Path, **options: Any) -> AttributeConfig:
    given = {"threads": 1, "gallery": 4, **options}
    return AttributeConfig(data=photos, out=out, archive=models / "egdd.mar", **given)


def test_the_page(photos: Path, tiny_models: Path, tmp_path: Path) -> None:
    data = tmp_path / "<data>"
    shutil.copytree(photos, data)
    next(data.glob("attic/deep/*.jpg"), next(data.glob("*/*/*.jpg"))).rename(data / "attic/<b>&.jpg")
    out = tmp_path / "out"
    run(config(data, out, tiny_models, gallery=99, targets="top2"))
    text = (out / "gallery.html").read_text()
    page = Page(text)
    assert not page.open
    assert len(page.files) == len(set(page.files)) == 20 * 3
    assert {f"gallery/{p.name}" for p in (out / "gallery").iterdir()} == set(page.files)
    assert all(max(Image.open(out / file).size) == 256 for file in page.files)
    assert "<data>" not in text
    assert "Attribution of &lt;data&gt;" in text
    assert not re.search(r"https?://", text)
    assert f"<td>{TORN}</td>" in text
    assert "2 failed" in text
    assert "attic/&lt;b&gt;&amp;.jpg" in text


def test_the_gallery_is_drawn_anew(photos: Path, tiny_models: Path, tmp_path: Path) -> None:
    """Its options may change once the run is there; no image is explained again."""
    out = tmp_path / "out"
    run(config(photos, out, tiny_models))
    first = (out / "index.jsonl").stat().st_mtime_ns
    assert len(Page((out / "gallery.html").read_text()).files) == 8
    run(config(photos, out, tiny_models, gallery=2, gallery_order="name"))
    assert Page((out / "gallery.html").read_text()).files[0] == "gallery/00000000.jpg"
    assert len(list((out / "gallery").iterdir())) == 4
    run(config(photos, out, tiny_models, gallery=0))
    assert not (out / "gallery.html").exists()
    assert not (out / "gallery").exists()
    assert (out / "index.jsonl").stat().st_mtime_ns == first
