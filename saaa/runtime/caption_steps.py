"""The captioner's decode step on OpenVINO."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from saaa.models.captioner.decoder import Decoder, Guide, State
from saaa.models.captioner.vocabulary import EOS
from saaa.runtime.blobs import Blobs
from saaa.runtime.caption_graph import INPUTS, NEXT, OUTPUTS, SCORES, parts_of
from saaa.runtime.engine import Engine
from saaa.runtime.graph import Graph


class OpenVinoSteps:
    """Takes the decoder's steps in its place: an `Advance`, see `saaa.models.captioner.search`. Not thread-safe.

    What it computes of a caption does not wait for other rows, which may leave at any step: every size is free.

    Args:
        graph: of `trace_step`.
        decoder: the one that was traced; the words' gates are looked up in a table that is made of it.
        precision, threads, blobs: as for `saaa.runtime.engine.Engine`.

    Raises:
        RuntimeError: openvino cannot read or compile the graph.
    """

    def __init__(
        self, graph: Graph, decoder: Decoder, *, precision: str, threads: int | None = None, blobs: Blobs | None = None
    ) -> None:
        engine = Engine(graph, precision=precision, threads=threads, blobs=blobs)
        self.name = engine.name
        self.precision = precision
        self._request: Any = engine.compile("decode step", lambda: engine.model).create_infer_request()
        with torch.inference_mode():
            self._words = decoder.word_gates(torch.arange(decoder.words.num_embeddings))

    def __call__(self, state: State, guide: Guide, last: Tensor) -> tuple[State, Tensor]:
        """See `Advance`.

        Raises:
            ArithmeticError: the answer is not finite.
        """
        real = torch.arange(guide.mask.numel()) if guide.real is None else guide.real
        parts = (*parts_of(state), *parts_of(replace(guide, real=real)), self._words[last])
        inputs = {name: part.numpy() for name, part in zip(INPUTS, parts, strict=True)}
        self._request.infer(inputs, share_inputs=True, share_outputs=True)
        made = {name: torch.from_numpy(self._request.get_tensor(name).data) for name in OUTPUTS}
        scores = made[SCORES]
        if not bool(scores[:, EOS].isfinite().all()):  # what is not finite anywhere in a row gets here at once
            raise ArithmeticError(f"{self.name} gave what is not finite")
        # The next step writes where this one did, so the state is copied; nobody needs the scores until then.
        return State(**{field: made[name].clone() for field, name in NEXT.items()}), scores
