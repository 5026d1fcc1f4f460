"""Do the maps of caption words point at what the words name? On held-out scenes with their true graphs.

    python -m benchmarks.words [--archive build/demo/models/scenes-captioner.mar] [--world build/demo/world]

The captioner captions each region along its graph; a word counts when it belongs to the name of exactly one object of
the graph. Its map hits when the largest pixel, after bilinear enlargement, lies in that object's box, which the world
knows exactly.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from torch.nn.functional import interpolate

from saaa import archive
from saaa.attribution import Wanted, attribute_caption, caption_methods_for
from saaa.models.guided import GuidedCaptioner
from saaa.role_graph import RoleGraph
from saaa.scene_graph import NodeKind, SceneGraph
from saaa.work import AttributionMap, CaptionOptions, ExplainOptions
from training.ega.alignment import align
from training.ega.dataset import load_input
from training.ega.published import AnnotationFolder, ImageFolder, Region, Skipped

BATCH = 8
DRAWS = 2000
HELD_OUT = "val_sub"


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to measure."""

    archive: Path = Path("build/demo/models/scenes-captioner.mar")
    """A captioner trained on the world."""
    world: Path = Path("build/demo/world")
    """The world that `saaa-train scenes` made."""
    images: int = 200
    """Held-out pictures, with all their regions; at least 1."""
    deletion: bool = False
    """Also the mean drop of a word's probability when the top tenth of its map is removed."""


@dataclass(frozen=True)
class Case:
    """One region of a held-out picture."""

    image: str
    scene: SceneGraph
    graph: RoleGraph
    pixels: NDArray[np.uint8]
    captions: tuple[str, ...]
    """People's."""


@dataclass(frozen=True)
class Judged:
    """What became of one object word."""

    image: str
    hit: bool
    node: bool
    """Whether the heaviest node is the object's, or that of one of its attributes, which share its box."""
    area: float
    """Share of the picture that the object's box takes."""
    drop: float


def main(options: Options) -> None:
    """Print a table, and the figures as JSON on the last line."""
    figures = word_pointing(options.archive, options.world, options.images, deletion=options.deletion)
    print(f"{figures['words']} object words, {figures['images']} pictures, chance {figures['chance']:.3f}")
    for name, figure in figures["methods"].items():
        low, high = figure["interval"]
        drop = "" if figure["deletion_drop"] is None else f"   deletion drop {figure['deletion_drop']:.3f}"
        print(
            f"  {name:<20} in the object's box {figure['pointing']:.3f} ({low:.3f} to {high:.3f})   "
            f"heaviest node right {figure['node_accuracy']:.3f}{drop}"
        )
    print(json.dumps(figures))


def word_pointing(archive_path: Path, world: Path, images: int, *, deletion: bool = False) -> dict[str, Any]:
    """How often an object word's map points into its object's box.

    Args:
        archive_path: a captioner.
        world: folder of the procedural world.
        images: how many held-out pictures.
        deletion: also measure the deletion drop, at the price of one more forward a word.

    Returns:
        "images", "words", "chance" (mean share of the picture that the boxes take), "default" (a method's name) and
        "methods": for each "pointing", "interval" (95 %), "hits", "node_accuracy" and "deletion_drop" (None if not
        measured).
    """
    captioner = GuidedCaptioner.from_archive(archive.read(archive_path))
    methods = [method.name for method in caption_methods_for(captioner)]
    judged: dict[str, list[Judged]] = {name: [] for name in methods}
    for cases in held_out(captioner, world, images):
        pixels = torch.from_numpy(np.stack([case.pixels for case in cases]))
        graphs = [case.graph for case in cases]
        said = [best[0].words for best in captioner.caption(pixels, graphs, CaptionOptions())]
        named = [object_words(words, case) for words, case in zip(said, cases, strict=True)]
        wanted = [Wanted(words=tuple(place for place, _ in pairs)) for pairs in named]
        for name in methods:
            options = ExplainOptions(method=name, deletion=deletion)
            found = attribute_caption(captioner, pixels, graphs, said, wanted, options)
            for case, pairs, maps in zip(cases, named, found, strict=True):
                judged[name] += [_judge(case, node, m) for (_, node), m in zip(pairs, maps, strict=True)]
    words = judged[methods[0]]
    return {
        "images": len({word.image for word in words}),
        "words": len(words),
        "chance": float(np.mean([word.area for word in words])),
        "default": methods[0],
        "methods": {
            name: {
                "pointing": float(np.mean([word.hit for word in done])),
                "interval": _interval(done),
                "hits": sum(word.hit for word in done),
                "node_accuracy": float(np.mean([word.node for word in done])),
                "deletion_drop": float(np.mean([word.drop for word in done])) if deletion else None,
            }
            for name, done in judged.items()
        },
    }


def object_words(words: Sequence[str], case: Case) -> list[tuple[int, int]]:
    """(place in the caption, node) of each word that belongs to the name of exactly one object and nothing else."""
    found = align(words, case.scene, len(case.graph))
    objects = case.graph.types == NodeKind.OBJECT
    alone = [(place, int(row.argmax())) for place, row in enumerate(found) if int((row > 0).sum()) == 1]
    return [(place, node) for place, node in alone if objects[node]]


def peak(values: NDArray[np.float32], size: int) -> tuple[float, float]:
    """x and y of the middle of a map's largest pixel, once it is enlarged to `size` pixels a side."""
    large = interpolate(torch.from_numpy(values)[None, None], size=(size, size), mode="bilinear", align_corners=False)
    row, column = divmod(int(large.argmax()), size)
    return column + 0.5, row + 0.5


def _judge(case: Case, node: int, found: AttributionMap) -> Judged:
    assert found.node_weights is not None
    size = len(case.pixels)
    left, top, right, bottom = case.graph.boxes[node].tolist()
    x, y = peak(found.values, size)
    nodes = case.scene.nodes()
    heaviest = nodes[int(found.node_weights.argmax())]
    return Judged(
        image=case.image,
        hit=left <= x < right and top <= y < bottom,
        node=heaviest.kind is not NodeKind.RELATIONSHIP and heaviest.id == nodes[node].id,
        area=(right - left) * (bottom - top) / size**2,
        drop=float("nan") if found.deletion_drop is None else found.deletion_drop,
    )


def held_out(captioner: GuidedCaptioner, world: Path, images: int) -> Iterator[list[Case]]:
    """Batches of all regions of the first so many held-out pictures."""
    regions = AnnotationFolder(world / "annotations").regions(HELD_OUT, Skipped())
    chosen = set(sorted({region.file_name for region in regions})[:images])
    regions = [region for region in regions if region.file_name in chosen]
    folder = ImageFolder(world, chosen)
    for first in range(0, len(regions), BATCH):
        yield [_case(captioner, region, folder) for region in regions[first : first + BATCH]]


def _case(captioner: GuidedCaptioner, region: Region, folder: ImageFolder) -> Case:
    pixels, geometry = load_input(folder.paths[region.file_name], captioner.features.config)
    graph = region.graph.role_graph(captioner.captioner.config.max_nodes)
    boxed = graph.with_boxes(geometry.to_input(graph.boxes))
    return Case(region.image_id, region.graph, boxed, pixels, region.captions)


def _interval(words: Sequence[Judged]) -> tuple[float, float]:
    """95 % bootstrap interval of the share of hits; pictures are drawn, because the words of one fail together."""
    by_image: dict[str, list[bool]] = {}
    for word in words:
        by_image.setdefault(word.image, []).append(word.hit)
    hits = np.array([sum(group) for group in by_image.values()])
    counts = np.array([len(group) for group in by_image.values()])
    drawn = np.random.default_rng(0).integers(0, len(hits), (DRAWS, len(hits)))
    low, high = np.quantile(hits[drawn].sum(1) / counts[drawn].sum(1), (0.025, 0.975))
    return float(low), float(high)


if __name__ == "__main__":
    main(tyro.cli(Options, prog="python -m benchmarks.words", description=__doc__))
