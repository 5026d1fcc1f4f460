"""The runner of EGA archives."""

from __future__ import annotations

import torch

from saaa.archive import Archive
from saaa.errors import SceneGraphError
from saaa.models.guided import GuidedCaptioner, check_options
from saaa.scene_graph import RoleGraph
from saaa.work import ItemResult, Work, WorkBatch, WorkItem

_BOX_SLACK = 1e-2
"""Pixels that rounding may push a box beyond the input."""


class CaptionerRunner:
    """Captions."""

    works: tuple[Work, ...] = (Work.CAPTION,)

    def __init__(self, archive: Archive) -> None:
        self._captioner = GuidedCaptioner.from_archive(archive)
        self._info = archive.info()

    def check_options(self, batch: WorkBatch) -> None:
        """Keep the decoding options inside their ranges."""
        check_options(batch.caption)

    def check_item(self, batch: WorkBatch, item: WorkItem) -> None:
        """Have a graph that fits."""
        self._graph(item)

    def run(self, batch: WorkBatch) -> list[ItemResult]:
        """Compute."""
        graphs = [self._graph(item) for item in batch.items]
        captions = self._captioner.caption(torch.tensor(batch.pixels), graphs, batch.caption)
        return [ItemResult(captions=found) for found in captions]

    def _graph(self, item: WorkItem) -> RoleGraph:
        graph, most = item.graph, self._info.max_nodes
        if graph is None:
            raise SceneGraphError("A caption needs a scene graph; give one.", field="graph")
        if len(graph) > most:
            raise SceneGraphError(f"The graph has {len(graph)} nodes; the model takes at most {most}.", field="graph")
        if graph.boxes.min() < -_BOX_SLACK or graph.boxes.max() > self._info.input_size + _BOX_SLACK:
            raise SceneGraphError("A box lies outside the image.", field="graph.objects")
        return graph
