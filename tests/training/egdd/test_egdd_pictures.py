"""Pictures of a report: what they draw, for few classes and for many."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from saaa.errors import DataError
from training.egdd.measures import measure
from training.egdd.pictures import LONGEST, confusion, reliability, write_pictures


def report(known: int, count: int = 200, names: tuple[str, ...] | None = None) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, known, count)
    logits = rng.normal(size=(count, known)).astype(np.float32)
    logits[np.arange(count), labels] += 2
    return measure(logits, labels, names or tuple(f"class {k}" for k in range(known)))


def test_confusion_is_normalised_by_row_and_counted() -> None:
    found = report(4)
    axes = confusion(found).axes[0]
    counts = np.array(found["confusion"])
    np.testing.assert_allclose(axes.images[0].get_array(), counts / counts.sum(axis=1, keepdims=True))
    written = {(round(t.get_position()[1]), round(t.get_position()[0])): int(t.get_text()) for t in axes.texts}
    assert written == {(r, c): counts[r, c] for r in range(4) for c in range(4) if counts[r, c]}
    assert [t.get_text() for t in axes.get_yticklabels()] == list(found["classes"])
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "true")


def test_class_without_images() -> None:
    found = measure(np.array([[1.0, 0.0, 0.0]], np.float32), np.array([0]), ("a", "b", "c"))
    assert np.isfinite(confusion(found).axes[0].images[0].get_array()).all()


@pytest.mark.parametrize(("known", "counts", "names"), [(20, True, True), (21, False, True), (61, False, False)])
def test_many_classes(known: int, counts: bool, names: bool) -> None:
    axes = confusion(report(known)).axes[0]
    assert bool(axes.texts) == counts
    assert (len(axes.get_xticklabels()) == known) == names


def test_reliability_shows_the_bins() -> None:
    found = report(4)
    upper, lower = reliability(found).axes
    filled = [b for b in found["calibration"] if b["count"]]
    shared, above, below = ([bar.get_height() for bar in bars] for bars in upper.containers)
    for b, common, modest, proud in zip(filled, shared, above, below, strict=True):
        assert common + modest == pytest.approx(b["accuracy"])
        assert common + proud == pytest.approx(b["confidence"])
    assert [bar.get_height() for bar in lower.containers[0]] == [b["count"] for b in filled]
    assert f"{found['ece']:.1%}" in upper.get_title(loc="left")


def test_files(tmp_path: Path) -> None:
    names = (
        r"a$\off$c",
        "a name of many words\nand of two lines",
        "厨房",
    )  # no formula is set, and no missing letter is warned of
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_pictures(report(3, names=names), tmp_path / "new", prefix="val.")
    assert {p.name for p in (tmp_path / "new").iterdir()} == {"val.confusion.png", "val.calibration.png"}
    for path in (tmp_path / "new").iterdir():
        with Image.open(path) as image:
            assert min(image.size) > 300
            assert len(image.convert("RGB").getcolors(1 << 20) or []) > 20
    labels = [t.get_text() for t in confusion(report(3, names=names)).axes[0].get_yticklabels()]
    assert labels[0] == r"a$\off$c"
    assert len(labels[1]) == LONGEST
    assert "\n" not in labels[1]


def test_unwritable_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="Cannot write"):
        write_pictures(report(3), tmp_path / "file")
