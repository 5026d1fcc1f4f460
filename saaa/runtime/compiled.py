"""The OpenVINO runtime of classifiers: the archive's graph, compiled for this processor.

The graph takes one image, so a batch is a loop: on a processor larger batches are no faster, nothing is padded, and an
image's answer does not depend on its neighbours in the last bit. How many classes share a forward is a bucket: 1, 2 or
`CLASSES_AT_ONCE`. Each bucket is a cut of the one graph, compiled when it is first needed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray

from saaa.runtime.base import Explanations
from saaa.runtime.blobs import Blobs
from saaa.runtime.graph import CLASSES_AT_ONCE, LOGITS, PIXELS, Graph, class_of, logits_of, map_of, target_of
from saaa.runtime.options import BF16, FP32
from saaa.work import AUTO_METHOD, AttributionMap, ExplainOptions, WorkItem

VERSION = openvino.__version__.split("-")[0]
_HINTS = {FP32: "f32", BF16: "bf16"}
_BUCKETS = (1, 2, CLASSES_AT_ONCE)
_DEVICE = "CPU"
# One for the process, never dropped. Each core's plugin puts a signal stack of its own in place for the thread that
# loads it and unmaps that when the core goes; when cores go in another order than last in, first out, or in another
# thread, the thread is left with a stack that is gone, and the next signal Python handles there ends the process.
_CORE = openvino.Core()


class OpenVinoClassifier:
    """See `ClassifierRuntime`.

    Args:
        graph: of the archive.
        default: the method that "auto" stands for.
        precision: "fp32" or "bf16"; also where bf16 is only imitated, see `has_bf16`.
        threads: at least 1; None is one a processor.
        blobs: where what is compiled is kept; None keeps nothing.

    Raises:
        RuntimeError: openvino cannot read or compile the graph.
    """

    def __init__(
        self, graph: Graph, *, default: str, precision: str, threads: int | None = None, blobs: Blobs | None = None
    ) -> None:
        self.name = f"openvino {VERSION} {precision}"
        self._graph = graph
        self._default = default
        self._blobs = blobs
        self._settings: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": _HINTS[precision],
            "INFERENCE_NUM_THREADS": threads or os.cpu_count() or 1,
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,  # several workers would share one core
        }
        self._model: Any = None
        self._requests: dict[tuple[str, int], Any] = {}

    def predict(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See `ClassifierRuntime`."""
        request = self._request(LOGITS, 0)
        return np.concatenate([_run(request, {PIXELS: image[None]}, (LOGITS,))[0] for image in pixels])

    def explains(self, options: ExplainOptions) -> bool:
        """Only methods in the graph, as it was traced: without the gamma rule, and without measuring the map."""
        method = self._default if options.method == AUTO_METHOD else options.method
        return method in self._graph.methods and not (options.gamma or options.deletion or options.effects)

    def explain(self, pixels: NDArray[np.uint8], items: Sequence[WorkItem], options: ExplainOptions) -> Explanations:
        """See `ClassifierRuntime`."""
        method = self._default if options.method == AUTO_METHOD else options.method
        logits: list[NDArray[np.float32]] = []
        maps: list[tuple[AttributionMap, ...]] = []
        for image, item in zip(pixels, items, strict=True):
            entries: list[AttributionMap] = []
            for row, targets in self._rounds(image, item.targets or (-1,), method):
                entries += [AttributionMap(target=target, method=method, values=values) for target, values in targets]
                first = row
            logits.append(first)
            maps.append(tuple(entries))
        return Explanations(logits=np.concatenate(logits), maps=maps)

    def _rounds(
        self, image: NDArray[np.uint8], targets: tuple[int, ...], method: str
    ) -> Iterator[tuple[NDArray[np.float32], list[tuple[int, NDArray[np.float32]]]]]:
        """For each forward its logits, (1, classes), and the classes with their maps."""
        for start in range(0, len(targets), CLASSES_AT_ONCE):
            wanted = targets[start : start + CLASSES_AT_ONCE]
            bucket = next(size for size in _BUCKETS if size >= len(wanted))
            inputs: dict[str, NDArray[Any]] = {PIXELS: image[None]}
            for turn in range(bucket):  # what is too much repeats the last one
                inputs[target_of(turn)] = np.array([wanted[min(turn, len(wanted) - 1)]], np.int64)
            names = [logits_of(method)]
            for turn in range(len(wanted)):
                names += [class_of(method, turn), map_of(method, turn)]
            row, *rest = _run(self._request(method, bucket), inputs, names)
            yield row, [(int(chosen[0]), values[0]) for chosen, values in zip(rest[::2], rest[1::2], strict=True)]

    def _request(self, part: str, bucket: int) -> Any:
        key = (part, bucket)
        if key not in self._requests:
            self._requests[key] = self._compile(part, bucket).create_infer_request()
        return self._requests[key]

    def _compile(self, part: str, bucket: int) -> Any:
        name = f"{part} {bucket}"
        kept = self._blobs.load(name) if self._blobs is not None else None
        if kept is not None:
            return _CORE.import_model(kept, _DEVICE, self._settings)
        compiled = _CORE.compile_model(self._cut(part, bucket), _DEVICE, self._settings)
        if self._blobs is not None:
            self._blobs.store(name, compiled.export_model().getvalue())
        return compiled

    def _cut(self, part: str, bucket: int) -> Any:
        """The part of the graph that makes some outputs, and nothing else."""
        if self._model is None:
            weights = openvino.Tensor(np.frombuffer(self._graph.weights, np.uint8))
            self._model = _CORE.read_model(self._graph.xml.decode(), weights)
        inputs = [PIXELS, *map(target_of, range(bucket))]
        outputs = [LOGITS] if part == LOGITS else [logits_of(part)]
        for turn in range(bucket):
            outputs += [class_of(part, turn), map_of(part, turn)]
        return openvino.Model(
            [self._model.output(name).get_node() for name in outputs],
            [self._model.input(name).get_node() for name in inputs],
            part,
        )


def has_bf16() -> bool:
    """Whether this processor has units for bf16; OpenVINO imitates them elsewhere, which is slow."""
    return "BF16" in _CORE.get_property(_DEVICE, "OPTIMIZATION_CAPABILITIES")


def _run(request: Any, inputs: dict[str, NDArray[Any]], outputs: Sequence[str]) -> list[NDArray[Any]]:
    request.infer(inputs, share_inputs=False)
    return [request.get_tensor(name).data.copy() for name in outputs]
