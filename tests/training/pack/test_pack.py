import json
import shutil

import h5py
import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from torch.testing import assert_close

from saaa.errors import DataError, OptionInvalid
from saaa.models.captioner.config import MAX_WORDS_LIMIT
from saaa.models.captioner.graphs import collate
from tests.training.ega.tiny_world import make
from training.cli import main
from training.ega.config import MAX_TOKENS
from training.ega.dataset import CaptionSet, RegionFeatures
from training.ega.published import AnnotationFolder, Skipped
from training.features.job import graph_boxes
from training.features.layout import region_file, write_image
from training.pack import PackConfig, run
from training.pack.reader import PackedSet

SIZES = {"trn": 6, "val": 2}
WIDTH, GLOBAL = 5, 3


@pytest.fixture
def world(tmp_path):
    """A tiny world with features that are random, but for each box its own."""
    world = make(tmp_path / "world", SIZES)
    features = world.parent / "features"
    rng = np.random.default_rng(0)
    notes = AnnotationFolder(world / "annotations")
    for split in SIZES:
        regions = notes.regions(split, Skipped())
        rows = rng.normal(size=(len(regions), GLOBAL)).astype(np.float32)
        (features / "MP").mkdir(parents=True, exist_ok=True)
        np.save(features / "MP" / f"{split}_ft.npy", rows)
        for region, row in zip(regions, rows, strict=True):
            # Boxes of no region, too: real files hold those of all regions of an image.
            boxes = np.array([(0, 0, 1, 1), *graph_boxes(region.graph), (5, 5, 60, 60)], np.int32)
            found = rng.normal(size=(len(boxes), WIDTH)).astype(np.float32)
            write_image(features / "SA", region.image_id, boxes, found, row, (64, 64))
    return world


def config(world, **options):
    return PackConfig(
        data_path=world, features=world.parent / "features", output_dir=world.parent / "packed", **options
    )


def packed(world, split="trn", **options):
    report = run(config(world, **options))[split]
    return PackedSet(world.parent / "packed" / split), report


def looked_up(world, split, *, max_nodes=10, max_tokens=25):
    """The same split in memory, features looked up box by box as the published reader does."""
    notes = AnnotationFolder(world / "annotations")
    regions = notes.regions(split, Skipped())
    graphs = [region.graph.role_graph(max_nodes) for region in regions]
    nodes, starts = [], [0]
    for region, graph in zip(regions, graphs, strict=True):
        with h5py.File(region_file(world.parent / "features" / "SA", region.image_id)) as file:
            data = file[f"{region.image_id}.jpg"]
            by_box = dict(zip(map(tuple, data.attrs["boxes"].tolist()), data[...], strict=True))
        for left, top, right, bottom in graph.boxes.astype(int).tolist():
            nodes.append(by_box[left, top, right - 1, bottom - 1])
        starts.append(len(nodes))
    rows = torch.from_numpy(np.load(world.parent / "features" / "MP" / f"{split}_ft.npy"))
    features = RegionFeatures(
        nodes=torch.from_numpy(np.stack(nodes)),
        starts=torch.tensor(starts),
        image=rows,
        image_of=torch.arange(len(regions)),
    )
    return CaptionSet(regions, graphs, features, notes.vocabulary(), max_tokens, aligned=True)


def same_batches(one, two):
    assert len(one) == len(two)
    for rows in (torch.arange(len(one)), torch.tensor([3]), torch.tensor([4, 0, 4, 1])):
        mine, other = one.batch(rows, "cpu"), two.batch(rows, "cpu")
        mask = other.graphs.mask
        assert_close(mine.regions[mask], other.regions[mask], rtol=0, atol=0)
        for name in ("types", "orders", "mask", "relations", "flow"):
            assert_close(getattr(mine.graphs, name), getattr(other.graphs, name), rtol=0, atol=0)
        for name in ("image", "captions", "lengths", "names", "named"):
            assert_close(getattr(mine, name), getattr(other, name), rtol=0, atol=0)


@pytest.mark.parametrize("max_nodes", [10, 4, 1])
def test_batches_are_those_of_the_published_files(world, max_nodes):
    mine, report = packed(world, max_nodes=max_nodes)
    other = looked_up(world, "trn", max_nodes=max_nodes)
    same_batches(mine, other)
    assert report["graphs_cut"] == (6 if max_nodes < 5 else 0)
    assert mine.name_count == other.name_count
    assert [(r.image_id, r.graph, r.captions) for r in mine.regions] == [
        (r.image_id, r.graph, r.captions) for r in other.regions
    ]
    assert mine.vocabulary == AnnotationFolder(world / "annotations").vocabulary()


def test_an_epoch_is_that_of_the_set_in_memory(world):
    mine, other = packed(world)[0], looked_up(world, "trn")
    for size, each in ((4, None), (3, 1)):
        orders = [list(s.epoch(size, each, torch.Generator().manual_seed(2))) for s in (mine, other)]
        assert [o.tolist() for o in orders[0]] == [o.tolist() for o in orders[1]]


def test_a_box_that_several_nodes_have_is_stored_once(world):
    # Two objects with an attribute each and a relationship: five nodes, three boxes.
    report = packed(world)[1]
    assert (report["regions"], report["nodes"], report["rows"]) == (6, 30, 18)
    assert (report["captions"], report["images"], report["region_size"], report["image_size"]) == (12, 6, WIDTH, GLOBAL)


def test_a_cut_caption_and_unknown_words_are_counted(world, capsys):
    path = world / "annotations" / "cleaned_trn_region_descriptions.json"
    said = json.loads(path.read_text())
    said["000001"]["0"] = ["a zebra beside a zebra", "a red ball"]
    path.write_text(json.dumps(said))
    mine, report = packed(world, max_tokens=6)
    same_batches(mine, looked_up(world, "trn", max_tokens=6))
    assert report["captions_cut"] == 11  # all but "a red ball"
    assert report["unknown_most_frequent"] == {"zebra": 2}
    printed = capsys.readouterr().out
    assert "2 of " in printed
    assert "words unknown (zebra)" in printed
    assert "11 captions cut to 6 tokens" in printed


def region_of(world, image, change):
    path = world / "annotations" / "regionfiles" / f"{image}.json"
    content = json.loads(path.read_text())
    change(content["0"])
    path.write_text(json.dumps(content))


def test_bad_input_is_named_and_packing_goes_on(world, capsys):
    features = world.parent / "features"
    region_of(world, "000001", lambda r: r.update(objects=[]))
    region_of(world, "000002", lambda r: r["objects"][0].update(x=r["objects"][0]["x"] + 2))
    region_of(world, "000003", lambda r: r["relationships"][0].update(subject_id=77))
    region_of(world, "000004", lambda r: r["objects"][0].update(attributes=["red"] * 20))
    region_file(features / "SA", "000005").write_bytes(b"torn")
    (world / "annotations" / "regionfiles" / "000007.json").unlink()
    reports = run(config(world))
    reasons = (world.parent / "packed" / "trn" / "skipped.txt").read_text().splitlines()
    expected = {
        "000001": "objects: the graph has no object",
        "000002": "there are no features of the box",
        "000003": "refers to object 77",
        "000004": "20 attributes; keep at most 19",
        "000005": "damaged",
    }
    assert len(reasons) == len(expected) == reports["trn"]["skipped"]
    for image, reason in expected.items():
        assert any(image in line and reason in line for line in reasons), image
    assert "2 pixels off" in "".join(reasons)
    assert [r.image_id for r in PackedSet(world.parent / "packed" / "trn").regions] == ["000006"]
    assert "There is no file" in (world.parent / "packed" / "val" / "skipped.txt").read_text()
    assert "skipped 5 regions" in capsys.readouterr().out


def test_images_without_features_and_images_outside_the_split_are_named(world):
    features, split = world.parent / "features", world / "annotations" / "public_split" / "trn_names.npy"
    region_file(features / "SA", "000001").unlink()
    rows = np.load(features / "MP" / "trn_ft.npy")
    rows[1] = np.nan
    np.save(features / "MP" / "trn_ft.npy", rows[:5])
    np.save(split, np.load(split)[:5])
    with h5py.File(region_file(features / "SA", "000003"), "a") as file:
        file["000003.jpg"][...] = np.inf
    run(config(world))
    reasons = (world.parent / "packed" / "trn" / "skipped.txt").read_text()
    for reason in ("There is no file", "global features are not all", "the features of the box", "does not list"):
        assert reason in reasons, reason
    assert [r.image_id for r in PackedSet(world.parent / "packed" / "trn").regions] == ["000004", "000005"]


def test_float_boxes_match_and_clipped_ones_do_on_request(world):
    target = world.parent / "features" / "SA"
    with h5py.File(region_file(target, "000001"), "a") as file:
        boxes = file["000001.jpg"].attrs["boxes"]
        file["000001.jpg"].attrs["boxes"] = boxes.astype(np.float32)
    with h5py.File(region_file(target, "000002"), "a") as file:
        file["000002.jpg"].attrs["boxes"] = file["000002.jpg"].attrs["boxes"] - np.array([0, 0, 1, 0])
    _, report = packed(world)
    assert (report["skipped"], report["boxes_inexact"]) == (1, 0)
    mine, report = packed(world, box_tolerance=1)
    assert (report["skipped"], report["boxes_inexact"]) == (0, 1)
    assert len(mine.regions) == 6


def test_files_that_are_wrong_as_a_whole_are_an_error(world):
    target = world.parent / "features" / "MP" / "trn_ft.npy"
    rows = np.load(target)
    np.save(target, rows[:-1])
    with pytest.raises(DataError, match="each of the 6 images"):
        run(config(world))
    np.save(target, rows)
    for path in (world.parent / "features" / "SA").iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"No region of the split trn.*skipped 6"):
        run(config(world))
    with pytest.raises(DataError, match="has no absent"):
        run(config(world, splits=("absent",)))
    assert not (world.parent / "packed" / "trn").exists()


def test_a_cache_is_replaced_and_nothing_else_is(world):
    packed(world)
    before = sorted(p.name for p in (world.parent / "packed" / "trn").iterdir())
    packed(world)
    assert sorted(p.name for p in (world.parent / "packed" / "trn").iterdir()) == before
    shutil.rmtree(world.parent / "packed")
    (world.parent / "packed" / "trn").mkdir(parents=True)
    (world.parent / "packed" / "trn" / "mine.txt").write_text("keep")
    with pytest.raises(DataError, match="something else"):
        run(config(world))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("pack.json", None, "no whole cache"),
        ("pack.json", b'{"format": 0}', "has format 0"),
        ("edges.npy", b"torn", "no whole cache"),
        ("features.f32", b"\0" * 8, "no whole cache"),
        ("words.json", b"[", "no whole cache"),
    ],
)
def test_a_damaged_cache_is_refused(world, name, content, message):
    packed(world)
    path = world.parent / "packed" / "trn" / name
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        PackedSet(path.parent)


def test_graphs_of_any_shape_have_the_matrices_of_collate(world):
    mine, _ = packed(world)
    regions = torch.tensor([2, 0, 5])
    _, _, graphs = mine.inputs(regions, "cpu")
    other = collate([mine.regions[k].graph.role_graph(10) for k in regions])
    for name in ("types", "orders", "mask", "relations", "flow"):
        assert_array_equal(getattr(graphs, name), getattr(other, name))


def test_the_command(world):
    given = {"data_path": world, "features": world.parent / "features", "output_dir": world.parent / "packed"}
    options = [f"--{name}={path}" for name, path in given.items()]
    assert main(["pack", *options, "--splits", "trn", "val"]) == 0
    assert {p.name for p in (world.parent / "packed").iterdir()} == {"trn", "val"}
    assert main(["pack", *options, "--splits", "absent"]) == 2


def test_the_longest_caption_is_that_of_the_captioner():
    assert MAX_TOKENS == MAX_WORDS_LIMIT + 2


@pytest.mark.parametrize("options", [{"max_nodes": 0}, {"max_nodes": 300}, {"max_tokens": 2}, {"box_tolerance": -1}])
def test_options_outside_their_range(tmp_path, options):
    with pytest.raises(OptionInvalid):
        PackConfig(data_path=tmp_path, features=tmp_path, output_dir=tmp_path, **options)


def test_what_made_the_features_is_noted_and_published_features_are_of_unknown_origin(world):
    assert packed(world)[1]["features"] is None
    note = world.parent / "features" / "features.json"
    note.write_text(json.dumps({"job": "features", "identity": {"architecture": "resnet101", "weights": "00ff"}}))
    mine, report = packed(world)
    assert report["features"] == mine.head["features"] == {"architecture": "resnet101", "weights": "00ff"}
    apart = packed(world, region_features=world.parent / "features" / "SA")[1]
    assert apart["features"] is None, "these may be of anyone"
    note.write_text("[]")
    with pytest.raises(DataError, match=r"features.json is not of saaa-train features"):
        packed(world)


def test_features_are_standardised_over_all_nodes_and_all_images(world):
    """As `FeatureExtractor.standardise_by` does it: a box that two nodes have counts twice."""
    mine, _ = packed(world)
    other = looked_up(world, "trn")
    standard = mine.standard()
    nodes, image = other.features.nodes, other.features.image
    for found, mean, scale in (
        (nodes, standard.region_mean, standard.region_scale),
        (image, standard.image_mean, standard.image_scale),
    ):
        assert_close(mean, found.mean(0), rtol=1e-5, atol=1e-6)
        assert_close(scale, found.std(0, correction=0), rtol=1e-5, atol=1e-6)
    mine.standardise(standard)
    regions, whole, graphs = mine.inputs(torch.arange(6), "cpu")
    assert_close(regions[graphs.mask].mean(0), torch.zeros(WIDTH), rtol=0, atol=1e-5)
    assert_close(whole.std(0, correction=0), torch.ones(GLOBAL), rtol=0, atol=1e-5)
    assert_close(mine.features[0], torch.from_numpy(np.fromfile(mine.folder / "features.f32", "<f4", WIDTH)))
