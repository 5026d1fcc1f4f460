"""At archive time: make the graph of a captioner, measure it against the eager one, add both to the archive."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from saaa.archive import Archive
from saaa.errors import NotTraceable
from saaa.models.guided import GuidedCaptioner
from saaa.runtime.caption_parity import SAMPLES, CaptionReference, measure_captions
from saaa.runtime.caption_tracing import trace_captioner
from saaa.runtime.graph import Graph, with_graph
from saaa.runtime.options import BF16, FP32
from saaa.runtime.reasons import reason
from saaa.scene_graph import RoleGraph


def add_caption_graph(archive: Archive, pixels: NDArray[np.uint8], graphs: Sequence[RoleGraph]) -> Archive:
    """Compile a captioner's backbone, encoder and decode step into a graph.

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
    guided.check_graphs(graphs, images=len(pixels))
    graph = trace_captioner(guided)
    reference = CaptionReference.make(guided, torch.tensor(pixels), graphs)
    figures = {precision: _measured(graph, guided, precision, reference) for precision in (BF16, FP32)}
    if all(told["refused"] for told in figures.values()):
        reasons = "; ".join(f"{precision}: {told['refused']}" for precision, told in figures.items())
        raise NotTraceable(f"The graph does not caption as the model does ({reasons}); leave it out.")
    return with_graph(archive, graph, reference.surest(SAMPLES).pack(), figures)


def _measured(graph: Graph, guided: GuidedCaptioner, precision: str, reference: CaptionReference) -> dict[str, Any]:
    from saaa.runtime.caption_parts import OpenVinoCaptioner
    from saaa.runtime.engine import has_bf16

    if precision == BF16 and not has_bf16():
        return {"refused": "not measured: this processor has no units for bf16"}  # imitating them takes minutes
    try:
        levels = len(guided.features.config.levels)
        parts = OpenVinoCaptioner(graph, guided.captioner, levels=levels, precision=precision)
        return measure_captions(reference, guided, parts).describe()
    except (RuntimeError, ArithmeticError) as error:
        return {"refused": f"openvino cannot run it: {reason(error)}"}
