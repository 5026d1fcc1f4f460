"""The runner of EGDD archives."""

from __future__ import annotations

import torch

from saaa.archive import Archive
from saaa.attribution import attribute
from saaa.errors import OptionInvalid
from saaa.models.classifier import Classifier
from saaa.work import AUTO_METHOD, ItemResult, Work, WorkBatch, WorkItem


class ClassifierRunner:
    """Predicts and explains."""

    works: tuple[Work, ...] = (Work.PREDICT, Work.EXPLAIN)

    def __init__(self, archive: Archive) -> None:
        self._classifier = Classifier.from_archive(archive)
        self._classes = len(self._classifier.config.classes)
        self._methods = [AUTO_METHOD, *(method.name for method in archive.info().methods)]

    def check_options(self, batch: WorkBatch) -> None:
        """Know the method; the registry checks the rest."""
        if batch.work is Work.EXPLAIN and batch.explain.method not in self._methods:
            raise OptionInvalid(
                f"Attribution method {batch.explain.method!r} is not offered by {batch.model}; "
                f"choose one of {', '.join(self._methods)}.",
                field="attribution.method",
            )

    def check_item(self, batch: WorkBatch, item: WorkItem) -> None:
        """Keep the targets inside the classes."""
        if batch.work is not Work.EXPLAIN:
            return
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
        made = attribute(
            self._classifier,
            self._classifier.preprocess(pixels),
            [item.targets for item in batch.items],
            method=batch.explain.method,
            steps=batch.explain.steps,
        )
        return [
            ItemResult(probabilities=row, maps=maps) for row, maps in zip(made.probabilities, made.maps, strict=True)
        ]
