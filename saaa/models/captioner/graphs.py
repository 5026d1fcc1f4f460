"""Role graphs as padded, masked tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from saaa.models.captioner.config import RELATION_TYPES
from saaa.role_graph import RoleGraph


@dataclass(frozen=True, kw_only=True)
class GraphBatch:
    """The structure of B role graphs padded to N nodes. Padding: type and order 0, no edges, mask False."""

    types: Tensor
    """int64 (B, N): 0 object, 1 attribute, 2 relationship."""
    orders: Tensor
    """int64 (B, N): position of an attribute in its object's list from 1; 0 for the others."""
    mask: Tensor
    """bool (B, N): which nodes are real; at least one a graph."""
    relations: Tensor
    """(B, 6, N, N): relations[b, r, target, source], rows sum to 1 where the target has such an edge, else
    0."""
    flow: Tensor
    """(B, N, N): flow[b, target, source], columns of real nodes sum to 1."""

    def __len__(self) -> int:
        return self.types.shape[0]

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> GraphBatch:
        """The same on another device; `dtype` is applied to the edge weights only."""
        moved = {f.name: getattr(self, f.name) for f in fields(self)}
        return GraphBatch(**{k: v.to(device, dtype if v.is_floating_point() else None) for k, v in moved.items()})

    def select(self, rows: Tensor) -> GraphBatch:
        """The graphs of `rows` (int64), trimmed to the most nodes among them."""
        most = int(self.mask[rows].sum(1).max())
        return GraphBatch(
            types=self.types[rows, :most],
            orders=self.orders[rows, :most],
            mask=self.mask[rows, :most],
            relations=self.relations[rows, :, :most, :most],
            flow=self.flow[rows, :most, :most],
        )


def real_nodes(mask: Tensor) -> Tensor | None:
    """Which places of a mask (R, N) hold a node, (M,) int64 in order.

    None where nothing is gained by leaving out padding: there is none, or a GPU computes it faster than picks the rest.
    """
    if mask.device.type != "cpu" or bool(mask.all()):
        return None
    return mask.flatten().nonzero()[:, 0]


def collate(graphs: Sequence[RoleGraph], *, nodes: int | None = None) -> GraphBatch:
    """Pad `graphs` (one or more, each with a node) to `nodes` or to the largest of them."""
    size = max(len(g.types) for g in graphs) if nodes is None else nodes
    types = np.zeros((len(graphs), size), np.int64)
    orders = np.zeros_like(types)
    mask = np.zeros(types.shape, np.bool_)
    relations = np.zeros((len(graphs), RELATION_TYPES, size, size), np.float32)
    flow = np.zeros((len(graphs), size, size), np.float32)
    for row, graph in enumerate(graphs):
        n = len(graph.types)
        types[row, :n] = graph.types
        orders[row, :n] = graph.orders
        mask[row, :n] = True
        relations[row, :, :n, :n] = graph.relations()
        flow[row, :n, :n] = graph.flow()
    return GraphBatch(
        types=torch.from_numpy(types),
        orders=torch.from_numpy(orders),
        mask=torch.from_numpy(mask),
        relations=torch.from_numpy(relations),
        flow=torch.from_numpy(flow),
    )
