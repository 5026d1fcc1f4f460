import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from saaa.errors import DataError, OptionInvalid
from saaa.images import decode, fit
from saaa.scene_graph import Box
from tests.training.ega.tiny_world import SIZE, make
from training.cli import main
from training.ega.backbone import make_extractor
from training.ega.published import AnnotationFolder, Skipped
from training.features import FeaturesConfig, run
from training.features.layout import read_global, read_image, read_own, region_file, write_image

SIZES = {"trn": 5, "val": 2}


@pytest.fixture
def world(tmp_path):
    torch.manual_seed(0)
    return make(tmp_path / "world", SIZES)


def config(world, **options):
    given = {"output_dir": world.parent / "out", "model": "test_resnet", "pretrained": "none", "levels": (1, 2)}
    return FeaturesConfig(data_path=world, **{**given, "batch_size": 3, "input_size": 64, "device": "cpu", **options})


@pytest.fixture(autouse=True)
def one_set_of_weights(monkeypatch):
    """Untrained weights are drawn anew for each network; the runs of a test must have the same."""
    import training.features.job as job

    def seeded(options):
        torch.manual_seed(7)
        return make_extractor(options)

    monkeypatch.setattr(job, "make_extractor", seeded)


def test_files_are_in_the_published_layout(world, capsys):
    report = run(config(world))
    out = world.parent / "out"
    assert (report["images"], report["complete"], report["skipped"]) == (7, True, 0)
    assert "7 images" in capsys.readouterr().out
    with h5py.File(out / "SA" / "000001.jpg.hdf5") as file:
        assert list(file) == ["000001.jpg"]
        data = file["000001.jpg"]
        assert (data.dtype, data.attrs["boxes"].dtype) == (np.float32, np.int32)
        assert (data.attrs["image_w"], data.attrs["image_h"]) == (SIZE, SIZE)
        region = json.loads((world / "annotations" / "regionfiles" / "000001.json").read_text())["0"]
        one, two = ((o["x"], o["y"], o["x"] + o["w"] - 1, o["y"] + o["h"] - 1) for o in region["objects"])
        union = (*np.minimum(one[:2], two[:2]), *np.maximum(one[2:], two[2:]))
        assert {tuple(box) for box in data.attrs["boxes"].tolist()} == {one, two, tuple(map(int, union))}
        assert data.shape == (3, report["region_size"])
    trn = np.load(out / "MP" / "trn_ft.npy")
    assert (trn.shape, trn.dtype) == ((5, report["image_size"]), np.float32)


def test_features_are_the_extractors(world):
    run(config(world))
    torch.manual_seed(7)
    extractor = make_extractor(config(world))
    notes = AnnotationFolder(world / "annotations")
    for split in SIZES:
        rows = read_global(world.parent / "out" / "MP", split, SIZES[split])
        for row, region in zip(rows, notes.regions(split, Skipped()), strict=True):
            path = next(world.rglob(region.file_name))
            pixels, geometry = fit(decode(path.read_bytes()), 64)
            stored = read_image(world.parent / "out" / "SA", region.image_id)
            left, top, right, bottom = stored.boxes.T.astype(int)
            boxes = [Box(*b).ltrb() for b in zip(left, top, right - left + 1, bottom - top + 1, strict=True)]
            found, image = extractor(torch.from_numpy(pixels)[None], [torch.from_numpy(geometry.to_input(boxes))])
            assert_allclose(stored.features, found.numpy(), atol=1e-5)
            assert_allclose(row, image[0].numpy(), atol=1e-5)


def files(folder):
    return {p.relative_to(folder): p.stat().st_mtime_ns for p in folder.rglob("*.hdf5")}


def test_a_stopped_run_goes_on_with_the_same_features(world, capsys):
    run(config(world))
    out = world.parent / "out"
    before, first = files(out), read_image(out / "SA", "000002").features
    # The second batch is lost, and with it the summary.
    region_file(out / "SA", "000005").write_bytes(b"torn")
    (out / "MP" / "trn_ft.npy").unlink()
    report = run(config(world))
    assert "goes on: 2 of 3 batches are done" in capsys.readouterr().out
    assert report["complete"]
    after = files(out)
    assert {p.name for p in before if before[p] != after[p]} == {f"00000{k}.jpg.hdf5" for k in (4, 5, 6)}
    run(config(world, output_dir=world.parent / "again"))
    for image in ("000002", "000005"):
        again = read_image(world.parent / "again" / "SA", image).features
        assert_array_equal(read_image(out / "SA", image).features, again)
    assert_array_equal(first, read_image(out / "SA", "000002").features)
    assert_array_equal(np.load(out / "MP" / "trn_ft.npy"), np.load(world.parent / "again" / "MP" / "trn_ft.npy"))


def test_new_regions_are_added_to_what_is_there(world):
    run(config(world))
    path = world / "annotations" / "regionfiles" / "000003.json"
    content = json.loads(path.read_text())
    content["0"]["objects"][0]["x"] = 1
    path.write_text(json.dumps(content))
    before = files(world.parent / "out")
    run(config(world))
    after = files(world.parent / "out")
    assert {p.name for p in before if before[p] != after[p]} == {f"00000{k}.jpg.hdf5" for k in (1, 2, 3)}
    own = read_own(world.parent / "out" / "SA", "000003")
    assert own is not None
    assert any(box[0] == 1 for box in own[0])


def test_images_that_cannot_be_read_are_named_and_the_rest_is_kept(world, capsys):
    (world / "trn" / "scene" / "000002.jpg").write_bytes(b"no image")
    (world / "val" / "scene" / "000007.jpg").unlink()
    report = run(config(world))
    out = world.parent / "out"
    assert (report["images"], report["skipped"]) == (5, 2)
    reasons = (out / "skipped.txt").read_text().splitlines()
    assert reasons[0].startswith("image 000002: ")
    assert reasons[1].startswith("image 000007: there is no 000007.jpg")
    assert "skipped 2" in capsys.readouterr().out
    assert not region_file(out / "SA", "000002").exists()
    missing = np.isnan(np.load(out / "MP" / "trn_ft.npy")).all(1)
    assert missing.tolist() == [False, True, False, False, False]


def test_other_weights_and_other_folders_are_refused(world):
    run(config(world))
    with pytest.raises(OptionInvalid, match="input_size"):
        run(config(world, input_size=96))
    run(config(world, input_size=96, overwrite=True))
    (world.parent / "full").mkdir()
    (world.parent / "full" / "mine.txt").write_text("keep")
    with pytest.raises(DataError, match="something else"):
        run(config(world, output_dir=world.parent / "full"))
    with pytest.raises(DataError, match="has no absent"):
        run(config(world, splits=("absent",), output_dir=world.parent / "new"))
    with pytest.raises(OptionInvalid, match="belong to"):
        config(world, pretrained="efficientnet_lite0")


def test_not_one_image_is_an_error(world):
    for path in world.rglob("*.jpg"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match="Not one of 7"):
        run(config(world))


def test_only_the_splits_asked_for(world):
    report = run(config(world, splits=("val",)))
    assert (report["splits"], report["images"]) == ({"val": 2}, 2)


def test_the_command(world):
    options = [f"--data_path={world}", f"--output_dir={world.parent / 'out'}", "--model", "test_resnet"]
    more = ["--pretrained", "none", "--levels", "1", "2", "--input_size", "64", "--device", "cpu"]
    assert main(["features", *options, *more, "--splits", "val"]) == 0
    assert (world.parent / "out" / "MP" / "val_ft.npy").is_file()
    assert main(["features", *options]) == 2  # its weights are those of another model


def test_layout_names_what_is_wrong(tmp_path):
    with pytest.raises(DataError, match="There is no file"):
        read_image(tmp_path, "a/1")
    write_image(
        tmp_path, "a/1", np.zeros((1, 4), np.int32), np.ones((1, 3), np.float32), np.ones(2, np.float32), (4, 5)
    )
    assert region_file(tmp_path, "a/1").name == "a_1.jpg.hdf5"
    assert read_image(tmp_path, "a/1").features.shape == (1, 3)
    region_file(tmp_path, "b").write_bytes(b"torn")
    with pytest.raises(DataError, match="damaged"):
        read_image(tmp_path, "b")
    region_file(tmp_path, "a/1").rename(region_file(tmp_path, "c"))
    with pytest.raises(DataError, match="damaged or not in the published layout"):
        read_image(tmp_path, "c")
    with pytest.raises(DataError, match="There is no file"):
        read_global(tmp_path, "trn", 2)
    np.save(tmp_path / "trn_ft.npy", np.zeros((3, 2), np.float32))
    with pytest.raises(DataError, match="each of the 2 images"):
        read_global(tmp_path, "trn", 2)


def test_many_boxes_fit_into_an_attribute(tmp_path):
    boxes = np.arange(40_000, dtype=np.int32).reshape(-1, 4)
    write_image(tmp_path, "x", boxes, np.zeros((10_000, 1), np.float32), np.ones(1, np.float32), (1, 1))
    assert_array_equal(read_image(tmp_path, "x").boxes, boxes)


SCRIPT = """
import sys, torch
from pathlib import Path
from training.features import FeaturesConfig, run
import training.features.job as job
make = job.make_extractor
def seeded(options):
    torch.manual_seed(7)
    return make(options)
job.make_extractor = seeded
run(FeaturesConfig(data_path=Path(sys.argv[1]), output_dir=Path(sys.argv[2]), model="test_resnet", pretrained="none",
    levels=(1, 2), batch_size=int(sys.argv[3]), input_size=64, device="cpu", threads=1))
"""


def start(world, out, batch, *, processes=1):
    script = world.parent / "job.py"
    script.write_text(SCRIPT)
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"] if processes > 1 else []
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path.cwd())}
    return subprocess.Popen(
        [sys.executable, *launcher, str(script), str(world), str(out), str(batch)],
        env=environment,
        start_new_session=True,
    )


@pytest.mark.slow
def test_two_processes_give_the_same_features_as_one(world):
    out = world.parent / "two"
    assert start(world, out, 3, processes=2).wait(timeout=300) == 0
    run(config(world))
    for split in SIZES:
        assert_array_equal(
            np.load(out / "MP" / f"{split}_ft.npy"), np.load(world.parent / "out" / "MP" / f"{split}_ft.npy")
        )
    assert {p.name for p in files(out)} == {p.name for p in files(world.parent / "out")}


@pytest.mark.slow
def test_a_killed_run_leaves_whole_files_only(tmp_path):
    world = make(tmp_path / "world", {"trn": 60})
    out = tmp_path / "out"
    process = start(world, out, 1)
    deadline = time.monotonic() + 120
    while len(list((out / "SA").glob("0*.hdf5"))) < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    done = [p.name.removesuffix(".jpg.hdf5") for p in (out / "SA").glob("0*.hdf5")]
    assert 5 <= len(done) < 60
    assert all(read_own(out / "SA", image) is not None for image in done)
    report = run(config(world, output_dir=out, batch_size=1, threads=1))
    assert (report["images"], report["complete"]) == (60, True)
