"""Predicting and reporting: archives and checkpoints, class folders and shards, one process and several."""

from __future__ import annotations

import csv
import io
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from saaa import archive
from saaa.errors import ArchiveError, CheckpointError, DataError, OptionInvalid
from saaa.models.classifier import Classifier, ClassifierConfig
from tests.training.several import together
from training.checkpoint import save_checkpoint
from training.distributed import world
from training.egdd.config import EvaluateConfig
from training.egdd.data import Images, list_images, load_for_evaluation
from training.egdd.evaluation import classifier_of, evaluate, predict, settings_of
from training.egdd.measures import Predictions

CLASSES = ("blue", "green", "red")


def make(model: str = "test_efficientnet", size: int = 32) -> Classifier:
    torch.manual_seed(0)
    config = ClassifierConfig(architecture=model, classes=CLASSES, input_size=size)
    return Classifier(config).eval()


def load(folder: Path, classifier: Classifier, count: int | None = None, cache_mb: int = 16) -> Images:
    listing = list_images(folder, CLASSES)
    if count is not None:
        listing = listing.take(range(count))
    return load_for_evaluation(listing, classifier.config, what="val", cache_mb=cache_mb)


@pytest.fixture
def served(tmp_path: Path) -> Path:
    """An archive."""
    archive.write(tmp_path / "a.mar", make().to_archive("a", "1", {}))
    return tmp_path / "a.mar"


def test_batches_workers_and_cache_change_nothing(class_folders: Path) -> None:
    classifier = make()
    images = load(class_folders / "val", classifier)
    one = predict(classifier, images, batch_size=1).logits
    assert one.shape == (12, 3)
    uncached = load(class_folders / "val", classifier, cache_mb=0)
    state = torch.get_rng_state()
    for found in (
        predict(classifier, images, batch_size=5),
        predict(classifier, uncached, batch_size=5, num_workers=2),
    ):
        assert found.embeddings is None
        np.testing.assert_allclose(found.logits, one, rtol=1e-4, atol=1e-6)
    assert torch.equal(torch.get_rng_state(), state), "a training goes on as if nothing had been evaluated"


@pytest.mark.parametrize("model", ["test_efficientnet", "test_vit", "test_byobnet"])
def test_embeddings_are_what_the_last_layer_sees(class_folders: Path, model: str) -> None:
    classifier = make(model)
    images = load(class_folders / "val", classifier)
    found = predict(classifier, images, batch_size=5, embeddings=True)
    assert found.embeddings is not None
    assert found.embeddings.shape == (12, classifier.net.num_features)
    last = classifier.net.get_classifier()
    np.testing.assert_allclose(
        last(torch.from_numpy(found.embeddings)).detach().numpy(), found.logits, rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(found.logits, predict(classifier, images, batch_size=12).logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("count", [11, 2])
def test_each_image_once_by_any_number_of_processes(class_folders: Path, tmp_path: Path, count: int) -> None:
    classifier = make()
    images = load(class_folders / "val", classifier, count)
    alone = predict(classifier, images, batch_size=2, embeddings=True)

    def share(url: str) -> Predictions:
        with world("cpu", url) as here:
            return predict(classifier, images, batch_size=2, world=here, embeddings=True)

    found = together(3, share, tmp_path / "meet")
    for own in found:
        np.testing.assert_array_equal(own.logits, found[0].logits)
        np.testing.assert_allclose(own.logits, alone.logits, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(own.embeddings, alone.embeddings, rtol=1e-4, atol=1e-6)


def test_output_that_is_not_finite(class_folders: Path) -> None:
    classifier = make()
    classifier.net.get_classifier().bias.data[1] = float("nan")
    with pytest.raises(CheckpointError, match=r"blue/00\.png is not finite"):
        predict(classifier, load(class_folders / "val", classifier), batch_size=4)


def test_archive_and_checkpoint_agree(class_folders: Path, served: Path, tmp_path: Path) -> None:
    classifier = make()
    content = {"classifier": settings_of(classifier.config), "model": classifier.net.state_dict()}
    save_checkpoint(tmp_path / "a.pt", "egdd", content)
    data = tmp_path / "data"
    shutil.copytree(class_folders / "val", data)
    (data / "red" / "bad.jpg").write_bytes(b"nothing")
    output = tmp_path / "new" / "report.json"
    first = evaluate(EvaluateConfig(data_path=data, archive=served, output=output))
    second = evaluate(EvaluateConfig(data_path=data, checkpoint=tmp_path / "a.pt", batch_size=12))
    assert json.loads(output.read_text()) == first
    assert (first["digest"], second["digest"]) == (archive.info(served).digest, None)
    assert first["images"] == 12
    assert first["skipped"][0]["file"] == "red/bad.jpg"
    assert first["confusion"] == second["confusion"]
    assert first["loss"] == pytest.approx(second["loss"], rel=1e-5)
    wrong = 12 - round(12 * first["accuracy"])
    assert len(first["failures"]) == wrong > 0
    beside = {f"report.{rest}" for rest in ("json", "confusion.png", "calibration.png", "failures.csv")}
    assert {p.name for p in output.parent.iterdir()} == beside
    with (output.parent / "report.failures.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [{**row, "probability": float(row["probability"])} for row in rows] == first["failures"]


def test_json_lists_the_worst_failures_the_table_all(
    class_folders: Path, served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.egdd.evaluation.FAILURES_LISTED", 2)
    report = evaluate(EvaluateConfig(data_path=class_folders / "val", archive=served, output=tmp_path / "r.json"))
    assert len(report["failures"]) == 2
    rows = (tmp_path / "r.failures.csv").read_text().splitlines()
    assert len(rows) == 1 + 12 - round(12 * report["accuracy"]) > 3


def test_export(class_folders: Path, served: Path, tmp_path: Path) -> None:
    report = evaluate(EvaluateConfig(data_path=class_folders / "val", archive=served, export=tmp_path / "new" / "a.h5"))
    classifier = make()
    images = load(class_folders / "val", classifier)
    found = predict(classifier, images, batch_size=32, embeddings=True)
    with h5py.File(tmp_path / "new" / "a.h5") as file:
        assert {name: data.shape for name, data in file.items()} == {
            "logits": (12, 3),
            "embeddings": (12, classifier.net.num_features),
            "labels": (12,),
            "predicted": (12,),
            "names": (12,),
        }
        np.testing.assert_allclose(file["logits"], found.logits, rtol=1e-5)
        np.testing.assert_allclose(file["embeddings"], found.embeddings, rtol=1e-5)
        assert file["labels"][()].tolist() == images.labels.tolist()
        assert file["predicted"][()].tolist() == found.logits.argmax(axis=1).tolist()
        assert file["names"].asstr()[()].tolist() == list(images.listing.names)
        assert file.attrs["classes"].tolist() == list(CLASSES)
        assert file.attrs["model"] == str(served)
        assert file.attrs["data_digest"] == report["data"]["digest"]


def test_shards_give_what_folders_give(class_folders: Path, served: Path, tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    shards.mkdir()
    with tarfile.open(shards / "shard-000000.tar", "w") as tar:
        for path in sorted((class_folders / "val").rglob("*.png")):
            key = f"{path.parent.name}-{path.stem}"
            for suffix, data in ((".png", path.read_bytes()), (".cls", path.parent.name.encode())):
                member = tarfile.TarInfo(key + suffix)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    of_folders = evaluate(EvaluateConfig(data_path=class_folders / "val", archive=served))
    of_shards = evaluate(EvaluateConfig(data_path=shards, archive=served))
    assert of_shards["confusion"] == of_folders["confusion"]
    assert of_shards["loss"] == pytest.approx(of_folders["loss"], rel=1e-6)
    assert of_shards["failures"][0]["file"].startswith("shard-000000.tar")


def test_summary_on_the_terminal(class_folders: Path, served: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = evaluate(EvaluateConfig(data_path=class_folders / "val", archive=served))
    said = capsys.readouterr().out
    assert f"accuracy {report['accuracy']:.4f}, loss" in said, "with 3 classes top-5 says nothing"
    assert f"calibration error {report['ece']:.4f} on 12 images" in said


def test_unusable_input(class_folders: Path, served: Path, tmp_path: Path) -> None:
    common: dict[str, Any] = {"data_path": class_folders / "val", "archive": served}
    with pytest.raises(ArchiveError):
        evaluate(EvaluateConfig(**{**common, "archive": tmp_path / "none.mar"}))
    with pytest.raises(DataError, match="There is no folder"):
        evaluate(EvaluateConfig(**{**common, "data_path": tmp_path / "none"}))
    with pytest.raises(DataError, match="must be among"):
        evaluate(EvaluateConfig(**{**common, "data_path": class_folders}))
    with pytest.raises(OptionInvalid, match="cannot be used here"):
        evaluate(EvaluateConfig(**common, device="tea"))
    (tmp_path / "file").write_text("in the way")
    for name in ("output", "export"):
        with pytest.raises(DataError, match="Cannot write"):
            evaluate(EvaluateConfig(**common, **{name: tmp_path / "file" / "a"}))
    with pytest.raises(CheckpointError, match="usable classifier"):
        classifier_of({"classifier": settings_of(make().config), "model": {}})
