"""A whole backend of a few lines, for tests of the facade: everything it says is plain arithmetic on the pixels."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from PIL import Image

from saaa.errors import BackendUnavailable
from saaa.v1 import analysis_pb2 as pb
from saaa.v1.analysis_pb2_grpc import AnalysisServiceStub
from saaa.work import (
    AttributionMap,
    CaptionResult,
    ItemError,
    ItemResult,
    MethodInfo,
    ModelInfo,
    ModelKind,
    TargetKind,
    Work,
    WorkBatch,
    WorkItem,
)
from serving.server import Facade
from serving.settings import FacadeSettings

CLASSES = ("red", "green", "blue")
SIZE = 16
METHODS = (
    MethodInfo(name="brightness", cost_forwards=2, reference="here"),
    MethodInfo(name="integrated_gradients", cost_forwards=32, reference="there"),
    MethodInfo(name="rise", cost_forwards=500, reference="elsewhere"),
    MethodInfo(name="region_shapley", cost_forwards=256, reference="nowhere"),
)
WORD_METHODS = (
    MethodInfo(name="attention", cost_forwards=0.5, reference="here", targets=(TargetKind.WORD, TargetKind.NODE)),
    MethodInfo(name="gradient_x_input", cost_forwards=2, reference="there", targets=(TargetKind.WORD,)),
)
CLASSIFIER = ModelInfo(
    name="colours",
    version="1",
    kind=ModelKind.EGDD,
    digest="a" * 64,
    input_size=SIZE,
    classes=CLASSES,
    methods=METHODS,
    card_json='{"about": "arithmetic"}',
)
CAPTIONER = ModelInfo(
    name="words",
    version="2",
    kind=ModelKind.EGA,
    digest="b" * 64,
    input_size=SIZE,
    vocabulary_size=10,
    max_nodes=5,
    max_words=12,
    methods=WORD_METHODS,
)


class PixelBackend:
    """The class is the strongest channel; the map its values in 4 x 4 cells; the caption counts the nodes.

    The effect of a node is its place squared; the map of a word or node is bright in one row of cells. A picture with a
    pure white corner is refused by the model as bad.
    """

    name = "pixels"

    def __init__(self, *models: ModelInfo) -> None:
        self.models = models or (CLASSIFIER, CAPTIONER)
        self.seconds = 0.0
        self.down = False
        self.broken: Exception | None = None
        self.batches: list[WorkBatch] = []
        self.closed = False

    async def describe(self) -> tuple[ModelInfo, ...]:
        self._check()
        return self.models

    async def ready(self) -> frozenset[tuple[str, str]]:
        return frozenset() if self.down else frozenset((info.name, info.version) for info in self.models)

    async def run(self, batch: WorkBatch, *, timeout: float) -> list[ItemResult]:
        self._check()
        if self.broken is not None:
            raise self.broken
        self.batches.append(batch)
        await asyncio.sleep(self.seconds)
        self._check()
        return [_answer(batch, pixels, item) for pixels, item in zip(batch.pixels, batch.items, strict=True)]

    async def close(self) -> None:
        self.closed = True

    def _check(self) -> None:
        if self.down:
            raise BackendUnavailable("the backend is down")


def _answer(batch: WorkBatch, pixels: np.ndarray, item: WorkItem) -> ItemResult:
    if (pixels[0, 0] == 255).all():
        return ItemResult(error=ItemError(reason="IMAGE_REJECTED", message="too white", field="image"))
    if batch.work is Work.CAPTION:
        assert item.graph is not None
        nodes = len(item.graph)
        words = item.text or ("nodes", str(nodes))[: batch.caption.max_words]
        caption = CaptionResult(
            words=words,
            log_probabilities=np.full(len(words), -0.5, np.float32),
            node_weights=np.full((len(words), nodes), 1 / nodes, np.float32),
            log_probability=-1.5,
        )
        if item.words and max(item.words) >= len(words):
            message = f"There is no word {max(item.words)}; the caption has {len(words)} words."
            return ItemResult(error=ItemError(reason="OPTION_INVALID", message=message, field="attribution.words"))
        wanted = [(TargetKind.WORD, place) for place in (range(len(words)) if item.every_word else item.words)]
        wanted += [(TargetKind.NODE, place) for place in item.nodes]
        maps = tuple(
            AttributionMap(
                target=place,
                kind=kind,
                method=batch.explain.method,
                values=np.repeat(np.arange(4) == place % 4, 4).reshape(4, 4).astype(np.float32),
                node_weights=np.arange(nodes, dtype=np.float32),
                deletion_drop=0.5 if batch.explain.deletion else None,
            )
            for kind, place in wanted
        )
        return ItemResult(captions=(caption,) * batch.caption.count, maps=maps)
    scores = np.exp(pixels.mean((0, 1)) / 50)
    probabilities = (scores / scores.sum()).astype(np.float32)
    if batch.work is Work.PREDICT:
        return ItemResult(probabilities=probabilities)
    maps = []
    for target in item.targets or (int(probabilities.argmax()),):
        cells = pixels[..., target].reshape(4, SIZE // 4, 4, SIZE // 4).mean((1, 3)).astype(np.float32)
        gap = 0.01 if batch.explain.method == "integrated_gradients" else None
        effects = np.arange(len(item.graph), dtype=np.float32) ** 2 if item.graph and batch.explain.effects else None
        maps.append(
            AttributionMap(
                target=target,
                method=batch.explain.method,
                values=cells,
                completeness_gap=gap,
                deletion_drop=0.25 if batch.explain.deletion else None,
                effects=effects,
            )
        )
    return ItemResult(probabilities=probabilities, maps=tuple(maps))


def photo(colour: tuple[int, int, int] = (200, 30, 30), size: tuple[int, int] = (80, 40)) -> bytes:
    """A PNG: one colour with a bright square left of the middle, so that maps have a peak."""
    image = Image.new("RGB", size, tuple(value // 4 for value in colour))
    image.paste(colour, (size[0] // 4, size[1] // 4, size[0] // 2, size[1] // 2))
    return _png(image)


def plain(colour: tuple[int, int, int]) -> bytes:
    """A PNG of one colour."""
    return _png(Image.new("RGB", (8, 8), colour))


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def thing(number: int, box: tuple[int, int, int, int] = (1, 2, 20, 10), *attributes: str) -> pb.SceneObject:
    """An object message."""
    x, y, width, height = box
    place = pb.Box(x=x, y=y, width=width, height=height)
    return pb.SceneObject(id=number, name=f"thing {number}", box=place, attributes=attributes)


def link(number: int, subject: int, target: int) -> pb.Relationship:
    """A relationship message."""
    return pb.Relationship(id=number, subject_id=subject, object_id=target, name="near")


QUICK = FacadeSettings(port=0, probe_interval_s=0.05, leave_s=0, drain_s=2.0)


class Caller:
    """A running facade and a stub of each service."""

    def __init__(self, facade: Facade, channel: grpc.aio.Channel) -> None:
        self.facade = facade
        self.channel = channel
        self.stub: Any = AnalysisServiceStub(channel)

    async def analyze(self, image: bytes | None = None, timeout: float = 20, **fields: Any) -> pb.AnalyzeResponse:
        request = pb.AnalyzeRequest(image=photo() if image is None else image, **fields)
        return await self.stub.Analyze(request, timeout=timeout)


@asynccontextmanager
async def calling(backend: Any, settings: FacadeSettings = QUICK, **changes: Any) -> AsyncIterator[Caller]:
    """A facade in front of `backend` on a free port, and a channel to it."""
    async with Facade(backend, replace(settings, **changes)) as facade:
        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        async with grpc.aio.insecure_channel(facade.address, options=options) as channel:
            yield Caller(facade, channel)


class Refusal:
    """A failed call with its `google.rpc` details taken apart."""

    def __init__(self, error: grpc.aio.AioRpcError) -> None:
        self.code = error.code()
        self.text = error.details() or ""
        self.reason = ""
        self.fields: dict[str, str] = {}
        self.retry_s: float | None = None
        self.incident = ""
        status = rpc_status.from_call(error)  # type: ignore[arg-type]
        for detail in status.details if status else ():
            info, bad, retry = (
                error_details_pb2.ErrorInfo(),
                error_details_pb2.BadRequest(),
                error_details_pb2.RetryInfo(),
            )
            if detail.Unpack(info):
                self.reason = info.reason
                self.incident = info.metadata.get("incident", "")
                assert info.domain == "saaa"
            elif detail.Unpack(bad):
                self.fields = {entry.field: entry.description for entry in bad.field_violations}
            elif detail.Unpack(retry):
                self.retry_s = retry.retry_delay.ToTimedelta().total_seconds()


async def refusal(call: Any) -> Refusal:
    with pytest.raises(grpc.RpcError) as failure:
        await call
    return Refusal(failure.value)
