"""The role-aware relational graph encoder."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from saaa.models.captioner.config import RELATION_TYPES, ROLES, CaptionerConfig
from saaa.models.captioner.graphs import GraphBatch, real_nodes


def order_table(rows: int, size: int) -> Tensor:
    """(rows, size) sinusoids: row 0 is zero, row k holds position k - 1, sines in even and cosines in odd
    columns."""
    position = torch.arange(rows - 1, dtype=torch.float64)[:, None]
    rate = torch.exp(torch.arange(0, size, 2, dtype=torch.float64) * (-math.log(10_000.0) / size))
    table = torch.zeros(rows, size, dtype=torch.float64)
    table[1:, 0::2] = torch.sin(position * rate)
    table[1:, 1::2] = torch.cos(position * rate)
    return table.to(torch.get_default_dtype())


class RoleEmbedding(nn.Module):
    """x_i = v_i * (W_role[type_i] + P[order_i]): what a node is for, multiplied into what it looks like."""

    orders: Tensor

    def __init__(self, size: int, order_rows: int) -> None:
        super().__init__()
        self.roles = nn.Embedding(ROLES, size)
        self.register_buffer("orders", order_table(order_rows, size), persistent=False)

    def forward(self, regions: Tensor, graphs: GraphBatch) -> Tensor:
        """(B, N, size) from `regions` of the same shape."""
        role: Tensor = self.roles(graphs.types)
        return regions * (role + self.orders[graphs.orders])


class RelationalLayer(nn.Module):
    """H' = ReLU(H W_self + sum_r A_r H W_r); no bias, no residual (Schlichtkrull et al. 2018, without a
    basis)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.own = nn.Parameter(torch.empty(width, width))
        self.related = nn.Parameter(torch.empty(RELATION_TYPES, width, width))
        gain = nn.init.calculate_gain("relu")
        for weight in (self.own, *self.related):
            nn.init.xavier_uniform_(weight, gain)

    def forward(self, nodes: Tensor, relations: Tensor) -> Tensor:
        """(B, N, width) from nodes of that shape and `relations` (B, 6, N, N)."""
        batch, count, width = nodes.shape
        # Gather the neighbours of all relations first, so that one matrix product serves all weights.
        gathered = (relations.flatten(1, 2) @ nodes).view(batch, RELATION_TYPES, count, width)
        gathered = gathered.transpose(1, 2).reshape(batch, count, RELATION_TYPES * width)
        return torch.relu(nodes @ self.own + gathered @ self.related.flatten(0, 1))

    def sparse(self, nodes: Tensor, links: Links) -> Tensor:
        """As `forward`, of the M real nodes only: (M, width) from (M, width)."""
        gathered = links.relations @ links.spread(nodes)
        picked = torch.split(gathered.flatten(0, 1).index_select(0, links.rows), links.counts)
        told = torch.cat([part @ weight for part, weight in zip(picked, self.related, strict=True)])
        return torch.relu((nodes @ self.own).index_add(0, links.targets, told.to(nodes.dtype)))


class Links:
    """The edges of a batch of graphs, for `RelationalLayer.sparse`.

    Args:
        graphs: B graphs of N places.
        real: which of the B x N places hold a node, (M,).
        dtype: of the nodes.
    """

    def __init__(self, graphs: GraphBatch, real: Tensor, dtype: torch.dtype) -> None:
        _, places = graphs.mask.shape
        self._shape, self._real = graphs.mask.shape, real
        self.relations = graphs.relations.flatten(1, 2).to(dtype)
        """(B, 6 N, N)"""
        kind, graph, target = (graphs.relations != 0).any(-1).transpose(0, 1).nonzero(as_tuple=True)
        self.rows = (graph * RELATION_TYPES + kind) * places + target
        """(P,): the rows of B x 6 N that hold an edge, by relation."""
        self.counts: list[int] = torch.bincount(kind, minlength=RELATION_TYPES).tolist()
        """How many of them each relation has."""
        order = graphs.mask.flatten().cumsum(0) - 1
        self.targets = order[graph * places + target]
        """(P,): which of the M nodes a row tells something."""

    def spread(self, nodes: Tensor) -> Tensor:
        """(B, N, width), zero at padding, of (M, width)."""
        padded = nodes.new_zeros(self._shape.numel(), nodes.shape[1])
        return padded.index_copy(0, self._real, nodes).view(*self._shape, nodes.shape[1])


class Encoder(nn.Module):
    """Node memories from region features, roles and typed edges."""

    def __init__(self, config: CaptionerConfig) -> None:
        super().__init__()
        self.role = RoleEmbedding(config.region_size, config.order_rows)
        self.project = nn.Linear(config.region_size, config.width)
        self.layers = nn.ModuleList(RelationalLayer(config.width) for _ in range(config.layers))

    def forward(self, regions: Tensor, graphs: GraphBatch) -> Tensor:
        """Memories (B, N, width), zero at padding, from `regions` (B, N, region_size)."""
        real = real_nodes(graphs.mask)
        if real is None:
            return self.dense(regions, graphs)
        # Most places of a relation have no such edge, and some hold no node: on a CPU it pays to leave these out.
        nodes = torch.relu(self.project(self.role(regions, graphs).flatten(0, 1).index_select(0, real)))
        links = Links(graphs, real, nodes.dtype)
        for layer in self.layers:
            assert isinstance(layer, RelationalLayer)
            nodes = layer.sparse(nodes, links)
        return links.spread(nodes)

    def dense(self, regions: Tensor, graphs: GraphBatch) -> Tensor:
        """As `forward`, of all places, padding too: the same operations whatever the graphs."""
        nodes = torch.relu(self.project(self.role(regions, graphs)))
        for layer in self.layers:
            nodes = layer(nodes, graphs.relations)
        return nodes.masked_fill(~graphs.mask[..., None], 0.0)


class GlobalEncoder(nn.Module):
    """g = W [image feature; mean of the real nodes' memories] + b."""

    def __init__(self, config: CaptionerConfig) -> None:
        super().__init__()
        self.project = nn.Linear(config.global_size + config.width, config.width)

    def forward(self, image: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
        """(B, width) from `image` (B, global_size), `memory` (B, N, width; zero at padding), `mask` (B,
        N)."""
        mean = memory.sum(1) / mask.sum(1, keepdim=True)
        out: Tensor = self.project(torch.cat([image, mean], dim=-1))
        return out
