"""A captioner's parts on OpenVINO."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import openvino
import torch
from torch import Tensor

from saaa.models.captioner import Captioner, GraphBatch
from saaa.models.captioner.decoder import Guide, State
from saaa.models.captioner.vocabulary import EOS
from saaa.runtime.blobs import Blobs
from saaa.runtime.caption_graph import (
    ADVANCE_INPUTS,
    ADVANCE_OUTPUTS,
    BEGIN_INPUTS,
    BEGIN_OUTPUTS,
    GRAPHS,
    NEXT,
    PIXELS,
    level_of,
    parts_of,
)
from saaa.runtime.engine import Engine
from saaa.runtime.graph import Graph
from saaa.runtime.options import FP32


class OpenVinoCaptioner:
    """See `saaa.models.parts.CaptionerParts`. Not thread-safe.

    What it computes of an image or a caption does not depend on the others; captions may leave at any step. Only the
    decoder's steps are in bf16 where that is asked for, and of these the large products, see `saaa.runtime.precise`:
    pictures seen in bf16 are captioned otherwise, one in ten.

    Args:
        graph: of `saaa.runtime.caption_tracing`.
        captioner: the one that was traced; the words' gates are looked up in a table that is made of its decoder.
        levels: how many maps its backbone gives; 0 where that was not traced.
        precision, threads, blobs: as for `saaa.runtime.engine.Engine`.

    Raises:
        RuntimeError: openvino cannot read or compile the graph.
    """

    def __init__(
        self,
        graph: Graph,
        captioner: Captioner,
        *,
        levels: int,
        precision: str,
        threads: int | None = None,
        blobs: Blobs | None = None,
    ) -> None:
        self._engine = Engine(graph, precision=precision, threads=threads, blobs=blobs)
        self.name = self._engine.name
        self.precision = precision
        self._decoder = decoder = captioner.decoder
        self._levels = [level_of(index) for index in range(levels)]
        self._requests: dict[str, Any] = {}
        with torch.inference_mode():
            self._words = decoder.word_gates(torch.arange(decoder.words.num_embeddings))

    def see(self, pixels: Tensor) -> list[Tensor]:
        """See `CaptionerParts`; an image may have got what is not finite."""
        made = [[level.clone() for level in self._run("see", {PIXELS: image[None]}, self._levels)] for image in pixels]
        return [torch.cat(levels) for levels in zip(*made, strict=True)]

    def begin(self, regions: Tensor, image: Tensor, graphs: GraphBatch) -> tuple[State, Guide]:
        """See `CaptionerParts`.

        Raises:
            ArithmeticError: the answer is not finite.
        """
        parts = (regions, image, *(getattr(graphs, field) for field in GRAPHS))
        memory, gates = self._run("begin", dict(zip(BEGIN_INPUTS, parts, strict=True)), BEGIN_OUTPUTS)
        self._check(gates)
        return self._decoder.start(memory.clone(), gates.clone(), graphs)

    def advance(self, state: State, guide: Guide, last: Tensor) -> tuple[State, Tensor]:
        """See `CaptionerParts`.

        Raises:
            ArithmeticError: the answer is not finite.
        """
        real = torch.arange(guide.mask.numel()) if guide.real is None else guide.real
        parts = (*parts_of(state), *parts_of(replace(guide, real=real)), self._words[last])
        *after, scores = self._run("advance", dict(zip(ADVANCE_INPUTS, parts, strict=True)), ADVANCE_OUTPUTS)
        self._check(scores[:, EOS])  # what is not finite anywhere in a row gets here at once
        # The next step writes where this one did, so the state is copied; nobody needs the scores until then.
        return State(**{field: part.clone() for field, part in zip(NEXT, after, strict=True)}), scores

    def _run(self, part: str, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> list[Tensor]:
        """The outputs, in memory that the next run of the part writes into."""
        if part not in self._requests:
            precision = None if part == "advance" else FP32
            compiled = self._engine.compile(part, lambda: self._cut(part, list(inputs), outputs), precision)
            self._requests[part] = compiled.create_infer_request()
        request = self._requests[part]
        request.infer({name: value.numpy() for name, value in inputs.items()}, share_inputs=True, share_outputs=True)
        return [torch.from_numpy(request.get_tensor(name).data) for name in outputs]

    def _cut(self, part: str, inputs: Sequence[str], outputs: Sequence[str]) -> Any:
        model = self._engine.model
        return openvino.Model(
            [model.output(name).get_node() for name in outputs], [model.input(name).get_node() for name in inputs], part
        )

    def _check(self, values: Tensor) -> None:
        if not bool(values.isfinite().all()):
            raise ArithmeticError(f"{self.name} gave what is not finite")
