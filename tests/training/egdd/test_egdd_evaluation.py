"""Measuring a classifier: figures by hand, reports from archives and checkpoints."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from saaa import archive
from saaa.errors import ArchiveError, CheckpointError, DataError
from saaa.models.classifier import Classifier, ClassifierConfig
from training.checkpoint import save_checkpoint
from training.egdd.config import EvaluateConfig
from training.egdd.data import list_images, load_for_evaluation
from training.egdd.evaluation import classifier_of, evaluate, failures, measure, predict, settings_of

CLASSES = ("blue", "green", "red")


def make(size: int = 32) -> Classifier:
    torch.manual_seed(0)
    config = ClassifierConfig(architecture="test_efficientnet", classes=CLASSES, input_size=size)
    return Classifier(config).eval()


def test_measure_by_hand() -> None:
    logits = np.log(np.array([[0.7, 0.2, 0.1], [0.5, 0.4, 0.1], [0.1, 0.1, 0.8], [0.2, 0.5, 0.3]], np.float32))
    found = measure(logits, np.array([0, 1, 2, 2]), ("a", "b", "c"))
    assert found["images"] == 4
    assert found["accuracy"] == 0.5
    assert found["top5"] is None
    assert found["loss"] == pytest.approx(-np.log([0.7, 0.4, 0.8, 0.3]).mean(), rel=1e-5)
    assert found["confusion"] == [[1, 0, 0], [1, 0, 0], [0, 1, 1]]
    assert found["classes"] == {
        "a": {"images": 1, "accuracy": 1.0},
        "b": {"images": 1, "accuracy": 0.0},
        "c": {"images": 2, "accuracy": 0.5},
    }


def test_class_without_images_and_large_logits() -> None:
    found = measure(np.array([[1e4, 0.0], [1e4, -1e4]], np.float32), np.array([0, 0]), ("a", "b"))
    assert found["classes"]["b"] == {"images": 0, "accuracy": None}
    assert found["loss"] == 0.0


def test_top5() -> None:
    logits = np.tile(np.arange(7, 0, -1, dtype=np.float32), (3, 1))
    found = measure(logits, np.array([0, 4, 5]), tuple("abcdefg"))
    assert found["top5"] == pytest.approx(2 / 3)


def test_failures_worst_first(class_folders: Path) -> None:
    listing = list_images(class_folders / "val").take([0, 4, 8])
    images = load_for_evaluation(listing, make().config, what="val")
    logits = np.log(np.array([[0.4, 0.6, 1e-9], [0.1, 0.8, 0.1], [0.9, 0.05, 0.05]], np.float32))
    assert failures(logits, images, CLASSES) == [
        {"file": "red/00.png", "label": "red", "predicted": "blue", "probability": 0.9},
        {"file": "blue/00.png", "label": "blue", "predicted": "green", "probability": 0.6},
    ]


def test_batch_size_changes_nothing(class_folders: Path) -> None:
    classifier = make()
    images = load_for_evaluation(list_images(class_folders / "val"), classifier.config, what="val")
    one = predict(classifier, images, batch_size=1)
    assert one.shape == (12, 3)
    np.testing.assert_allclose(predict(classifier, images, batch_size=5), one, rtol=1e-4, atol=1e-6)


def test_archive_and_checkpoint_agree(class_folders: Path, tmp_path: Path) -> None:
    classifier = make()
    archive.write(tmp_path / "a.mar", classifier.to_archive("a", "1", {}))
    content = {"classifier": settings_of(classifier.config), "model": classifier.net.state_dict()}
    save_checkpoint(tmp_path / "a.pt", "egdd", content)
    data = tmp_path / "data"
    shutil.copytree(class_folders / "val", data)
    (data / "red" / "bad.jpg").write_bytes(b"nothing")
    output = tmp_path / "new" / "report.json"
    first = evaluate(EvaluateConfig(data_path=data, archive=tmp_path / "a.mar", output=output))
    second = evaluate(EvaluateConfig(data_path=data, checkpoint=tmp_path / "a.pt", batch_size=12))
    assert json.loads(output.read_text()) == first
    assert first["images"] == 12
    assert first["skipped"][0]["file"] == "red/bad.jpg"
    assert first["confusion"] == second["confusion"]
    assert first["loss"] == pytest.approx(second["loss"], rel=1e-5)
    assert len(first["failures"]) == 12 - round(12 * first["accuracy"])


def test_unusable_input(class_folders: Path, tmp_path: Path) -> None:
    with pytest.raises(ArchiveError):
        evaluate(EvaluateConfig(data_path=class_folders / "val", archive=tmp_path / "none.mar"))
    classifier = make()
    archive.write(tmp_path / "a.mar", classifier.to_archive("a", "1", {}))
    with pytest.raises(DataError, match="There is no folder"):
        evaluate(EvaluateConfig(data_path=tmp_path / "none", archive=tmp_path / "a.mar"))
    with pytest.raises(DataError, match="must be among"):
        evaluate(EvaluateConfig(data_path=class_folders, archive=tmp_path / "a.mar"))
    with pytest.raises(CheckpointError, match="usable classifier"):
        classifier_of({"classifier": settings_of(classifier.config), "model": {}})
