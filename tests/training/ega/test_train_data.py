"""What is trained on: features as serving makes them, and bad input counted, named and told."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from saaa import archive
from saaa.errors import DataError
from saaa.models.classifier import Classifier, ClassifierConfig
from tests.training.ega.tiny_run import config_for, load
from tests.training.ega.tiny_world import make
from training.ega import run as train
from training.ega.checkpoints import load_guided
from training.ega.dataset import cached, extract, load_input
from training.ega.published import AnnotationFolder, ImageFolder, Skipped


@pytest.fixture
def own_world(tmp_path: Path) -> Path:
    """A world to be changed by the test."""
    return make(tmp_path / "world", {"trn": 6, "val": 2})


def change(world: Path, image: str, how: Callable[[dict[str, Any]], object]) -> None:
    """Change the region of an image."""
    path = world / "annotations" / "regionfiles" / f"{image}.json"
    content = json.loads(path.read_text())
    how(content["0"])
    path.write_text(json.dumps(content))


def test_bad_input_is_counted_and_named_and_training_goes_on(
    own_world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(own_world, "000001", lambda region: region.update(objects=[]))
    change(own_world, "000002", lambda region: region["objects"][0].update(attributes=["red"] * 20))
    change(own_world, "000003", lambda region: region["relationships"][0].update(object_id=77))
    (own_world / "trn" / "scene" / "000004.jpg").unlink()
    (own_world / "annotations" / "regionfiles" / "000007.json").write_text("{")
    captions = own_world / "annotations" / "cleaned_trn_region_descriptions.json"
    said = json.loads(captions.read_text())
    said["000005"]["0"] = ["a zebra beside a zebra and a ball", "a red ball"]
    captions.write_text(json.dumps(said))
    train(config_for(own_world, tmp_path / "out", batch_size=2, epochs=1, max_tokens=9, max_nodes=4))
    expected = {
        "region 0 of image 000001": "the graph has no object",
        "region 0 of image 000002": "20 attributes; keep at most 19",
        "region 0 of image 000003": "refers to object 77",
        "region 0 of image 000004": "there is no such image",
        "region 0 of image 000007": "cannot be read as JSON",
    }
    lines = (tmp_path / "out" / "skipped.txt").read_text().splitlines()
    assert len(lines) == len(expected)
    for what, why in expected.items():
        assert any(what in line and why in line for line in lines), what
    told = capsys.readouterr().out
    assert "skipped 5: " in told
    assert "trn: 2 graphs cut to 4 nodes" in told
    assert "captions cut to 9 tokens" in told
    assert "words unknown (zebra" in told


def test_nothing_left_is_an_error(own_world: Path, tmp_path: Path) -> None:
    for image in ("000007", "000008"):
        change(own_world, image, lambda region: region.update(objects=[]))
    with pytest.raises(DataError, match="leaves no usable region"):
        train(config_for(own_world, tmp_path / "out", batch_size=2))


def test_missing_data_is_named(tiny_world: Path, own_world: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no annotation folder"):
        train(config_for(tmp_path / "nowhere", tmp_path))
    with pytest.raises(DataError, match="absent_names"):
        train(config_for(tiny_world, tmp_path, train_set="absent"))
    shutil.move(own_world / "trn", tmp_path / "gone")
    with pytest.raises(DataError, match="None of the images"):
        train(config_for(own_world, tmp_path / "out", batch_size=2))


@pytest.mark.parametrize("how", [{}, {"jitter": 0.5}])
def test_a_damaged_image_costs_its_regions_only(own_world: Path, tmp_path: Path, how: dict[str, Any]) -> None:
    picture = own_world / "trn" / "scene" / "000001.jpg"
    picture.write_bytes(picture.read_bytes()[:-200])  # its header is sound
    out = tmp_path / "out"
    train(config_for(own_world, out, batch_size=2, **how))
    reason = f"region 0 of image 000001: {picture} cannot be read as an image"
    (line,) = (out / "skipped.txt").read_text().splitlines()
    assert line.startswith(reason)
    assert load(config_for(own_world, out, batch_size=2, **how)).train.captions.shape[0] == 5 * 2


def test_only_damaged_images_are_an_error(own_world: Path, tmp_path: Path) -> None:
    for picture in (own_world / "trn" / "scene").glob("*.jpg"):
        picture.write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"None of the images .* can be used\. skipped 6: .*cannot be read as an image"):
        train(config_for(own_world, tmp_path / "out", batch_size=2))


def test_long_captions_and_graphs_are_cut_and_reported(
    tiny_world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = load(config_for(tiny_world, tmp_path, max_tokens=6, max_nodes=3))
    assert data.train.captions.shape[1] == 6
    assert data.train.inputs(torch.arange(24), "cpu")[0].shape[1] == 3
    said = capsys.readouterr().out
    assert "trn: 48 captions cut to 6 tokens" in said
    assert "trn: 24 graphs cut to 3 nodes" in said


def test_features_are_those_of_serving(tiny_world: Path, tmp_path: Path) -> None:
    """What training read from its cache and standardised is what the served model computes of the same picture."""
    config = config_for(tiny_world, tmp_path, epochs=1)
    train(config)
    guided, _ = load_guided(tmp_path / "best.pt")
    val = load(config).val
    region = val.regions[2]
    folder = ImageFolder(tiny_world, {region.file_name for region in val.regions})
    pixels, geometry = load_input(folder.paths[region.file_name], guided.features.config)
    graph = region.graph.role_graph()
    boxes = torch.from_numpy(geometry.to_input(graph.boxes)).float()
    nodes, image = guided.features(torch.from_numpy(pixels)[None], [boxes])
    mine, mine_image, _ = val.inputs(torch.tensor([2]), "cpu")
    assert torch.allclose(nodes, mine[0, : len(graph)], rtol=1e-3, atol=1e-3)
    assert torch.allclose(image, mine_image, rtol=1e-3, atol=1e-3)


def test_the_cache_is_used_only_while_it_fits(tiny_world: Path, tmp_path: Path) -> None:
    extractor = load(config_for(tiny_world, tmp_path / "out")).extractor
    assert extractor is not None
    regions = AnnotationFolder(tiny_world / "annotations").regions("val", Skipped())
    graphs = [region.graph.role_graph() for region in regions]
    folder = ImageFolder(tiny_world, {region.file_name for region in regions})
    cache = tmp_path / "cache"
    first = cached(cache, extractor, regions, graphs, folder).image.clone()
    np.save(cache / "image.npy", np.zeros_like(first.numpy()))  # leaves a trace if the cache is read
    assert not cached(cache, extractor, regions, graphs, folder).image.any()
    moved = [graph.with_boxes(graph.boxes + 1) for graph in graphs]
    assert cached(cache, extractor, regions, moved, folder).image.any()
    (cache / "nodes.npy").write_bytes(b"cut")
    assert torch.equal(cached(cache, extractor, regions, moved, folder).image, first)


def test_extraction_keeps_regions_apart_when_images_repeat(tiny_world: Path, tmp_path: Path) -> None:
    """Regions of one image that do not follow each other still get the rows of their own boxes."""
    extractor = load(config_for(tiny_world, tmp_path)).extractor
    assert extractor is not None
    regions = AnnotationFolder(tiny_world / "annotations").regions("val", Skipped())
    folder = ImageFolder(tiny_world, {region.file_name for region in regions})
    shuffled = [regions[0], regions[1], regions[0], regions[2]]
    graphs = [region.graph.role_graph(limit) for region, limit in zip(shuffled, (10, 3, 2, 1), strict=True)]
    together = extract(extractor, shuffled, graphs, folder)
    for row in range(4):
        alone = extract(extractor, shuffled[row : row + 1], graphs[row : row + 1], folder)
        mine = together.nodes[together.starts[row] : together.starts[row + 1]]
        assert torch.allclose(mine, alone.nodes, rtol=1e-4, atol=1e-4)
        assert torch.allclose(together.image[together.image_of[row]], alone.image[0], rtol=1e-4, atol=1e-4)


def test_an_epoch_holds_every_caption_once_or_as_many_as_asked(tiny_world: Path, tmp_path: Path) -> None:
    captions = load(config_for(tiny_world, tmp_path)).train
    everything = torch.cat(list(captions.epoch(7, None, torch.Generator().manual_seed(1))))
    assert sorted(everything.tolist()) == list(range(len(captions)))
    drawn = torch.cat(list(captions.epoch(7, 1, torch.Generator().manual_seed(1))))
    assert sorted(captions.region_of[drawn].tolist()) == list(range(24))
    again = torch.cat(list(captions.epoch(7, 1, torch.Generator().manual_seed(2))))
    assert set(again.tolist()) != set(drawn.tolist())


def test_the_backbone_of_an_egdd_archive_is_taken(tiny_world: Path, tmp_path: Path) -> None:
    torch.manual_seed(5)
    classifier = Classifier(
        ClassifierConfig(
            architecture="test_efficientnet",
            classes=("a", "b"),
            input_size=48,
            mean=(0.4, 0.4, 0.4),
            std=(0.2, 0.3, 0.2),
        )
    )
    path = tmp_path / "egdd.mar"
    archive.write(path, classifier.to_archive("egdd", "1", {}))
    extractor = load(config_for(tiny_world, tmp_path, backbone_archive=path)).extractor
    assert extractor is not None
    assert extractor.config.std == (0.2, 0.3, 0.2)
    wanted = classifier.net.state_dict()["conv_stem.weight"]
    assert torch.equal(extractor.backbone.state_dict()["conv_stem.weight"], wanted)
