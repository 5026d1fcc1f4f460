"""The whole job: right maps for right images, nothing silent, killed and shared runs equal whole ones."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from saaa import archive
from saaa.attribution import Wanted, attribute, attribute_caption
from saaa.concepts import concept_attribution
from saaa.errors import ArchiveError, DataError, OptionInvalid
from saaa.images import decode, fit
from saaa.models.classifier import Classifier
from saaa.models.guided import GuidedCaptioner
from saaa.scene_graph import SceneGraph
from saaa.work import CaptionOptions, ExplainOptions
from tests.tiny_models import CLASSES
from tests.training.attribute.conftest import PHOTOS, TEXT, TORN
from training.attribute import AttributeConfig, run
from training.cli import main


def config(data: Path, out: Path, models: Path, **options: Any) -> AttributeConfig:
    given = {"archive": models / "egdd.mar", "batch_size": 4, "threads": 1, "gallery": 0, **options}
    return AttributeConfig(data=data, out=out, **given)


def index(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "index.jsonl").read_text().splitlines()]


def grid(out: Path, record: dict[str, Any], k: int = 0) -> np.ndarray:
    with h5py.File(out / record["shard"]) as shard:
        return shard[record["maps"][k]["data"]][()]


def results(out: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in (*out.glob("index.*"), *out.glob("maps-*.h5"))}


@pytest.fixture(scope="module")
def whole(photos: Path, tiny_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run of one process, a batch an image."""
    out = tmp_path_factory.mktemp("whole") / "out"
    run(config(photos, out, tiny_models, batch_size=1))
    return out


def test_maps_are_those_of_the_model(photos: Path, tiny_models: Path, tmp_path: Path) -> None:
    """Image by image, without the job's batches."""
    content = run(config(photos, tmp_path, tiny_models, targets="top2", method="grad_cam"))
    assert content["counts"] == {"items": PHOTOS, "failed": 2, "maps": 2 * (PHOTOS - 2)}
    assert content["complete"]
    assert content["model"]["digest"] == archive.info(tiny_models / "egdd.mar").digest
    classifier = Classifier.from_archive(archive.read(tiny_models / "egdd.mar"))
    torch.set_num_threads(1)
    sound = [record for record in index(tmp_path) if record["error"] is None]
    for record in sound:
        image = decode((photos / record["file"]).read_bytes())
        pixels, geometry = fit(image, classifier.config.input_size)
        inputs = classifier.preprocess(torch.from_numpy(pixels[None]))
        logits = classifier(inputs)[0].softmax(0)
        best = logits.argsort(descending=True)[:2].tolist()
        made = attribute(classifier, inputs, [best], ExplainOptions(method="grad_cam"))
        assert [entry["target"] for entry in record["maps"]] == best
        assert [entry["name"] for entry in record["maps"]] == [CLASSES[k] for k in best]
        assert record["predictions"][0]["class"] == CLASSES[best[0]]
        assert record["covered"] == {"x": 0, "y": 0, "width": image.shape[1], "height": image.shape[0]}
        assert (geometry.width, geometry.height) == (record["width"], record["height"])
        for k, expected in enumerate(made.maps[0]):
            found = grid(tmp_path, record, k)
            assert found.dtype == np.float32
            np.testing.assert_allclose(found, expected.values, atol=2e-5 * np.abs(expected.values).max())
            assert record["maps"][k]["probability"] == pytest.approx(float(logits[best[k]]), rel=1e-4)


def test_nothing_is_silent(whole: Path, capsys: pytest.CaptureFixture[str], photos: Path, tiny_models: Path) -> None:
    failed = {r["file"]: r["error"] for r in index(whole) if r["error"] is not None}
    assert set(failed) == {TORN, TEXT}
    assert failed[TORN] == {"reason": "IMAGE_REJECTED", "message": "the JPEG data is cut off; send the complete file"}
    with (whole / "index.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == PHOTOS
    assert {row["file"] for row in rows if row["error"]} == {TORN, TEXT}
    assert all(row["predicted"] in CLASSES for row in rows if not row["error"])
    before = results(whole)
    run(config(photos, whole, tiny_models, batch_size=1))  # there already
    out = capsys.readouterr().out
    assert f"20 of {PHOTOS} explained" in out
    assert f"2 failed, such as {TORN} (the JPEG data is cut off" in out
    assert results(whole) == before


@pytest.mark.parametrize(("targets", "per_image"), [("true", 1), ("den,attic", 2)])
def test_targets(targets: str, per_image: int, photos: Path, tiny_models: Path, tmp_path: Path) -> None:
    run(config(photos, tmp_path, tiny_models, targets=targets, limit=6))
    for record in index(tmp_path):
        if record["error"] is None:
            names = [entry["name"] for entry in record["maps"]]
            assert names == ([record["label"]] if targets == "true" else ["den", "attic"])
            assert len(names) == per_image


def test_concepts_come_from_the_graph(world: Path, tiny_models: Path, tmp_path: Path) -> None:
    run(config(world, tmp_path, tiny_models, split="val_sub"))
    records = index(tmp_path)
    assert len(records) == 5
    for record in records:
        region = json.loads((world / f"annotations/regionfiles/{Path(record['file']).stem}.json").read_text())["0"]
        graph = SceneGraph.from_region(region)
        _, geometry = fit(decode((world / record["file"]).read_bytes()), 64)
        expected = concept_attribution(grid(tmp_path, record), geometry, graph)
        told = record["maps"][0]["concepts"]
        assert [(c["kind"], c["name"]) for c in told] == [(s.node.kind.name.lower(), s.node.name) for s in expected]
        np.testing.assert_allclose([c["mass"] for c in told], [s.mass for s in expected], rtol=1e-6)
    assert "score" in told[0]


def test_captions_are_explained_word_by_word(world: Path, tiny_models: Path, tmp_path: Path) -> None:
    """One region at a time, by the captioner itself, gives what the job gives."""
    run(config(world, tmp_path, tiny_models, archive=tiny_models / "ega.mar", targets="words,nodes", gallery=2))
    guided = GuidedCaptioner.from_archive(archive.read(tiny_models / "ega.mar"))
    records = index(tmp_path)
    assert len(records) == 8
    assert any(record["caption"]["words"] for record in records)
    for record in records:
        assert record["region"] == "0"
        region = json.loads((world / f"annotations/regionfiles/{Path(record['file']).stem}.json").read_text())["0"]
        graph = SceneGraph.from_region(region)
        pixels, geometry = fit(decode((world / record["file"]).read_bytes()), 64)
        role = graph.role_graph()
        role = role.with_boxes(geometry.to_input(role.boxes))
        inputs = torch.from_numpy(pixels[None])
        (caption,) = guided.caption(inputs, [role], CaptionOptions())[0]
        assert record["caption"]["words"] == list(caption.words)
        wanted = Wanted(words=tuple(range(len(caption.words))), nodes=tuple(range(len(role))))
        (made,) = attribute_caption(guided, inputs, [role], [caption.words], [wanted])
        names = [*caption.words, *(node.name for node in graph.nodes())]
        assert [(entry["kind"], entry["name"]) for entry in record["maps"]] == [
            ("word" if k < len(caption.words) else "node", name) for k, name in enumerate(names)
        ]
        for k, expected in enumerate(made):
            np.testing.assert_allclose(grid(tmp_path, record, k), expected.values, rtol=1e-4, atol=1e-6)
            weights = [concept["weight"] for concept in record["maps"][k]["concepts"]]
            np.testing.assert_allclose(weights, expected.node_weights, rtol=1e-4, atol=1e-6)


def start(options: AttributeConfig, **environment: str) -> subprocess.Popen[str]:
    """The real command in a process of its own."""
    shown = ("data", "out", "archive", "batch_size", "threads", "gallery", "workers")
    words = [f"--{name}={getattr(options, name)}" for name in shown]
    command = [sys.executable, "-m", "training", "attribute", *words]
    settings = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.Popen(command, env=settings, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def parts(out: Path, rank: int) -> list[Path]:
    """Finished batches of one of two processes."""
    return [path for path in out.glob("parts/[0-9]*.h5") if int(path.stem) % 2 == rank]


def test_two_processes_one_killed(
    whole: Path, photos: Path, tiny_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two real processes share a run, one is killed at work and goes on later: the same as an undisturbed one."""
    options = config(photos, tmp_path / "out", tiny_models, batch_size=1)
    zero, one = (start(options, RANK=rank, WORLD_SIZE="2") for rank in "01")
    try:
        until = time.monotonic() + 900  # a busy machine starts slowly
        while len(parts(options.out, 1)) < 2:
            assert one.poll() is None, one.communicate()[0]
            assert time.monotonic() < until
            time.sleep(0.002)
        one.send_signal(signal.SIGKILL)
        assert one.wait() == -signal.SIGKILL
        said = zero.communicate()[0]
    finally:
        for process in (zero, one):
            process.kill()
            process.wait()
    assert zero.returncode == 0, said
    assert "process 0 of 2 has done its share" in said
    assert not json.loads((options.out / "run.json").read_text())["complete"]
    assert len(parts(options.out, 0)) == PHOTOS // 2 > len(parts(options.out, 1))

    undisturbed = config(photos, tmp_path / "undisturbed", tiny_models, batch_size=1)
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in "01":
        monkeypatch.setenv("RANK", rank)
        run(undisturbed)
    assert run(options)["complete"]
    assert not (options.out / "parts").exists()
    assert results(options.out) == results(undisturbed.out)
    assert set(results(options.out)) >= {"maps-00000-of-00002.h5", "maps-00001-of-00002.h5"}
    for mine, other in zip(index(options.out), index(whole), strict=True):
        assert {**mine, "shard": None} == {**other, "shard": None}
        if mine["error"] is None:
            assert grid(options.out, mine).tobytes() == grid(whole, other).tobytes()


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"method": "rice"}, OptionInvalid, "'rice' is not offered by tiny-egdd; choose one of auto"),
        ({"steps": 0}, OptionInvalid, "steps is 0"),
        ({"gamma": 2.0}, OptionInvalid, "gamma is 2"),
        ({"targets": "kitchen"}, OptionInvalid, "no class 'kitchen'"),
        ({"effects": True}, OptionInvalid, "--effects measures the regions of a graph"),
        ({"archive": Path("none.mar")}, ArchiveError, "no such archive"),
        ({"kind": "ega"}, DataError, "A captioner is guided by graphs"),
        ({"kind": "ega", "effects": True}, OptionInvalid, "effects are measured of classes"),
        ({"kind": "ega", "targets": "true"}, OptionInvalid, "of a captioner choose"),
        ({"inside": True}, OptionInvalid, "lies inside data"),
    ],
)
def test_refused_before_any_computing(
    options: dict[str, Any], error: type[Exception], says: str, photos: Path, tiny_models: Path, tmp_path: Path
) -> None:
    out = photos / "out" if options.pop("inside", False) else tmp_path / "out"
    if (kind := options.pop("kind", None)) is not None:
        options["archive"] = tiny_models / f"{kind}.mar"
    with pytest.raises(error, match=says):
        run(config(photos, out, tiny_models, **options))
    assert not out.exists()


def test_not_one_can_be_explained(tiny_models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "data").mkdir()
    for name in "ab":
        (tmp_path / "data" / f"{name}.jpg").write_bytes(b"no picture")
    words = [f"--data={tmp_path / 'data'}", f"--out={tmp_path / 'out'}", f"--archive={tiny_models / 'egdd.mar'}"]
    assert main(["attribute", *words]) == 2
    assert "Not one of 2 could be explained: a.jpg (the bytes are not a picture" in capsys.readouterr().err
    assert len(index(tmp_path / "out")) == 2
    assert "2 failed" in (tmp_path / "out/gallery.html").read_text()


def test_other_options_in_the_folder(whole: Path, photos: Path, tiny_models: Path) -> None:
    before = results(whole)
    for other in ({"targets": "true"}, {"limit": 3}, {"batch_size": 2}):
        with pytest.raises(OptionInvalid, match=f"holds a run with .*{next(iter(other))}"):
            run(config(photos, whole, tiny_models, **{"batch_size": 1, **other}))
    assert results(whole) == before


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"workers": 0}, {"limit": 0}, {"gallery": -1}, {"threads": 0}])
def test_configuration(wrong: dict[str, int], tmp_path: Path) -> None:
    with pytest.raises(OptionInvalid, match=next(iter(wrong))):
        config(tmp_path, tmp_path, tmp_path, **wrong)
