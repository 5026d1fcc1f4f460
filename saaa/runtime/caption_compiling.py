"""At archive time: make the graph of a captioner's step, measure it against the eager one, add both to the archive."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from saaa.archive import Archive
from saaa.errors import NotTraceable
from saaa.models.captioner import collate
from saaa.models.guided import GuidedCaptioner
from saaa.runtime.caption_parity import SAMPLES, CaptionReference, measure_captions
from saaa.runtime.caption_tracing import trace_step
from saaa.runtime.graph import Graph, with_graph
from saaa.runtime.options import BF16, FP32
from saaa.runtime.reasons import reason
from saaa.scene_graph import RoleGraph

_BATCH = 8


def add_caption_graph(archive: Archive, pixels: NDArray[np.uint8], graphs: Sequence[RoleGraph]) -> Archive:
    """Compile a captioner's decode step into a graph.

    The card's "runtime" tells for each precision how far its captions are from the eager ones along these graphs, and
    why it may not be used if it may not: see `saaa.runtime.caption_parity.CaptionParity`.

    Args:
        archive: of a captioner, without a graph.
        pixels: images that it should know, uint8 (images, S, S, 3), at least 1.
        graphs: one an image, boxes in pixels of the input.

    Raises:
        NotTraceable: no graph can be made, or no precision passes the gate.
        ArchiveError: the archive does not describe a usable captioner.
        OptionInvalid, SceneGraphError: as `GuidedCaptioner.see`.
    """
    guided = GuidedCaptioner.from_archive(archive)
    graph = trace_step(guided.captioner)
    regions, image = _pooled(guided, pixels, graphs)
    reference = CaptionReference.make(guided.captioner, regions, image, collate(graphs))
    figures = {precision: _measured(graph, guided, precision, reference) for precision in (BF16, FP32)}
    if all(told["refused"] for told in figures.values()):
        reasons = "; ".join(f"{precision}: {told['refused']}" for precision, told in figures.items())
        raise NotTraceable(f"The graph does not caption as the model does ({reasons}); leave it out.")
    return with_graph(archive, graph, reference.surest(SAMPLES).pack(), figures)


def _pooled(guided: GuidedCaptioner, pixels: NDArray[np.uint8], graphs: Sequence[RoleGraph]) -> tuple[Tensor, Tensor]:
    """The captioner's input of all images, padded to the largest graph."""
    regions = torch.zeros(len(graphs), max(map(len, graphs)), guided.captioner.config.region_size)
    images: list[Tensor] = []
    for start in range(0, len(graphs), _BATCH):
        part = slice(start, start + _BATCH)
        with torch.no_grad():
            own, image = guided.pool(guided.see(torch.tensor(pixels[part]), graphs[part]))
        regions[part, : own.shape[1]] = own
        images.append(image)
    return regions, torch.cat(images)


def _measured(graph: Graph, guided: GuidedCaptioner, precision: str, reference: CaptionReference) -> dict[str, Any]:
    from saaa.runtime.caption_steps import OpenVinoSteps
    from saaa.runtime.engine import has_bf16

    if precision == BF16 and not has_bf16():
        return {"refused": "not measured: this processor has no units for bf16"}  # imitating them takes minutes
    try:
        steps = OpenVinoSteps(graph, guided.captioner.decoder, precision=precision)
        return measure_captions(reference, guided.captioner, steps).describe()
    except (RuntimeError, ArithmeticError) as error:
        return {"refused": f"openvino cannot run it: {reason(error)}"}
