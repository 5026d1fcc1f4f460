"""Reads a packed split: batches of captions straight from memory-mapped arrays."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from saaa.errors import DataError
from saaa.models.captioner.config import RELATION_TYPES
from saaa.models.captioner.graphs import GraphBatch
from saaa.models.captioner.vocabulary import Vocabulary
from saaa.models.features import scale_of
from saaa.scene_graph import SceneGraph
from training.ega.batches import CaptionSource
from training.ega.published import Region
from training.ega.standard import Standard
from training.pack.layout import ARRAYS, FEATURES, FORMAT, HEAD, REGIONS, WORDS

FLOW_EDGES = (0, 1, 2, 4)
"""Types of edges along which attention flows, see `saaa.role_graph.RoleGraph.flow`."""


class PackedSet(CaptionSource):
    """All captions of a packed split. Nothing is read before it is asked for; processes share the pages.

    Args:
        folder: one split of a cache that `saaa-train pack` made.

    Raises:
        DataError: the folder is none, of another format version, or incomplete.
    """

    def __init__(self, folder: Path) -> None:
        try:
            head = json.loads((folder / HEAD).read_text(encoding="utf-8"))
            if head["format"] != FORMAT:
                raise DataError(f"{folder} has format {head['format']}, not {FORMAT}; make it anew by saaa-train pack.")
            # Copy on write: torch wants arrays that may be written to, and nobody writes.
            arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="c") for name in ARRAYS}
            shape = (int(head["rows"]), int(head["region_size"]))
            features = np.memmap(folder / FEATURES, np.dtype("<f4"), "c", shape=shape)
            if (folder / FEATURES).stat().st_size != features.nbytes or len(arrays["captions"]) != head["captions"]:
                raise ValueError("its files do not fit each other")
            self.vocabulary = Vocabulary(tuple(json.loads((folder / WORDS).read_text(encoding="utf-8"))))
        except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
            raise DataError(f"{folder} is no whole cache of saaa-train pack: {error}") from error
        self.folder = folder
        self.head = head
        """What `saaa-train pack` says of the split."""
        self.name_count = int(head["names"])
        """How many numbers of node names there are."""
        self.features = torch.from_numpy(features)
        self._arrays = {name: torch.from_numpy(array) for name, array in arrays.items()}
        self.captions = self._arrays["captions"]
        self.lengths = self._arrays["lengths"]
        self.region_of = self._arrays["region_of"]

    def standard(self) -> Standard:
        """What makes this split's features of mean 0 and deviation 1."""
        found: dict[str, Tensor] = {}
        for name in ("region", "image"):
            mean, deviation = self._arrays[f"{name}_moments"].float().unbind()
            found |= {f"{name}_mean": mean, f"{name}_scale": scale_of(deviation)}
        return Standard(**found)

    @cached_property
    def regions(self) -> list[Region]:
        """The regions with their names and captions, for evaluation."""
        found = []
        with (self.folder / REGIONS).open(encoding="utf-8") as lines:
            for line in lines:
                record = json.loads(line)
                graph = SceneGraph.from_region(record["graph"])
                image, region, said = record["image_id"], record["region_id"], tuple(record["captions"])
                found.append(Region(image_id=image, region_id=region, graph=graph, captions=said))
        return found

    def stored(self, regions: Tensor) -> tuple[Tensor, Tensor, GraphBatch]:
        a = self._arrays
        owner, column, place = _parts(a["node_starts"], regions)
        size = int(column.max()) + 1
        nodes = torch.zeros(len(regions), size, 4, dtype=torch.int64)
        nodes[owner, column] = a["nodes"][place].long()
        mask = torch.zeros(len(regions), size, dtype=torch.bool)
        mask[owner, column] = True
        # Padding has the first box's features, as in `CaptionSet`: nothing reads them, and zeros cost another copy.
        features = self.features.index_select(0, nodes[..., 0].flatten()).view(len(regions), size, -1)
        relations, flow = self._edges(regions, mask)
        graphs = GraphBatch(types=nodes[..., 1], orders=nodes[..., 2], mask=mask, relations=relations, flow=flow)
        image = a["image"][a["image_of"][regions].long()]
        return features, image, graphs

    def _edges(self, regions: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The matrices of `saaa.role_graph.RoleGraph` for several regions at once."""
        count, size = mask.shape
        owner, _, place = _parts(self._arrays["edge_starts"], regions)
        source, target, kind = self._arrays["edges"][place].long().unbind(1)
        relations = torch.zeros(count, RELATION_TYPES, size, size)
        relations[owner, kind, target, source] = 1
        relations /= relations.sum(3, keepdim=True).clamp(min=1)
        flow = torch.zeros(count, size, size)
        flows = torch.isin(kind, torch.tensor(FLOW_EDGES))
        flow[owner[flows], target[flows], source[flows]] = 1
        stuck, where = ((flow.sum(1) == 0) & mask).nonzero(as_tuple=True)
        flow[stuck, where, where] = 1
        return relations, flow / flow.sum(1, keepdim=True).clamp(min=1)

    def names_of(self, regions: Tensor, nodes: int) -> Tensor:
        owner, column, place = _parts(self._arrays["node_starts"], regions)
        names = torch.full((len(regions), nodes), -1)
        names[owner, column] = self._arrays["nodes"][place, 3].long()
        return names

    def named_by(self, rows: Tensor, tokens: int, nodes: int) -> Tensor:
        owner, _, place = _parts(self._arrays["named_starts"], rows)
        token, node = self._arrays["named"][place].long().unbind(1)
        named = torch.zeros(len(rows), tokens, nodes)
        named[owner, token, node] = self._arrays["named_weight"][place].float()
        return named


def _parts(starts: Tensor, which: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Where the parts of some things lie in a flat array.

    Args:
        starts: (things + 1,)
        which: (B,) things.

    Returns:
        For each part of each of them: the place in `which`, its number among its thing's, its place in the array.
    """
    first = starts[which]
    counts = starts[which + 1] - first
    owner = torch.repeat_interleave(counts)
    number = torch.arange(len(owner)) - (counts.cumsum(0) - counts)[owner]
    return owner, number, first[owner] + number
