"""At archive time: make a classifier's graph, measure it against the eager model, and add both to the archive."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saaa.archive import Archive
from saaa.errors import NotTraceable
from saaa.models.classifier import Classifier
from saaa.runtime.eager import TorchClassifier
from saaa.runtime.graph import Graph, with_graph
from saaa.runtime.options import BF16, FP32
from saaa.runtime.parity import SAMPLES, Reference, measure
from saaa.runtime.reasons import reason
from saaa.runtime.tracing import trace
from saaa.work import AUTO_METHOD


def add_graph(archive: Archive, pixels: NDArray[np.uint8], methods: Sequence[str] = (AUTO_METHOD,)) -> Archive:
    """Compile a classifier into a graph with some of its attribution methods.

    The card's "runtime" tells for each precision how far its answers are from the eager model's on these images, and
    why it may not be used if it may not: see `saaa.runtime.parity.Parity`.

    Args:
        archive: of a classifier, without a graph.
        pixels: images that it should know, uint8 (images, S, S, 3), at least 1.
        methods: what the graph explains by; "auto" is the model's default.

    Raises:
        NotTraceable: no graph can be made, or no precision passes the gate.
        ArchiveError: the archive does not describe a usable classifier.
    """
    graph = trace(Classifier.from_archive(archive), methods)
    reference = Reference.make(TorchClassifier(archive, None), pixels, graph.methods)
    default = archive.info().methods[0].name
    figures = {precision: _measured(graph, default, precision, reference) for precision in (BF16, FP32)}
    if all(told["refused"] for told in figures.values()):
        reasons = "; ".join(f"{precision}: {told['refused']}" for precision, told in figures.items())
        raise NotTraceable(f"The graph does not answer as the model does ({reasons}); leave it out.")
    return with_graph(archive, graph, reference.surest(SAMPLES).pack(), figures)


def _measured(graph: Graph, default: str, precision: str, reference: Reference) -> dict[str, Any]:
    from saaa.runtime.compiled import OpenVinoClassifier
    from saaa.runtime.engine import has_bf16

    try:
        runtime = OpenVinoClassifier(graph, default=default, precision=precision)
        told = measure(reference, runtime).describe()
    except RuntimeError as error:
        return {"refused": f"openvino cannot run it: {reason(error)}"}
    if precision == BF16:
        told["imitated"] = not has_bf16()  # the same rounding, by a processor without units for it
    return told
