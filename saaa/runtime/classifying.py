"""The runner of EGDD archives."""

from __future__ import annotations

from dataclasses import replace

import torch

from saaa.archive import Archive
from saaa.attribution import attribute
from saaa.attribution.effects import node_effects
from saaa.attribution.options import check_options
from saaa.attribution.removal import object_regions
from saaa.errors import OptionInvalid
from saaa.models.classifier import Classifier
from saaa.work import AUTO_METHOD, REGION_METHOD, ExplainOptions, ItemResult, Work, WorkBatch, WorkItem


class ClassifierRunner:
    """Predicts and explains."""

    works: tuple[Work, ...] = (Work.PREDICT, Work.EXPLAIN)

    def __init__(self, archive: Archive) -> None:
        self._classifier = Classifier.from_archive(archive)
        self._classes = len(self._classifier.config.classes)
        self._methods = [AUTO_METHOD, *(method.name for method in archive.info().methods)]

    def check_options(self, batch: WorkBatch) -> None:
        """Know the method, keep its options in their ranges."""
        if batch.work is Work.EXPLAIN and batch.explain.method not in self._methods:
            raise OptionInvalid(
                f"Attribution method {batch.explain.method!r} is not offered by {batch.model}; "
                f"choose one of {', '.join(self._methods)}.",
                field="attribution.method",
            )
        check_options(batch.explain)

    def check_item(self, batch: WorkBatch, item: WorkItem) -> None:
        """Keep the targets inside the classes, have a graph where its objects are to be removed."""
        if batch.work is not Work.EXPLAIN:
            return
        if item.graph is None and _removes_objects(batch.explain):
            raise OptionInvalid("Objects of a scene graph are to be removed; give the graph.", field="graph")
        for index in item.targets:
            if not 0 <= index < self._classes:
                raise OptionInvalid(
                    f"There is no class {index}; {batch.model} has classes 0 to {self._classes - 1}.",
                    field="attribution.classes",
                )

    def run(self, batch: WorkBatch) -> list[ItemResult]:
        """Compute."""
        pixels = torch.tensor(batch.pixels)
        if batch.work is Work.PREDICT:
            with torch.inference_mode():
                logits = self._classifier(self._classifier.preprocess(pixels))
                rows = logits.float().softmax(dim=1).numpy()
            return [ItemResult(probabilities=row) for row in rows]
        inputs = self._classifier.preprocess(pixels)
        graphs = [item.graph for item in batch.items if item.graph is not None]
        regions = None
        if batch.explain.method == REGION_METHOD:
            regions = [object_regions(graph, inputs.shape[-1]) for graph in graphs]
        made = attribute(
            self._classifier, inputs, [item.targets for item in batch.items], batch.explain, regions=regions
        )
        maps = made.maps
        if batch.explain.effects:
            targets = [[entry.target for entry in entries] for entries in maps]
            effects = node_effects(self._classifier, inputs, targets, graphs, batch.explain)
            maps = [
                tuple(replace(entry, effects=effect) for entry, effect in zip(*image, strict=True))
                for image in zip(maps, effects, strict=True)
            ]
        return [
            ItemResult(probabilities=row, maps=entries) for row, entries in zip(made.probabilities, maps, strict=True)
        ]


def _removes_objects(options: ExplainOptions) -> bool:
    return options.effects or options.method == REGION_METHOD
