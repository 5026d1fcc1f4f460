"""Trace a captioner's decode step into one OpenVINO model: it is recorded while the eager step runs."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.export import Dim

from saaa.models.captioner import Captioner
from saaa.models.captioner.config import MAX_GUIDING_NODES
from saaa.models.captioner.decoder import Decoder, Guide, State
from saaa.runtime.caption_graph import GUIDE, INPUTS, OUTPUTS, STATE, parts_of, shapes
from saaa.runtime.converting import convert, one_graph
from saaa.runtime.graph import Graph

_MOST_ROWS = 4096


def trace_step(captioner: Captioner) -> Graph:
    """Trace the step that greedy search, beam search and sampling all take; see `saaa.runtime.caption_graph`.

    Args:
        captioner: on the CPU, in evaluation mode.

    Raises:
        NotTraceable: openvino is missing, or an operation cannot be converted; the message says which.
    """
    rows = Dim("rows", min=2, max=_MOST_ROWS)
    nodes = Dim("nodes", min=2, max=MAX_GUIDING_NODES)
    real = Dim("real", min=2, max=_MOST_ROWS * MAX_GUIDING_NODES)
    names = {0: rows, 1: nodes, 2: nodes}
    width = captioner.config.width
    free = tuple(
        {axis: real if len(shape) == 1 else names[axis] for axis, size in enumerate(shape) if size == -1}
        for shape in shapes(width)
    )
    with one_graph("The captioner's step"):
        with torch.no_grad():
            arguments = _example(width)
            exported = torch.export.export(_Step(captioner.decoder), arguments, dynamic_shapes=(free,), strict=False)
        return convert(exported, "decode step", list(zip(INPUTS, shapes(width), strict=True)), OUTPUTS)


class _Step(nn.Module):
    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.decoder = decoder
        self.weights = decoder.weights()  # joined here, so that the graph holds them as they are used

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        state = State(**dict(zip(STATE, inputs, strict=False)))
        guide = Guide(**dict(zip(GUIDE, inputs[len(STATE) :], strict=False)))
        after, scores = self.decoder.advance(state, guide, inputs[-1], self.weights)
        return (*parts_of(after), scores)


def _example(width: int, rows: int = 3, nodes: int = 4) -> tuple[Tensor, ...]:
    """Inputs of likely shapes; two sizes that are equal would be taken for one."""
    state = [torch.rand(rows, width) for _ in range(4)]
    mask = torch.ones(rows, nodes, dtype=torch.bool)
    mask[0, -1] = False
    return (
        *state,
        torch.rand(rows, nodes),
        torch.rand(rows, nodes, width),
        torch.rand(rows, 4 * width),
        torch.rand(rows, nodes, nodes),
        mask,
        mask.flatten().nonzero()[:, 0],
        torch.rand(rows, 4 * width),
    )
