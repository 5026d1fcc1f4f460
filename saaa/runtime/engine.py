"""OpenVINO on this processor: read an archive's graph, compile parts of it, keep what was compiled."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import openvino

from saaa.runtime.blobs import Blobs
from saaa.runtime.graph import Graph
from saaa.runtime.options import BF16, FP32

VERSION = openvino.__version__.split("-")[0]
_HINTS = {FP32: "f32", BF16: "bf16"}
_DEVICE = "CPU"
# One for the process, never dropped. Each core's plugin puts a signal stack of its own in place for the thread that
# loads it and unmaps that when the core goes; when cores go in another order than last in, first out, or in another
# thread, the thread is left with a stack that is gone, and the next signal Python handles there ends the process.
_CORE = openvino.Core()


class Engine:
    """Compiles one graph at one precision.

    Args:
        graph: of the archive.
        precision: "fp32" or "bf16"; also where bf16 is only imitated, see `has_bf16`.
        threads: at least 1; None is one a processor.
        blobs: where what is compiled is kept; None keeps nothing.
    """

    def __init__(self, graph: Graph, *, precision: str, threads: int | None = None, blobs: Blobs | None = None) -> None:
        self.name = f"openvino {VERSION} {precision}"
        self._graph = graph
        self._blobs = blobs
        self._precision = precision
        self._settings: dict[str, Any] = {
            "INFERENCE_NUM_THREADS": threads or os.cpu_count() or 1,
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,  # several workers would share one core
        }
        self._model: Any = None

    def compile(self, name: str, cut: Callable[[], Any], precision: str | None = None) -> Any:
        """Give a compiled part of the graph: the one kept under the name, or what `cut` gives, which is then kept.

        Args:
            name: a part is always compiled at the same precision.
            cut: gives the part.
            precision: in place of the engine's.

        Raises:
            RuntimeError: openvino cannot read or compile it.
        """
        settings = {**self._settings, "INFERENCE_PRECISION_HINT": _HINTS[precision or self._precision]}
        kept = self._blobs.load(name) if self._blobs is not None else None
        if kept is not None:
            return _CORE.import_model(kept, _DEVICE, settings)
        compiled = _CORE.compile_model(cut(), _DEVICE, settings)
        if self._blobs is not None:
            self._blobs.store(name, compiled.export_model().getvalue())
        return compiled

    @property
    def model(self) -> Any:
        """The whole graph, read when it is first needed."""
        if self._model is None:
            weights = openvino.Tensor(np.frombuffer(self._graph.weights, np.uint8))
            self._model = _CORE.read_model(self._graph.xml.decode(), weights)
        return self._model


def has_bf16() -> bool:
    """Whether this processor has units for bf16; OpenVINO imitates them elsewhere, which is slow."""
    return "BF16" in _CORE.get_property(_DEVICE, "OPTIMIZATION_CAPABILITIES")
