"""How fast captions with graphs and features are read: the packed cache against the published files.

    python -m benchmarks.captioner_read [--images 2000]

The data are made up as real ones are: an image has one region of 4 to 10 nodes, 36 boxes of 2,048 features in its own
HDF5 file, and a caption of 8 to 14 of 10,000 words. The other reader is ours, too, written straight from the published
formats and checking nothing: for each sample it parses the region's JSON, opens the HDF5 file, reads all its boxes, and
builds the dense matrices of the graph. Both give batches of 128 in random order, alternately; all files are in the page
cache.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import h5py  # type: ignore[import-untyped]
import numpy as np
import torch
from numpy.typing import NDArray

from saaa.models.captioner.vocabulary import Vocabulary
from saaa.scene_graph import EDGE_TYPES, SceneGraph
from training.features.layout import GLOBAL, REGIONS, global_file, region_file, write_image
from training.pack import PackConfig
from training.pack.job import pack
from training.pack.reader import PackedSet

BATCH, BOXES, SIZE, WORDS, NODES, TOKENS = 128, 36, 2048, 10_000, 10, 25
IMAGES = 2000
ROUNDS = 5
SPLIT = "trn"


def make_data(folder: Path, images: int, seed: int = 0) -> Path:
    """Write made-up annotations and features in the published formats; gives the folder."""
    rng = np.random.default_rng(seed)
    notes = folder / "annotations"
    (notes / "regionfiles").mkdir(parents=True)
    (notes / "public_split").mkdir()
    vocabulary = ["BOS", "EOS", "UNK", *(f"word{k}" for k in range(WORDS - 3))]
    zipf = 1 / np.arange(1, WORDS - 2)
    zipf /= zipf.sum()
    ids = [f"{k:012d}" for k in range(images)]
    for image in ids:
        words = rng.choice(WORDS - 3, rng.integers(8, 15), p=zipf)
        region, boxes = _region(rng)
        region["phrase"] = " ".join(f"word{w}" for w in words)
        (notes / "regionfiles" / f"{image}.json").write_text(json.dumps({"0": region}))
        features = rng.standard_normal((BOXES, SIZE), np.float32)
        write_image(folder / REGIONS, image, boxes, features, features[0], (640, 480))
    np.save(notes / "regionfiles" / f"{SPLIT}_names.npy", np.array([(image, "0") for image in ids]))
    np.save(notes / "public_split" / f"{SPLIT}_names.npy", np.array([f"{image}.jpg" for image in ids]))
    np.save(notes / "int2word.npy", np.array(vocabulary))
    (notes / "word2int.json").write_text(json.dumps({word: k for k, word in enumerate(vocabulary)}))
    target = global_file(folder / GLOBAL, SPLIT)
    target.parent.mkdir(parents=True)
    np.save(target, rng.standard_normal((images, SIZE), np.float32))
    return folder


def _region(rng: np.random.Generator) -> tuple[dict[str, Any], NDArray[np.int32]]:
    """A region of 4 to 10 nodes, and 36 boxes of which its nodes have some."""
    nodes = int(rng.integers(4, NODES + 1))
    objects = max(2, nodes // 2)
    relationships = min(int(rng.integers(1, 3)), nodes - objects)
    corners = rng.integers(0, 300, (objects, 2))
    sides = rng.integers(20, 150, (objects, 2))
    attributes: list[list[str]] = [[] for _ in range(objects)]
    for k in range(nodes - objects - relationships):
        attributes[k % objects].append(f"attribute{k}")
    things = [
        {"object_id": k, "name": f"thing{k}", "attributes": attributes[k]}
        | dict(zip("xywh", (int(v) for v in (*corners[k], *sides[k])), strict=True))
        for k in range(objects)
    ]
    links = [
        {"relationship_id": k, "subject_id": k % objects, "object_id": (k + 1) % objects, "name": "near"}
        for k in range(relationships)
    ]
    region = {"objects": things, "relationships": links}
    graph = SceneGraph.from_region(region)
    used = np.unique(graph.role_graph(NODES).boxes.astype(np.int32), axis=0) - np.array([0, 0, 1, 1], np.int32)
    rest = rng.integers(0, 400, (BOXES - len(used), 4), np.int32)
    return region, np.concatenate([used, rest])


def published_batches(folder: Path, vocabulary: Vocabulary, orders: Iterable[NDArray[np.int64]]) -> Iterator[Any]:
    """Batches read from the published files, one sample after the other; nothing is checked."""
    notes = folder / "annotations"
    pairs = np.load(notes / "regionfiles" / f"{SPLIT}_names.npy")
    whole_images = np.load(global_file(folder / GLOBAL, SPLIT))
    for order in orders:
        nodes = np.zeros((len(order), NODES, SIZE), np.float32)
        roles = np.zeros((3, len(order), NODES), np.int64)
        relations = np.zeros((len(order), EDGE_TYPES, NODES, NODES), np.float32)
        flow = np.zeros((len(order), NODES, NODES), np.float32)
        tokens = np.ones((len(order), TOKENS), np.int64)
        for row, sample in enumerate(order):
            image, region_id = pairs[sample]
            region = json.loads((notes / "regionfiles" / f"{image}.json").read_text())[region_id]
            with h5py.File(region_file(folder / REGIONS, image), "r") as file:
                data = file[f"{image}.jpg"]
                by_box = dict(zip(map(tuple, data.attrs["boxes"].tolist()), data[...], strict=True))
            boxes, edges = _place(region, roles[:, row])
            for k, box in enumerate(boxes):
                nodes[row, k] = by_box[box]
            for source, target, kind in edges:
                relations[row, kind, target, source] = 1
                if kind in (0, 1, 2, 4):
                    flow[row, target, source] = 1
            for k in range(len(boxes)):
                if not flow[row, :, k].any():
                    flow[row, k, k] = 1
            caption = vocabulary.encode(region["phrase"], TOKENS)
            tokens[row, : len(caption)] = caption
        relations /= np.maximum(relations.sum(3, keepdims=True), 1)
        flow /= np.maximum(flow.sum(1, keepdims=True), 1)
        yield tuple(map(torch.from_numpy, (nodes, roles, whole_images[order], relations, flow, tokens)))


def _place(
    region: dict[str, Any], roles: NDArray[np.int64]
) -> tuple[list[tuple[int, int, int, int]], list[tuple[int, int, int]]]:
    """Boxes of the nodes and edges of a region; fills types, orders and mask, (3, NODES)."""
    boxes: list[tuple[int, int, int, int]] = []
    edges: list[tuple[int, int, int]] = []
    place: dict[int, int] = {}
    for thing in region["objects"]:
        x, y, w, h = (thing[side] for side in "xywh")
        owner = place[thing["object_id"]] = len(boxes)
        boxes.append((x, y, x + w - 1, y + h - 1))
        for order in range(1, len(thing["attributes"]) + 1):
            edges += [(owner, len(boxes), 0), (len(boxes), owner, 1)]
            roles[:2, len(boxes)] = 1, order
            boxes.append(boxes[owner])
    for link in region["relationships"]:
        node, subject, target = len(boxes), place[link["subject_id"]], place[link["object_id"]]
        edges += [(subject, node, 2), (node, subject, 3), (node, target, 4), (target, node, 5)]
        roles[0, node] = 2
        (a, b, c, d), (e, f, g, h) = boxes[subject], boxes[target]
        boxes.append((min(a, e), min(b, f), max(c, g), max(d, h)))
    roles[2, : len(boxes)] = 1
    return boxes, edges


def packed_batches(packed: PackedSet, orders: Iterable[NDArray[np.int64]]) -> Iterator[Any]:
    """The same from the cache."""
    for order in orders:
        yield packed.batch(torch.from_numpy(order), "cpu")


def measure(images: int = IMAGES, *, threads: int = 1, rounds: int = ROUNDS) -> dict[str, Any]:
    """Measure both readers, alternately.

    Args:
        images: samples; an epoch reads each once.
        threads: of torch.
        rounds: epochs of each; the first one only warms up.

    Returns:
        read_per_s and published_per_s (samples a second, median of the epochs), ratio (median of the epochs' ratios),
        pack_s (how long packing took).
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with tempfile.TemporaryDirectory(prefix="captioner-read-") as name:
            folder = make_data(Path(name) / "data", images)
            begun = perf_counter()
            pack(PackConfig(data_path=folder, features=folder, output_dir=Path(name) / "packed"))
            pack_s = perf_counter() - begun
            packed = PackedSet(Path(name) / "packed" / SPLIT)
            rng = np.random.default_rng(1)
            rates: list[tuple[float, float]] = []
            for _ in range(rounds + 1):
                orders = np.array_split(rng.permutation(images), -(-images // BATCH))
                ours = _rate(images, packed_batches(packed, orders))
                theirs = _rate(images, published_batches(folder, packed.vocabulary, orders))
                rates.append((ours, theirs))
    finally:
        torch.set_num_threads(before)
    counted = rates[1:]
    return {
        "read_per_s": median(ours for ours, _ in counted),
        "published_per_s": median(theirs for _, theirs in counted),
        "ratio": median(ours / theirs for ours, theirs in counted),
        "pack_s": pack_s,
    }


def _rate(samples: int, batches: Iterator[Any]) -> float:
    begun = perf_counter()
    for _ in batches:
        pass
    return samples / (perf_counter() - begun)


def main() -> None:
    """Print the figures; JSON last."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    figures = measure(given.images, threads=given.threads)
    print(f"packed     {figures['read_per_s']:10.0f} samples/s    (packing took {figures['pack_s']:.1f} s)")
    print(f"published  {figures['published_per_s']:10.0f} samples/s    ratio {figures['ratio']:.1f}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
