"""The reference runtime of classifiers: torch, eager, every method and option."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from saaa.archive import Archive
from saaa.runtime.base import Explanations
from saaa.runtime.lean import hold_threads, import_vision, torch_engine
from saaa.runtime.options import FP32
from saaa.work import REGION_METHOD, ExplainOptions, WorkItem

import_vision()

from saaa.attribution import attribute  # noqa: E402 - imports timm, leanly by now
from saaa.attribution.effects import node_effects  # noqa: E402
from saaa.attribution.removal import object_regions  # noqa: E402
from saaa.models.classifier import Classifier  # noqa: E402


class TorchClassifier:
    """See `ClassifierRuntime`.

    Args:
        archive: of a classifier.
        threads: torch's threads, at least 1; None leaves torch's setting alone.

    Raises:
        ArchiveError: the archive does not describe a usable classifier.
    """

    name = torch_engine()
    precision = FP32

    def __init__(self, archive: Archive, threads: int | None) -> None:
        self._classifier = Classifier.from_archive(archive)
        self._threads = threads

    def predict(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See `ClassifierRuntime`."""
        hold_threads(self._threads)
        with torch.inference_mode():
            logits: NDArray[np.float32] = self._classifier(self._classifier.preprocess(torch.tensor(pixels))).numpy()
        return logits

    def explains(self, options: ExplainOptions) -> bool:
        """Whatever the registry offers."""
        return True

    def explain(self, pixels: NDArray[np.uint8], items: Sequence[WorkItem], options: ExplainOptions) -> Explanations:
        """See `ClassifierRuntime`; errors as `attribute`."""
        hold_threads(self._threads)
        inputs = self._classifier.preprocess(torch.tensor(pixels))
        graphs = [item.graph for item in items if item.graph is not None]
        regions = None
        if options.method == REGION_METHOD:
            regions = [object_regions(graph, inputs.shape[-1]) for graph in graphs]
        made = attribute(self._classifier, inputs, [item.targets for item in items], options, regions=regions)
        maps = made.maps
        if options.effects:
            targets = [[entry.target for entry in entries] for entries in maps]
            effects = node_effects(self._classifier, inputs, targets, graphs, options)
            maps = [
                tuple(replace(entry, effects=effect) for entry, effect in zip(*image, strict=True))
                for image in zip(maps, effects, strict=True)
            ]
        return Explanations(logits=made.logits, maps=maps)
