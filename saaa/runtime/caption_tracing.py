"""Trace a captioner into one OpenVINO model: it is recorded while the eager parts run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.export import Dim

from saaa.models.captioner import Captioner, GraphBatch
from saaa.models.captioner.config import RELATION_TYPES
from saaa.models.captioner.decoder import Decoder, Guide, State
from saaa.models.guided import GuidedCaptioner
from saaa.runtime.caption_graph import (
    ADVANCE_OUTPUTS,
    BEGIN_OUTPUTS,
    GRAPHS,
    GUIDE,
    PIXELS,
    STATE,
    advance_shapes,
    begin_shapes,
    level_of,
    parts_of,
)
from saaa.runtime.converting import Part, convert, one_graph, pack
from saaa.runtime.graph import Graph
from saaa.runtime.precise import keep_precise
from saaa.runtime.recording import record


def trace_captioner(guided: GuidedCaptioner) -> Graph:
    """Trace backbone, encoder, and the step that greedy search, beam search and sampling all take.

    Args:
        guided: on the CPU, in evaluation mode.

    Raises:
        NotTraceable: openvino is missing, or an operation cannot be converted; the message says which.
    """
    with one_graph(f"The captioner with {guided.features.config.architecture}"):
        return _packed(guided.captioner, _see(guided))


def trace_words(captioner: Captioner) -> Graph:
    """As `trace_captioner`, without a backbone: regions and image to words.

    Raises:
        NotTraceable: as there.
    """
    with one_graph("The captioner"):
        return _packed(captioner)


def _packed(captioner: Captioner, *more: Part) -> Graph:
    return keep_precise(pack("captioner", [*more, *_parts(captioner)]), columns=2 * captioner.config.width)


def _see(guided: GuidedCaptioner) -> Part:
    features, size = guided.features, guided.features.config.input_size

    def see(pixels: Tensor) -> tuple[Tensor, ...]:
        return tuple(features.backbone(features.normalise(pixels).contiguous()))

    pixels = torch.full((1, size, size, 3), 128, dtype=torch.uint8)
    levels = [level_of(index) for index in range(len(features.config.levels))]
    return convert(record(features, see, (pixels,)), {PIXELS: tuple(pixels.shape)}, levels)


def _parts(captioner: Captioner) -> list[Part]:
    config = captioner.config
    return [
        _export(_Begin(captioner), _begin_example(captioner), begin_shapes(config), BEGIN_OUTPUTS),
        _export(
            _Advance(captioner.decoder), _advance_example(config.width), advance_shapes(config.width), ADVANCE_OUTPUTS
        ),
    ]


def _export(
    module: nn.Module, arguments: tuple[Tensor, ...], shapes: Mapping[str, Sequence[int]], outputs: Sequence[str]
) -> Part:
    # Not named: what torch derives of named sizes holds for them all, but it cannot prove it and refuses.
    free = tuple({axis: Dim.AUTO for axis, length in enumerate(shape) if length == -1} for shape in shapes.values())
    with torch.no_grad():
        exported = torch.export.export(module, arguments, dynamic_shapes=(free,), strict=False)
    return convert(exported, shapes, outputs)


class _Begin(nn.Module):
    def __init__(self, captioner: Captioner) -> None:
        super().__init__()
        self.captioner = captioner

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        regions, image, *structure = inputs
        told = dict(zip(GRAPHS, structure, strict=True))
        graphs = GraphBatch(**told, flow=told["relations"][:, 0])  # the encoder does not look at the flow
        memory = self.captioner.encoder.dense(regions, graphs)
        return memory, self.captioner.decoder.image_gates(self.captioner.image(image, memory, graphs.mask))


class _Advance(nn.Module):
    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.decoder = decoder
        self.weights = decoder.weights()  # joined here, so that the graph holds them as they are used

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        state = State(**dict(zip(STATE, inputs, strict=False)))
        guide = Guide(**dict(zip(GUIDE, inputs[len(STATE) :], strict=False)))
        after, scores = self.decoder.advance(state, guide, inputs[-1], self.weights)
        return (*parts_of(after), scores)


def _begin_example(captioner: Captioner, rows: int = 3, nodes: int = 4) -> tuple[Tensor, ...]:
    """Inputs of likely shapes; two sizes that are equal would be taken for one."""
    config = captioner.config
    return (
        torch.rand(rows, nodes, config.region_size),
        torch.rand(rows, config.global_size),
        torch.zeros(rows, nodes, dtype=torch.int64),
        torch.zeros(rows, nodes, dtype=torch.int64),
        _mask(rows, nodes),
        torch.rand(rows, RELATION_TYPES, nodes, nodes),
    )


def _advance_example(width: int, rows: int = 3, nodes: int = 4) -> tuple[Tensor, ...]:
    """See `_begin_example`."""
    mask = _mask(rows, nodes)
    return (
        *[torch.rand(rows, width) for _ in range(4)],
        torch.rand(rows, nodes),
        torch.rand(rows, nodes, width),
        torch.rand(rows, 4 * width),
        torch.rand(rows, nodes, nodes),
        mask,
        mask.flatten().nonzero()[:, 0],
        torch.rand(rows, 4 * width),
    )


def _mask(rows: int, nodes: int) -> Tensor:
    mask = torch.ones(rows, nodes, dtype=torch.bool)
    mask[0, -1] = False
    return mask
