"""The runner of EGDD archives."""

from __future__ import annotations

import logging
import os
from dataclasses import replace

import numpy as np

from saaa.archive import PARITY, Archive
from saaa.attribution.options import check_options
from saaa.errors import OptionInvalid
from saaa.runtime.base import ClassifierRuntime, Explanations, softmax
from saaa.runtime.blobs import Blobs
from saaa.runtime.choice import choose
from saaa.runtime.fingerprint import torch_name
from saaa.runtime.graph import Graph
from saaa.runtime.options import RuntimeOptions
from saaa.runtime.parity import Reference, measure
from saaa.work import AUTO_METHOD, REGION_METHOD, ExplainOptions, ItemResult, Work, WorkBatch, WorkItem

_log = logging.getLogger(__name__)


class ClassifierRunner:
    """Predicts and explains, compiled where that is possible, else by torch, which is loaded when it is needed."""

    works: tuple[Work, ...] = (Work.PREDICT, Work.EXPLAIN)

    def __init__(self, archive: Archive, options: RuntimeOptions, threads: int | None) -> None:
        info = archive.info()
        self._archive = archive
        self._threads = threads
        self._classes = len(info.classes)
        self._methods = [AUTO_METHOD, *(method.name for method in info.methods)]

        def open_classifier(graph: Graph, precision: str, blobs: Blobs | None) -> tuple[ClassifierRuntime, str | None]:
            from saaa.runtime.compiled import OpenVinoClassifier  # openvino is an extra

            default = info.methods[0].name
            runtime = OpenVinoClassifier(graph, default=default, precision=precision, threads=threads, blobs=blobs)
            return runtime, measure(Reference.unpack(archive.graph[PARITY]), runtime).refusal()

        choice = choose(archive, options, threads, open_classifier)
        self._compiled = choice.compiled
        self._torch: ClassifierRuntime | None = None
        self.engine = choice.engine(torch_name() if self._compiled is not None else self._reference().name)
        """See `fingerprint`."""
        self.execution = choice.execution

    @property
    def threads(self) -> int:
        """For one batch."""
        if self._threads is not None or self._compiled is not None:
            return self._threads or os.cpu_count() or 1
        import torch

        return torch.get_num_threads()

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
        """Compute. What the compiled model answers with no finite number is computed again by the eager one."""
        compiled = self._compiled
        if compiled is None or (batch.work is Work.EXPLAIN and not compiled.explains(batch.explain)):
            return _results(_ask(self._reference(), batch))
        made = _ask(compiled, batch)
        results = _results(made)
        wrong = [row for row in range(len(results)) if not _finite(made, row)]
        if wrong:
            _log.warning(
                "%s: %d answers of %s are not finite; torch computes them again", batch.model, len(wrong), compiled.name
            )
            again = replace(batch, pixels=batch.pixels[wrong], items=tuple(batch.items[row] for row in wrong))
            for row, result in zip(wrong, _results(_ask(self._reference(), again)), strict=True):
                results[row] = replace(result, recomputed=True)
        return results

    def _reference(self) -> ClassifierRuntime:
        if self._torch is None:
            from saaa.runtime.eager import TorchClassifier  # a worker loads only what it needs

            self._torch = TorchClassifier(self._archive, self._threads)
        return self._torch


def _removes_objects(options: ExplainOptions) -> bool:
    return options.effects or options.method == REGION_METHOD


def _ask(runtime: ClassifierRuntime, batch: WorkBatch) -> Explanations:
    if batch.work is Work.PREDICT:
        return Explanations(logits=runtime.predict(batch.pixels), maps=[()] * len(batch.items))
    return runtime.explain(batch.pixels, batch.items, batch.explain)


def _results(made: Explanations) -> list[ItemResult]:
    return [
        ItemResult(probabilities=row, maps=entries)
        for row, entries in zip(softmax(made.logits), made.maps, strict=True)
    ]


def _finite(made: Explanations, row: int) -> bool:
    """Of the logits: a probability hides one that is minus infinity."""
    return all(np.isfinite(array).all() for array in (made.logits[row], *(entry.values for entry in made.maps[row])))
