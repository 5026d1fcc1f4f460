import dataclasses
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from saaa.errors import DataError
from saaa.images import covered
from saaa.models.features import FeatureConfig
from saaa.scene_graph import Box, Relationship, SceneGraph, SceneObject
from training.ega.published import AnnotationFolder, ImageFolder, Skipped
from training.ega.shuffled import derangement, graphs_of, laid_over, other_regions


@given(count=st.integers(2, 60), seed=st.integers(0, 1000))
def test_a_derangement_moves_everything(count, seed):
    order = derangement(count, seed)
    assert sorted(order) == list(range(count))
    assert all(order[k] != k for k in range(count))


def test_other_regions_are_of_other_images(tiny_world):
    regions = AnnotationFolder(tiny_world / "annotations").regions("trn", Skipped())
    twice = [dataclasses.replace(r, region_id=str(k)) for r in regions for k in range(2)]
    others = other_regions(twice, seed=3)
    assert all(one.image_id != two.image_id for one, two in zip(twice, others, strict=True))
    assert len({(o.image_id, o.region_id) for o in others}) == len(twice)
    with pytest.raises(DataError, match="needs two"):
        other_regions(twice[:2], seed=3)


@pytest.mark.parametrize(("mode", "fraction"), [("squash", 1.0), ("crop", 0.8)])
def test_a_graph_laid_over_another_image_keeps_its_place_in_the_input(mode, fraction):
    graph = SceneGraph(
        (SceneObject(4, "sofa", Box(90, 60, 100, 40), ("red",)), SceneObject(9, "lamp", Box(150, 30, 12, 20))),
        (Relationship(1, 9, 4, "above"),),
    )
    one = covered(300, 200, 100, mode=mode, crop_fraction=fraction)
    other = covered(640, 480, 100, mode=mode, crop_fraction=fraction)
    moved = laid_over(graph, one, other)
    wanted = one.to_input([thing.box.ltrb() for thing in graph.objects])
    found = other.to_input([thing.box.ltrb() for thing in moved.objects])
    pixel = 100 / 480 / fraction  # of the other image, in the input
    assert np.abs(found - wanted).max() <= pixel
    assert [(o.id, o.name, o.attributes) for o in moved.objects] == [
        (o.id, o.name, o.attributes) for o in graph.objects
    ]
    assert moved.relationships == graph.relationships
    assert laid_over(graph, one, one) == graph


def test_a_box_outside_the_crop_stays_a_box():
    graph = SceneGraph((SceneObject(1, "sofa", Box(0, 0, 10, 10)),))
    (thing,) = laid_over(graph, covered(300, 100, 50, mode="crop"), covered(100, 300, 50, mode="crop")).objects
    assert (thing.box.width, thing.box.height) >= (1, 1)


def test_graphs_come_from_the_other_image_whatever_its_size(tiny_world, tmp_path):
    folder = ImageFolder(tiny_world, {f"{k:06d}.jpg" for k in (1, 2)})
    regions = AnnotationFolder(tiny_world / "annotations").regions("trn", Skipped())[:2]
    for name, path in folder.paths.items():
        shutil.copy(path, tmp_path / name)
    with Image.open(folder.paths["000001.jpg"]) as image:
        image.resize((128, 192)).save(tmp_path / "000001.jpg")
    there = ImageFolder(tmp_path, set(folder.paths))
    config = FeatureConfig(architecture="test_efficientnet", input_size=64)
    (mine, _) = graphs_of(regions[::-1], regions, there, config)
    boxes = [(thing.box.x, thing.box.y, thing.box.width, thing.box.height) for thing in regions[1].graph.objects]
    assert [(t.box.x, t.box.y, t.box.width, t.box.height) for t in mine.objects] == [
        (2 * x, 3 * y, 2 * w, 3 * h) for x, y, w, h in boxes
    ]
    (tmp_path / "000001.jpg").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"000001\.jpg cannot be read"):
        graphs_of(regions[::-1], regions, there, config)
