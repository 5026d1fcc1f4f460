"""Regions with their features in memory."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from saaa import images
from saaa.errors import DataError, ImageRejected
from saaa.models.captioner.graphs import GraphBatch, collate
from saaa.models.captioner.vocabulary import BOS, EOS, Vocabulary
from saaa.models.features import FeatureConfig, FeatureExtractor
from saaa.role_graph import RoleGraph
from training.ega.alignment import align, name_nodes
from training.ega.batches import CaptionSource
from training.ega.published import ImageFolder, Region
from training.ega.views import Views
from training.files import whole
from training.progress import progress

EXTRACT_BATCH = 32
ARRAYS = ("nodes", "starts", "image", "image_of")
"""Files of a cache."""


@dataclass(frozen=True, kw_only=True)
class RegionFeatures:
    """Features of R regions of I images, rows of nodes one after the other."""

    nodes: Tensor
    """float32 (all nodes of all regions, region size)."""
    starts: Tensor
    """int64 (R + 1,): region r has rows starts[r] to starts[r + 1]."""
    image: Tensor
    """float32 (I, image size)."""
    image_of: Tensor
    """int64 (R,): the image of each region."""


def load_input(path: Path, config: FeatureConfig) -> tuple[NDArray[np.uint8], images.Geometry]:
    """The model's input and its geometry, as serving makes them.

    Raises:
        DataError: the file is missing or no image.
    """
    try:
        pixels = images.decode(path.read_bytes())
    except (OSError, ImageRejected) as error:
        raise DataError(f"{path} cannot be read as an image: {error}") from error
    return images.fit(pixels, config.input_size, mode=config.resize, crop_fraction=config.crop_fraction)


def extract(
    extractor: FeatureExtractor, regions: Sequence[Region], graphs: Sequence[RoleGraph], folder: ImageFolder
) -> RegionFeatures:
    """Features of every region, each image decoded once.

    Args:
        extractor: on the device to use.
        regions: what to describe.
        graphs: their role graphs, boxes in image pixels.
        folder: where the images are.

    Raises:
        DataError: an image cannot be read.
    """
    by_image: dict[str, list[int]] = {}
    for row, region in enumerate(regions):
        by_image.setdefault(region.file_name, []).append(row)
    names = list(by_image)
    device = extractor.region_mean.device
    sizes = torch.tensor([len(graph.types) for graph in graphs])
    starts = torch.cat([torch.zeros(1, dtype=torch.int64), sizes.cumsum(0)])
    nodes = torch.empty(int(starts[-1]), extractor.region_size)
    image = torch.empty(len(names), extractor.image_size)
    image_of = torch.empty(len(regions), dtype=torch.int64)
    with ThreadPoolExecutor(2) as pool:
        inputs = pool.map(lambda name: load_input(folder.paths[name], extractor.config), names)
        for first in progress(range(0, len(names), EXTRACT_BATCH), "features"):
            part = names[first : first + EXTRACT_BATCH]
            loaded = [next(inputs) for _ in part]
            boxes = [
                torch.from_numpy(
                    geometry.to_input(np.concatenate([graphs[row].boxes for row in by_image[name]]))
                ).float()
                for name, (_, geometry) in zip(part, loaded, strict=True)
            ]
            pixels = torch.from_numpy(np.stack([pixels for pixels, _ in loaded]))
            found, image[first : first + len(part)] = (
                values.cpu() for values in extractor(pixels.to(device), [b.to(device) for b in boxes])
            )
            rows = [row for name in part for row in by_image[name]]
            for row, feature in zip(rows, found.split(sizes[rows].tolist()), strict=True):
                nodes[starts[row] : starts[row + 1]] = feature
            for k, name in enumerate(part):
                image_of[by_image[name]] = first + k
    return RegionFeatures(nodes=nodes, starts=starts, image=image, image_of=image_of)


def cached(
    cache: Path,
    extractor: FeatureExtractor,
    regions: Sequence[Region],
    graphs: Sequence[RoleGraph],
    folder: ImageFolder,
) -> RegionFeatures:
    """As `extract`, memory-mapped from `cache`, a folder, which is made unless it holds the features of just these
    weights, boxes and images.

    Raises:
        DataError: an image cannot be read, or the cache not be written.
    """
    key = _key(extractor, regions, graphs, folder)
    note = cache / "key.json"
    try:
        if json.loads(note.read_text()) == key:
            return _read(cache)
    except (OSError, ValueError):
        pass  # there is no cache yet, or not a whole one
    note.unlink(missing_ok=True)
    features = extract(extractor, regions, graphs, folder)
    for name in ARRAYS:
        with whole(cache / f"{name}.npy") as aside, aside.open("wb") as file:
            np.save(file, getattr(features, name).numpy())
    with whole(note) as aside:  # last: it says that the rest is whole
        aside.write_text(json.dumps(key))
    return _read(cache)


def _read(cache: Path) -> RegionFeatures:
    # Nothing is read before it is asked for, and processes share the pages; torch wants arrays that may be written to.
    arrays = {name: np.load(cache / f"{name}.npy", mmap_mode="c") for name in ARRAYS}
    return RegionFeatures(**{name: torch.from_numpy(array) for name, array in arrays.items()})


def _key(
    extractor: FeatureExtractor, regions: Sequence[Region], graphs: Sequence[RoleGraph], folder: ImageFolder
) -> str:
    digest = hashlib.sha256(json.dumps(asdict(extractor.config), sort_keys=True).encode())
    for value in extractor.state_dict().values():
        digest.update(value.cpu().contiguous().numpy().tobytes())
    for region, graph in zip(regions, graphs, strict=True):
        path = folder.paths[region.file_name]
        stat = path.stat()
        digest.update(f"{path.name} {stat.st_size} {stat.st_mtime_ns} {region.region_id}".encode())
        digest.update(graph.boxes.tobytes())
    return digest.hexdigest()


class CaptionSet(CaptionSource):
    """All captions of some regions, in memory.

    Args:
        regions: their captions, names and ids.
        graphs: their role graphs, then those of `views`.
        features: as `extract` made them, of all those graphs.
        vocabulary: words to ids.
        max_tokens: longer captions are cut.
        aligned: find out which nodes each word names, for the explanation loss and its measure.
        views: other graphs along which captions are learnt, too.
    """

    def __init__(
        self,
        regions: Sequence[Region],
        graphs: Sequence[RoleGraph],
        features: RegionFeatures,
        vocabulary: Vocabulary,
        max_tokens: int,
        *,
        aligned: bool = False,
        views: Views | None = None,
    ) -> None:
        self._regions = regions
        self.features = features
        self.graphs = collate(graphs)
        encoded = [vocabulary.encode(c, max_tokens) for region in regions for c in region.captions]
        self.region_of = torch.tensor([r for r, region in enumerate(regions) for _ in region.captions])
        self.lengths = torch.tensor([len(ids) for ids in encoded])
        self.captions = torch.full((len(encoded), int(self.lengths.max())), EOS)
        for row, ids in enumerate(encoded):
            self.captions[row, : len(ids)] = torch.tensor(ids)
        assert bool((self.captions[:, 0] == BOS).all())
        nodes = self.graphs.mask.shape[1]
        self.views = views
        self.seen = torch.arange(len(regions))
        """int64 (regions,): which of the graphs each region's captions are learnt along."""
        called, self.name_count = name_nodes((region.graph for region in regions), nodes)
        self.names = torch.full((len(regions), nodes), -1)
        for row, numbers in enumerate(called):
            self.names[row, : len(numbers)] = torch.tensor(numbers)
        self.named = torch.zeros(*self.captions.shape, nodes, dtype=torch.float16)
        said = [(caption.split(), region) for region in regions for caption in region.captions] if aligned else []
        for row, (words, region) in enumerate(said):
            words = words[: self.captions.shape[1] - 1]
            self.named[row, 1 : len(words) + 1] = align(words, region.graph, nodes)

    @property
    def regions(self) -> Sequence[Region]:
        return self._regions

    def begin_epoch(self, epoch: int) -> None:
        if self.views is not None:
            dealt = self.views.deal(epoch)
            own = torch.arange(len(self._regions))
            self.seen = torch.where(dealt < 0, own, len(self._regions) + dealt)

    def stored(self, regions: Tensor) -> tuple[Tensor, Tensor, GraphBatch]:
        seen = self.seen[regions]
        graphs = self.graphs.select(seen)
        rows = self.features.starts[seen][:, None] + torch.arange(graphs.mask.shape[1])
        rows = rows.masked_fill(~graphs.mask, 0)
        image = self.features.image[self.features.image_of[seen]]
        return self.features.nodes[rows], image, graphs

    def names_of(self, regions: Tensor, nodes: int) -> Tensor:
        return self.names[regions, :nodes].masked_fill(self._nameless(regions)[:, None], -1)

    def named_by(self, rows: Tensor, tokens: int, nodes: int) -> Tensor:
        nameless = self._nameless(self.region_of[rows])
        return self.named[rows, :tokens, :nodes].float().masked_fill(nameless[:, None, None], 0)

    def _nameless(self, regions: Tensor) -> Tensor:
        """bool (B,): whether the graphs of regions (B,) are proposed, so that nobody named their nodes."""
        if self.views is None:
            return torch.zeros(len(regions), dtype=torch.bool)
        return self.seen[regions] >= len(self._regions) + self.views.named
