"""Training on a packed cache: as on the files that it was packed from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import h5py  # type: ignore[import-untyped]
import numpy as np
import pytest
import timm
import torch

from saaa import archive
from saaa.errors import CheckpointError, DataError, OptionInvalid
from saaa.models.classifier import Classifier, ClassifierConfig
from saaa.models.guided import GuidedCaptioner
from tests.training.ega.tiny_run import eventful, signalled, weights
from tests.training.runs import losses
from tests.training.several import together
from training.cli import main
from training.ega.checkpoints import load_guided
from training.ega.train import train
from training.features import FeaturesConfig
from training.features import run as make_features
from training.features.layout import REGIONS, RUN, region_file
from training.pack import PackConfig, run
from training.pack.layout import HEAD
from training.stopping import Stopped

SIZE = 64


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive, so that all jobs have the same weights."""
    torch.manual_seed(5)
    settings: dict[str, Any] = {"architecture": "test_efficientnet", "classes": ("a", "b"), "input_size": SIZE}
    classifier = Classifier(ClassifierConfig(**settings, mean=(0.4, 0.4, 0.4), std=(0.2, 0.3, 0.2)))
    path = tmp_path_factory.mktemp("backbone") / "egdd.mar"
    archive.write(path, classifier.to_archive("egdd", "1", {}))
    return path


@pytest.fixture(scope="module")
def cache(tiny_world: Path, backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """features/ and packed/ of the tiny world, made by the jobs."""
    folder = tmp_path_factory.mktemp("cache")
    shape: dict[str, Any] = {"levels": (1, 2), "input_size": SIZE, "threads": 1, "device": "cpu"}
    source = {"backbone_archive": backbone, "pretrained": "none"}
    make_features(FeaturesConfig(data_path=tiny_world, output_dir=folder / "features", **source, **shape))
    run(PackConfig(data_path=tiny_world, features=folder / "features", output_dir=folder / "packed"))
    return folder


def test_training_on_a_cache_equals_training_on_its_files(
    cache: Path, tiny_world: Path, backbone: Path, tmp_path: Path
) -> None:
    files = train(eventful(tiny_world, tmp_path / "files", backbone_archive=backbone))
    own = train(eventful(None, tmp_path / "cache", cache=cache / "packed", backbone_archive=backbone, num_workers=2))
    assert losses(tmp_path / "cache") == pytest.approx(losses(tmp_path / "files"), abs=2e-4)
    for one, other in zip(own["epochs"], files["epochs"], strict=True):
        assert one["val/loss"] == pytest.approx(other["val/loss"], abs=2e-4)
    # Both are served with the same backbone, standardised alike.
    ours, theirs = (load_guided(tmp_path / name / "best.pt")[0].features.state_dict() for name in ("cache", "files"))
    for name, value in theirs.items():
        assert torch.allclose(ours[name], value, rtol=1e-4, atol=1e-5), name


def test_stop_and_resume_on_a_cache(cache: Path, backbone: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"cache": cache / "packed", "backbone_archive": backbone}
    train(eventful(None, tmp_path / "whole", **options))
    with signalled(7, 15), pytest.raises(Stopped):
        train(eventful(None, tmp_path / "parts", **options))
    train(eventful(None, tmp_path / "parts", **options, resume=tmp_path / "parts" / "last.pt"))
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    one, other = (weights(tmp_path / name / "last.pt") for name in ("whole", "parts"))
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_two_processes_on_a_cache(cache: Path, backbone: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"dropout": 0.0, "feature_dropout": 0.0, "scheduled_sampling": 0.0, "epochs": 1}
    options |= {"cache": cache / "packed", "backbone_archive": backbone}

    def work(url: str) -> None:
        train(eventful(None, tmp_path / "two", **options, batch_size=5, dist_url=url))

    assert together(2, work, tmp_path / "meet") == [None, None]
    train(eventful(None, tmp_path / "one", **options, batch_size=10))
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=1e-5)


def test_another_backbone_than_that_of_the_features_is_refused(cache: Path, backbone: Path, tmp_path: Path) -> None:
    def refused(says: str, **options: Any) -> None:
        with pytest.raises(DataError, match=says):
            train(eventful(None, tmp_path, cache=cache / "packed", **options))

    refused(r"made with grid 2 \(here 3\); give the backbone's options", backbone_archive=backbone, grid=3)
    refused(r"made with mean \[0.4, 0.4, 0.4\] \(here ", pretrained="none")
    content = archive.read(backbone)
    classifier = Classifier.from_archive(content)
    with torch.no_grad():
        next(classifier.parameters()).add_(1)
    archive.write(tmp_path / "other.mar", classifier.to_archive("egdd", "1", {}))
    refused("made with other weights; give", backbone_archive=tmp_path / "other.mar")


def test_a_cache_packed_for_other_limits_or_without_the_split_is_refused(
    cache: Path, backbone: Path, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"cache": cache / "packed", "backbone_archive": backbone}
    for name in ("max_nodes", "max_tokens"):
        with pytest.raises(OptionInvalid, match=f"packed with --{name} ") as caught:
            train(eventful(None, tmp_path, **options, **{name: 7}))
        assert caught.value.field == name
    with pytest.raises(DataError, match=r"has no split tst .* it has trn, val, val_sub"):
        train(eventful(None, tmp_path, **options, val_set="tst"))
    with pytest.raises(DataError, match="less than the 49 x 1 of one batch"):
        train(eventful(None, tmp_path, **options, batch_size=49))


def test_splits_of_different_features_or_words_are_refused(cache: Path, backbone: Path, tmp_path: Path) -> None:
    packed = tmp_path / "packed"
    shutil.copytree(cache / "packed", packed)
    head = json.loads((packed / "val" / HEAD).read_text())
    (packed / "val" / HEAD).write_text(json.dumps({**head, "features": None}))
    with pytest.raises(DataError, match=r"hold other features \(features\)"):
        train(eventful(None, tmp_path / "out", cache=packed, backbone_archive=backbone))
    (packed / "val" / HEAD).write_text(json.dumps(head))
    words = json.loads((packed / "val" / "words.json").read_text())
    (packed / "val" / "words.json").write_text(json.dumps([*words[:-1], "other"]))
    with pytest.raises(DataError, match="other vocabularies"):
        train(eventful(None, tmp_path / "out", cache=packed, backbone_archive=backbone))


def test_what_packing_left_out_is_told_again(
    cache: Path, tiny_world: Path, backbone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """HDF5 missing, HDF5 damaged, and a region whose box no features are of."""
    features = tmp_path / "features"
    shutil.copytree(cache / "features", features)
    region_file(features / REGIONS, "000001").unlink()
    region_file(features / REGIONS, "000002").write_bytes(b"torn")
    notes = tmp_path / "annotations"
    shutil.copytree(tiny_world / "annotations", notes)
    path = notes / "regionfiles" / "000003.json"
    content = json.loads(path.read_text())
    content["0"]["objects"][0]["x"] += 1
    path.write_text(json.dumps(content))
    run(PackConfig(data_path=tmp_path, features=features, output_dir=tmp_path / "packed"))
    capsys.readouterr()
    train(eventful(None, tmp_path / "out", cache=tmp_path / "packed", backbone_archive=backbone, epochs=1))
    assert "skipped 3: " in capsys.readouterr().out
    lines = (tmp_path / "out" / "skipped.txt").read_text()
    for why in ("There is no file", "damaged", "no features of the box"):
        assert why in lines


@pytest.fixture
def unknown(cache: Path, tmp_path: Path) -> Path:
    """A cache of published features: nobody knows what made them; those of boxes and of images are equally long."""
    features = tmp_path / "features"
    shutil.copytree(cache / "features", features)
    (features / RUN).unlink()
    rng = np.random.default_rng(0)
    for path in (features / REGIONS).glob("*.hdf5"):
        with h5py.File(path, "a") as file:
            (name,) = file
            attributes, count = dict(file[name].attrs), len(file[name])
            del file[name]
            file[name] = rng.normal(3, 2, (count, 96)).astype(np.float32)
            for key in ("boxes", "image_w", "image_h"):
                file[name].attrs[key] = attributes[key]
    for path in (features / "MP").glob("*.npy"):
        np.save(path, rng.normal(5, 2, (len(np.load(path)), 96)).astype(np.float32))
    return features


def test_features_of_unknown_origin_train_a_captioner_that_gets_a_backbone_with_its_archive(
    unknown: Path, tiny_world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(PackConfig(data_path=tiny_world, features=unknown, output_dir=tmp_path / "packed"))
    out = tmp_path / "out"
    train(eventful(None, out, cache=tmp_path / "packed", pretrained="none"))
    assert "nobody knows what made the features" in capsys.readouterr().out
    with pytest.raises(CheckpointError, match="--backbone WEIGHTS"):
        load_guided(out / "best.pt")
    torch.manual_seed(1)
    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "resnet.pth")
    words = f"archive ega --checkpoint {out / 'best.pt'} --output {tmp_path / 'ega.mar'} --model test_resnet "
    words += "--input_size 64"
    assert main(words.split()) == 2
    assert "--backbone WEIGHTS" in capsys.readouterr().err
    assert main([*words.split(), "--backbone", str(tmp_path / "resnet.pth")]) == 0
    read = archive.read(tmp_path / "ega.mar")
    assert "of unknown origin" in read.card["features"]
    guided = GuidedCaptioner.from_archive(read)
    assert guided.features.region_size == 96
    stats = torch.load(out / "best.pt", weights_only=True)["standard"]
    assert torch.allclose(guided.features.image_mean, stats["image_mean"])
    assert 4 < float(stats["image_mean"].mean()) < 6
    assert 2.5 < float(stats["region_mean"].mean()) < 3.5


def test_a_backbone_for_a_checkpoint_that_has_one_is_refused(
    cache: Path, backbone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(eventful(None, tmp_path, cache=cache / "packed", backbone_archive=backbone, epochs=1))
    words = f"archive ega --checkpoint {tmp_path / 'last.pt'} --output {tmp_path / 'a.mar'} --backbone {backbone}"
    assert main(words.split()) == 2
    assert "leave --backbone out" in capsys.readouterr().err
