"""The graph as a captioner sees it: nodes with a role, an order and a box, and typed edges. Names never
enter it.

Source: Chen et al., "Say As You Wish" (CVPR 2020, arXiv 2003.00387), in the form that SA3 published.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from saaa.errors import SceneGraphError

MAX_ATTRIBUTES = 19
"""The most attributes of one object: the order table has 20 rows, row 0 is for objects and relationships."""
EDGE_TYPES = 6
"""Number of edge types, see `RoleGraph.edges`."""


class NodeKind(enum.IntEnum):
    """The role of a node."""

    OBJECT = 0
    ATTRIBUTE = 1
    RELATIONSHIP = 2


@dataclass(frozen=True, eq=False)
class RoleGraph:
    """A graph as the captioner sees it; N nodes, E edges. The arrays are copied and made read-only.

    Raises:
        SceneGraphError: arrays that do not fit each other or hold values outside their ranges.
    """

    types: NDArray[np.int64]
    """(N,), a `NodeKind`."""
    orders: NDArray[np.int64]
    """(N,), place among the owner's attributes, 1 to 19; 0 for objects and relationships."""
    boxes: NDArray[np.float32]
    """(N, 4), left, top, right, bottom (exclusive) in pixels; an attribute has its owner's box, a
    relationship the union of subject and object."""
    edges: NDArray[np.int64]
    """(E, 3), source, target, type: 0 object to attribute, 1 back, 2 subject to relationship, 3 back,
    4 relationship to object, 5 back."""

    def __post_init__(self) -> None:
        try:
            types = np.array(self.types, np.int64)
            orders = np.array(self.orders, np.int64)
            boxes = np.array(self.boxes, np.float32)
            edges = np.array(self.edges, np.int64)
        except (TypeError, ValueError, OverflowError):
            raise SceneGraphError("the arrays of a role graph must hold numbers") from None
        if edges.size == 0:
            edges = edges.reshape(0, 3)
        if types.ndim != 1 or types.size == 0:
            raise SceneGraphError("a role graph needs at least one node", field="types")
        nodes = len(types)
        if types.min() < 0 or types.max() > NodeKind.RELATIONSHIP:
            raise SceneGraphError("node types must be 0, 1 or 2", field="types")
        if orders.shape != (nodes,) or orders.min() < 0 or orders.max() > MAX_ATTRIBUTES:
            raise SceneGraphError(f"give each node an order of 0 to {MAX_ATTRIBUTES}", field="orders")
        if boxes.shape != (nodes, 4) or not np.isfinite(boxes).all() or (boxes[:, 2:] < boxes[:, :2]).any():
            raise SceneGraphError("give each node a finite box, left <= right, top <= bottom", field="boxes")
        limits = (nodes, nodes, EDGE_TYPES)
        if edges.ndim != 2 or edges.shape[1] != 3 or (edges < 0).any() or (edges >= limits).any():
            raise SceneGraphError("an edge is a source node, a target node and a type, 0 to 5", field="edges")
        for name, array in (("types", types), ("orders", orders), ("boxes", boxes), ("edges", edges)):
            array.setflags(write=False)
            object.__setattr__(self, name, array)

    def __len__(self) -> int:
        """Number of nodes."""
        return len(self.types)

    def relations(self) -> NDArray[np.float32]:
        """A, (6, N, N): A[r, target, source] = 1 / (number of type-r edges into target).

        Rows with an edge sum to 1, the others are zero.
        """
        matrix = np.zeros((EDGE_TYPES, len(self), len(self)), np.float32)
        source, target, kind = self.edges.T
        matrix[kind, target, source] = 1
        matrix /= np.maximum(matrix.sum(2, keepdims=True), 1)
        return matrix

    def flow(self) -> NDArray[np.float32]:
        """F, (N, N): F[target, source] = 1 / (flow edges out of source); every column sums to 1.

        Attention flows object <-> attribute and subject -> relationship -> object; a node with nowhere to go
        keeps it.
        """
        matrix = np.zeros((len(self), len(self)), np.float32)
        source, target, _ = self.edges[np.isin(self.edges[:, 2], (0, 1, 2, 4))].T
        matrix[target, source] = 1
        stuck = np.flatnonzero(matrix.sum(0) == 0)
        matrix[stuck, stuck] = 1
        matrix /= matrix.sum(0)
        return matrix

    def with_boxes(self, boxes: ArrayLike) -> RoleGraph:
        """The same graph with other boxes, (N, 4), for instance in pixels of a model's input."""
        return RoleGraph(self.types, self.orders, np.asarray(boxes, np.float32), self.edges)
