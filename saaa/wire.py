"""The one codec between a backend and a model handler: packed batches, packed results, descriptions.

A batch travels as two byte strings: a small protobuf header (`saaa.packed.v1.Batch`) and the raw pixels; the
answer is one `saaa.packed.v1.Results`. Arrays are raw little-endian float32, never JSON.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import ArrayLike, NDArray

from saaa.errors import BackendFailed, InvalidInput, SceneGraphError
from saaa.packed.v1 import packed_pb2 as pb
from saaa.scene_graph import RoleGraph
from saaa.work import (
    AttributionMap,
    CaptionOptions,
    CaptionResult,
    Execution,
    ExplainOptions,
    ItemError,
    ItemResult,
    MethodInfo,
    ModelInfo,
    ModelKind,
    Sampling,
    TargetKind,
    Work,
    WorkBatch,
    WorkItem,
)

MAX_MESSAGE_BYTES = 64 * 2**20
"""Largest request and answer between a backend and a handler; the same at both ends."""
HEADER_KEY, PIXELS_KEY = "batch", "pixels"
"""Names of the two inputs of a TorchServe prediction."""

_WORKS = {Work.PREDICT: pb.WORK_PREDICT, Work.EXPLAIN: pb.WORK_EXPLAIN, Work.CAPTION: pb.WORK_CAPTION}
_WORKS_BACK = {value: key for key, value in _WORKS.items()}
_TARGETS = {
    TargetKind.CLASS: pb.TARGET_KIND_CLASS,
    TargetKind.WORD: pb.TARGET_KIND_WORD,
    TargetKind.NODE: pb.TARGET_KIND_NODE,
}
_TARGETS_BACK = {value: key for key, value in _TARGETS.items()}
_EXPLAIN = tuple(field.name for field in dataclasses.fields(ExplainOptions))
"""The header has a field of the same name for each."""
_FLOAT = np.dtype("<f4")


def pack_batch(batch: WorkBatch, *, trace: str = "") -> tuple[bytes, bytes]:
    """Give the header and the pixels of a batch.

    Args:
        batch: to be sent.
        trace: W3C traceparent under which the handler traces its part; empty is none.

    Raises:
        InvalidInput: a number that is not one, or beyond 32 bits.
    """
    try:
        header = pb.Batch(
            work=_WORKS[batch.work],
            model=batch.model,
            version=batch.version,
            shape=batch.pixels.shape[:3],
            items=[_pack_item(item) for item in batch.items],
            **dataclasses.asdict(batch.explain),
            beam_width=batch.caption.beam_width,
            count=batch.caption.count,
            max_words=batch.caption.max_words or 0,
            length_penalty=batch.caption.length_penalty,
            sampling=_pack_sampling(batch.caption.sampling),
            trace=trace,
        )
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"The batch holds a value that cannot be sent: {error}") from error
    return header.SerializeToString(), _bytes(batch.pixels)


def pack_describe() -> bytes:
    """Give the header that asks a handler what model it runs; its pixels are empty."""
    return pb.Batch(work=pb.WORK_DESCRIBE).SerializeToString()


def unpack_batch(header: bytes | bytearray, pixels: bytes | bytearray) -> WorkBatch | None:
    """Read a batch, without copying the pixels; None stands for the question that `pack_describe` asks.

    Raises:
        InvalidInput: not a packed batch, or its parts contradict each other.
    """
    message = pb.Batch()
    try:
        message.ParseFromString(bytes(header))
    except DecodeError:
        raise InvalidInput("The header is not a packed batch.", field="batch") from None
    if message.work == pb.WORK_DESCRIBE:
        return None
    work = _WORKS_BACK.get(message.work)
    if work is None:
        raise InvalidInput(f"The batch asks for unknown work {message.work}.", field="batch.work")
    shape = tuple(message.shape)
    if len(shape) != 3 or shape[0] != len(message.items) or min(shape) < 1:
        raise InvalidInput(f"Shape {shape} does not fit {len(message.items)} items.", field="batch.shape")
    if shape[0] * shape[1] * shape[2] * 3 != len(pixels):
        raise InvalidInput(f"{len(pixels)} bytes of pixels do not fill shape {(*shape, 3)}.", field="pixels")
    try:
        items = tuple(_unpack_item(item) for item in message.items)
    except (SceneGraphError, ValueError) as error:
        raise InvalidInput(f"A graph of the batch is malformed: {error}", field="batch.items") from error
    return WorkBatch(
        model=message.model,
        version=message.version,
        work=work,
        pixels=np.frombuffer(pixels, np.uint8).reshape(*shape, 3),
        items=items,
        explain=ExplainOptions(**{name: getattr(message, name) for name in _EXPLAIN}),
        caption=CaptionOptions(
            beam_width=message.beam_width,
            count=message.count,
            max_words=message.max_words or None,
            length_penalty=message.length_penalty,
            sampling=_unpack_sampling(message.sampling) if message.HasField("sampling") else None,
        ),
    )


def trace_of(header: bytes | bytearray) -> str:
    """The W3C traceparent that a header brings; empty where it brings none or is no header."""
    message = pb.Batch()
    try:
        message.ParseFromString(bytes(header))
    except DecodeError:
        return ""
    return message.trace


def pack_results(results: list[ItemResult]) -> bytes:
    """Pack the answer to a batch."""
    return pb.Results(results=[_pack_result(result) for result in results]).SerializeToString()


def pack_description(info: ModelInfo) -> bytes:
    """Pack the answer to `pack_describe`."""
    # The enumerations travel as their values.
    text = json.dumps(dataclasses.asdict(info), default=lambda member: member.value)
    return pb.Results(description_json=text).SerializeToString()


def pack_failure(error: ItemError) -> bytes:
    """Pack the answer to a batch that could not be read or run at all."""
    return pb.Results(error=_pack_error(error)).SerializeToString()


def unpack_results(data: bytes, count: int) -> list[ItemResult]:
    """Read the answer to a batch of `count` items.

    Raises:
        BackendFailed: not a packed answer, an answer to another batch, or the batch failed as a whole.
    """
    message = _parse_results(data)
    if len(message.results) != count:
        raise BackendFailed(f"The model answered {len(message.results)} of {count} items.")
    try:
        return [_unpack_result(result) for result in message.results]
    except ValueError as error:
        raise BackendFailed(f"The model's answer is malformed: {error}") from error


def unpack_description(data: bytes) -> ModelInfo:
    """Read the answer to `pack_describe`.

    Raises:
        BackendFailed: not a description.
    """
    text = _parse_results(data).description_json
    try:
        fields: dict[str, Any] = json.loads(text)
        return ModelInfo(
            **fields
            | {
                "kind": ModelKind(fields["kind"]),
                "classes": tuple(fields["classes"]),
                "decode_scales": tuple(fields.get("decode_scales", ())),
                "methods": tuple(
                    MethodInfo(**method | {"targets": tuple(map(TargetKind, method["targets"]))})
                    for method in fields["methods"]
                ),
                "execution": Execution(**fields["execution"]) if fields.get("execution") else None,
            }
        )
    except (ValueError, TypeError, KeyError) as error:
        raise BackendFailed(f"The model's description is malformed: {error!r}") from error


def _pack_sampling(sampling: Sampling | None) -> pb.Sampling | None:
    if sampling is None:
        return None
    return pb.Sampling(
        temperature=sampling.temperature, top_k=sampling.top_k or 0, top_p=sampling.top_p, seed=sampling.seed
    )


def _unpack_sampling(message: pb.Sampling) -> Sampling:
    return Sampling(
        temperature=message.temperature, top_k=message.top_k or None, top_p=message.top_p, seed=message.seed
    )


def _pack_item(item: WorkItem) -> pb.Item:
    graph = item.graph
    return pb.Item(
        targets=item.targets,
        graph=None
        if graph is None
        else pb.Graph(
            types=graph.types.tolist(),
            orders=graph.orders.tolist(),
            boxes=graph.boxes.ravel().tolist(),
            edges=graph.edges.ravel().tolist(),
        ),
        text=None if item.text is None else pb.Words(words=item.text),
        words=item.words,
        every_word=item.every_word,
        nodes=item.nodes,
    )


def _unpack_item(item: pb.Item) -> WorkItem:
    graph = None
    if item.HasField("graph"):
        graph = RoleGraph(
            types=np.array(item.graph.types, np.int64),
            orders=np.array(item.graph.orders, np.int64),
            boxes=np.array(item.graph.boxes, np.float32).reshape(-1, 4),
            edges=np.array(item.graph.edges, np.int64).reshape(-1, 3),
        )
    return WorkItem(
        targets=tuple(item.targets),
        graph=graph,
        text=tuple(item.text.words) if item.HasField("text") else None,
        words=tuple(item.words),
        every_word=item.every_word,
        nodes=tuple(item.nodes),
    )


def _pack_result(result: ItemResult) -> pb.Result:
    if result.error is not None:
        return pb.Result(error=_pack_error(result.error))
    return pb.Result(
        probabilities=b"" if result.probabilities is None else _floats(result.probabilities),
        recomputed=result.recomputed,
        maps=[
            pb.Map(
                target=m.target,
                method=m.method,
                height=m.values.shape[0],
                width=m.values.shape[1],
                values=_floats(m.values),
                completeness_gap=m.completeness_gap,
                kind=_TARGETS[m.kind],
                deletion_drop=m.deletion_drop,
                node_weights=None if m.node_weights is None else _floats(m.node_weights),
                effects=None if m.effects is None else _floats(m.effects),
            )
            for m in result.maps
        ],
        captions=[
            pb.Caption(
                words=c.words,
                log_probabilities=_floats(c.log_probabilities),
                node_weights=_floats(c.node_weights),
                nodes=c.node_weights.shape[1],
                log_probability=c.log_probability,
            )
            for c in result.captions
        ],
    )


def _unpack_result(result: pb.Result) -> ItemResult:
    if result.HasField("error"):
        error = result.error
        return ItemResult(error=ItemError(reason=error.reason, message=error.message, field=error.field))
    return ItemResult(
        probabilities=_array(result.probabilities, -1) if result.probabilities else None,
        recomputed=result.recomputed,
        maps=tuple(_unpack_map(m) for m in result.maps),
        captions=tuple(
            CaptionResult(
                words=tuple(c.words),
                log_probabilities=_array(c.log_probabilities, len(c.words)),
                node_weights=_array(c.node_weights, len(c.words), c.nodes),
                log_probability=c.log_probability,
            )
            for c in result.captions
        ),
    )


def _unpack_map(m: pb.Map) -> AttributionMap:
    if m.kind not in _TARGETS_BACK:
        raise ValueError(f"a map explains target kind {m.kind}, which is none")
    return AttributionMap(
        target=m.target,
        kind=_TARGETS_BACK[m.kind],
        method=m.method,
        values=_array(m.values, m.height, m.width),
        completeness_gap=m.completeness_gap if m.HasField("completeness_gap") else None,
        deletion_drop=m.deletion_drop if m.HasField("deletion_drop") else None,
        node_weights=_array(m.node_weights, -1) if m.HasField("node_weights") else None,
        effects=_array(m.effects, -1) if m.HasField("effects") else None,
    )


def _pack_error(error: ItemError) -> pb.Error:
    return pb.Error(reason=error.reason, message=error.message, field=error.field)


def _parse_results(data: bytes) -> pb.Results:
    message = pb.Results()
    try:
        message.ParseFromString(data)
    except DecodeError:
        raise BackendFailed("The model's answer is not a packed answer.") from None
    if message.HasField("error"):
        raise BackendFailed(f"The model refused the batch ({message.error.reason}): {message.error.message}")
    return message


def _bytes(pixels: NDArray[np.uint8]) -> bytes:
    """The pixels in order: the very bytes that an array is a view of, where it is one of all of them, else a copy."""
    owner: Any = pixels
    while isinstance(owner, np.ndarray):
        owner = owner.base
    if isinstance(owner, bytes) and len(owner) == pixels.nbytes and pixels.flags.c_contiguous:
        return owner
    return np.ascontiguousarray(pixels, np.uint8).tobytes()


def _floats(values: ArrayLike) -> bytes:
    return np.ascontiguousarray(values, _FLOAT).tobytes()


def _array(data: bytes, *shape: int) -> NDArray[np.float32]:
    return np.frombuffer(data, _FLOAT).reshape(shape).astype(np.float32)
