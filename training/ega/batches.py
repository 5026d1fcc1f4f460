"""Captions in batches, wherever they and what they describe are kept."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from saaa.models.captioner.graphs import GraphBatch
from training.ega.published import Region
from training.ega.standard import Standard

POOL = 8
"""Batches whose captions are sorted by length before they are dealt out."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Captions with what they describe; one row a caption."""

    regions: Tensor
    """(B, N, region size)"""
    image: Tensor
    """(B, image size)"""
    graphs: GraphBatch
    captions: Tensor
    """int64 (B, T), as many columns as the longest needs."""
    lengths: Tensor
    """int64 (B,)"""
    names: Tensor
    """int64 (B, N): the number of each node's name, -1 for none; see `name_nodes`."""
    named: Tensor
    """(B, T, N): the nodes that each token names, see `align`; rows sum to the weight of the word, which is 1 unless
    `CaptionSource.word_weights` says otherwise; zero unless the set is aligned."""

    def __len__(self) -> int:
        return len(self.lengths)

    def select(self, rows: Tensor) -> Batch:
        """The captions of `rows` (int64), padding trimmed."""
        graphs = self.graphs.select(rows)
        nodes, tokens = graphs.mask.shape[1], int(self.lengths[rows].max())
        return Batch(
            regions=self.regions[rows, :nodes],
            image=self.image[rows],
            graphs=graphs,
            captions=self.captions[rows, :tokens],
            lengths=self.lengths[rows],
            names=self.names[rows, :nodes],
            named=self.named[rows, :tokens, :nodes],
        )


class CaptionSource(ABC):
    """Captions with what they describe, read in batches in any order."""

    captions: Tensor
    """Whole numbers (captions, T): ids, padded with EOS."""
    lengths: Tensor
    """int64 (captions,)"""
    region_of: Tensor
    """int64 (captions,)"""
    name_count: int
    """How many numbers of node names there are, see `names_of`."""
    _standard: Standard | None = None
    word_weights: Tensor | None = None
    """float32 (captions, T): what each token weighs in the explanation loss, 0 to 1; None is 1 for all."""

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    @abstractmethod
    def regions(self) -> Sequence[Region]:
        """What the captions describe; a region's captions follow each other, in its order."""

    @abstractmethod
    def stored(self, regions: Tensor) -> tuple[Tensor, Tensor, GraphBatch]:
        """Region features (B, N, size), image features (B, size) and structure of regions (B,), as they are kept."""

    @abstractmethod
    def names_of(self, regions: Tensor, nodes: int) -> Tensor:
        """int64 (B, nodes): the number of the name of each node of regions (B,), -1 for none; see `name_nodes`."""

    @abstractmethod
    def named_by(self, rows: Tensor, tokens: int, nodes: int) -> Tensor:
        """float32 (B, tokens, nodes): the nodes that each token of captions (B,) names, see `align`."""

    def standardise(self, standard: Standard) -> None:
        """From now on standardise what `inputs` gives; `standard` is where the batches go."""
        self._standard = standard

    def inputs(self, regions: Tensor, device: torch.device | str) -> tuple[Tensor, Tensor, GraphBatch]:
        """What a captioner sees of regions (B,): `stored`, standardised once `standardise` was called."""
        features, image, graphs = self.stored(regions)
        features, image = features.to(device), image.to(device)
        if self._standard is not None:
            features, image = self._standard.regions(features), self._standard.images(image)
        return features, image, graphs.to(device)

    def begin_epoch(self, epoch: int) -> None:
        """Choose along which graphs the captions of an epoch are learnt, where there is a choice; a function of
        `epoch` alone. To be called before the epoch's first batch, after a resume too."""
        return

    def batch(self, rows: Tensor, device: torch.device | str) -> Batch:
        """The captions of `rows` (B,)."""
        of = self.region_of[rows]
        regions, image, graphs = self.inputs(of, device)
        lengths = self.lengths[rows]
        tokens = int(lengths.max())
        named = self.named_by(rows, tokens, regions.shape[1])
        if self.word_weights is not None:
            named = named * self.word_weights[rows, :tokens, None]
        return Batch(
            regions=regions,
            image=image,
            graphs=graphs,
            captions=self.captions[rows, :tokens].long().to(device),
            lengths=lengths.to(device),
            names=self.names_of(of, regions.shape[1]).to(device),
            named=named.to(device),
        )

    def epoch(self, size: int, per_region: int | None, generator: torch.Generator) -> Iterator[Tensor]:
        """Rows of an epoch's batches, shuffled, captions of like length together.

        Args:
            size: rows of a batch; the last one may have fewer.
            per_region: captions drawn of each region; None is all.
            generator: what draws.
        """
        rows = torch.randperm(len(self), generator=generator)
        if per_region is not None:
            order = rows[torch.argsort(self.region_of[rows], stable=True)]
            firsts = torch.searchsorted(self.region_of[order], self.region_of[order])
            rows = order[torch.arange(len(order)) - firsts < per_region]
            rows = rows[torch.randperm(len(rows), generator=generator)]
        # Sorting within a few batches saves steps and still mixes every epoch anew. (Sorting by the size of graphs
        # saves padding, too, but was seen to cost accuracy.)
        pools = torch.split(rows, size * POOL)
        parts: list[Tensor] = []
        for pool in pools:
            parts += torch.split(pool[torch.argsort(self.lengths[pool], stable=True)], size)
        for k in torch.randperm(len(parts), generator=generator).tolist():
            yield parts[k]
