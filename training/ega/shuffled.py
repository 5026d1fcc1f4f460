"""Another image's graph for every region: what a captioner says along it shows whether it is the graph that guides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from saaa.errors import DataError, ImageRejected
from saaa.images import Geometry, covered, read_header
from saaa.models.features import FeatureConfig
from saaa.scene_graph import Box, SceneGraph
from training.ega.published import ImageFolder, Region


def other_regions(regions: Sequence[Region], seed: int) -> list[Region]:
    """For each region one of another image; the images are dealt out so that each is used by one other.

    Raises:
        DataError: all regions are of one image.
    """
    by_image: dict[str, list[Region]] = {}
    for region in regions:
        by_image.setdefault(region.image_id, []).append(region)
    images = list(by_image)
    if len(images) < 2:
        raise DataError(f"All regions are of image {images[0]}; comparing with another's graph needs two.")
    other = dict(zip(images, (images[k] for k in derangement(len(images), seed)), strict=True))
    taken: dict[str, int] = dict.fromkeys(images, 0)
    out: list[Region] = []
    for region in regions:
        there = by_image[other[region.image_id]]
        out.append(there[taken[region.image_id] % len(there)])
        taken[region.image_id] += 1
    return out


def derangement(count: int, seed: int) -> NDArray[np.int64]:
    """A permutation of `count` >= 2 things that leaves none in its place."""
    order = np.random.default_rng(seed).permutation(count)
    # Everyone takes the next one's along one random circle.
    out = np.empty(count, np.int64)
    out[order] = np.roll(order, 1)
    return out


def graphs_of(
    others: Sequence[Region], regions: Sequence[Region], folder: ImageFolder, config: FeatureConfig
) -> list[SceneGraph]:
    """The graphs of `others` laid over the images of `regions`, whatever the images' sizes.

    Raises:
        DataError: an image cannot be read.
    """
    names = {region.file_name for region in (*others, *regions)}
    frames = {name: _frame(folder, name, config) for name in names}
    return [
        laid_over(other.graph, frames[other.file_name], frames[region.file_name])
        for other, region in zip(others, regions, strict=True)
    ]


def laid_over(graph: SceneGraph, one: Geometry, other: Geometry) -> SceneGraph:
    """A graph of one image with its boxes at the same places of another: the same in the model's input, up to rounding
    to whole pixels of the image."""
    objects = []
    for thing in graph.objects:
        ((left, top, right, bottom),) = np.rint(other.to_image(one.to_input([thing.box.ltrb()]))).astype(int).tolist()
        objects.append(replace(thing, box=Box(left, top, max(1, right - left), max(1, bottom - top))))
    return SceneGraph(tuple(objects), graph.relationships)


def _frame(folder: ImageFolder, name: str, config: FeatureConfig) -> Geometry:
    try:
        header = read_header(folder.paths[name].read_bytes())
    except (OSError, ImageRejected) as error:
        raise DataError(f"{folder.paths[name]} cannot be read as an image: {error}") from error
    return covered(
        header.width, header.height, config.input_size, mode=config.resize, crop_fraction=config.crop_fraction
    )
