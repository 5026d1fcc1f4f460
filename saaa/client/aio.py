"""The client for asyncio."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Unpack

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from saaa.client import convert
from saaa.client.attributions import Attribution
from saaa.client.channel import (
    CHANNEL_OPTIONS,
    DEFAULT_TIMEOUT_S,
    POLL_S,
    SERVICE,
    health_state,
    not_ready,
    positive,
    still_waiting,
)
from saaa.client.credentials import Bearer
from saaa.client.errors import RequestInvalid, RpcFailed
from saaa.client.many import Exchange, Item, Outcome
from saaa.client.models import Model
from saaa.client.rating import RecordedRating, RelevanceRating, rating_request, recorded_rating
from saaa.client.request import AnalyzeOptions, Image, analyze_request
from saaa.client.results import Analysis
from saaa.client.upload import must_upload, upload_pieces
from saaa.v1 import analysis_pb2 as pb
from saaa.v1.analysis_pb2_grpc import AnalysisServiceStub
from saaa.v1.feedback_pb2_grpc import FeedbackServiceStub

_ACCEPTED = ("accepted", "1")
"""Of the initial metadata of a call that sends many messages and was let in (analysis.proto)."""
_STATUS_LOST = "Internal error from Core"
"""What grpc.aio puts in the place of a call's status when the call ends while a message is being written."""
_STREAM_ENDED = "the service ended the call while something was being sent, and gRPC did not keep its reason"


class AsyncClient:
    """`Client` for asyncio: the same methods and arguments, awaited. Use it inside one event loop."""

    def __init__(
        self,
        address: str,
        *,
        timeout: float = DEFAULT_TIMEOUT_S,
        credentials: grpc.ChannelCredentials | None = None,
        token: str | Path | None = None,
        allow_plain_text: bool = False,
    ) -> None:
        self._timeout = positive(timeout)
        self._bearer = Bearer(token, address, plain_text=credentials is None, allow_plain_text=allow_plain_text)
        self._channel = (
            grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)
            if credentials is None
            else grpc.aio.secure_channel(address, credentials, options=CHANNEL_OPTIONS)
        )
        self._stub: Any = AnalysisServiceStub(self._channel)  # type: ignore[no-untyped-call]
        self._feedback: Any = FeedbackServiceStub(self._channel)  # type: ignore[no-untyped-call]
        self._health: Any = health_pb2_grpc.HealthStub(self._channel)

    async def analyze(
        self,
        image: Image,
        graph: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = None,
        **options: Unpack[AnalyzeOptions],
    ) -> Analysis:
        """As `Client.analyze`."""
        # Reading the picture from disk must not hold up the loop.
        request = await asyncio.to_thread(analyze_request, image, graph, options)
        if must_upload(request):
            response = await self._upload(request, timeout)
        else:
            response = await self._call(self._stub.Analyze, request, timeout)
        return convert.analysis(response)

    def analyze_many(
        self,
        items: Iterable[Item | Image] | AsyncIterable[Item | Image],
        *,
        timeout: float,
        **options: Unpack[AnalyzeOptions],
    ) -> AsyncIterator[Outcome]:
        """As `Client.analyze_many`; the items may come asynchronously, too."""
        return self._many(items, positive(timeout), Exchange(options), options)

    async def _many(
        self,
        items: Iterable[Item | Image] | AsyncIterable[Item | Image],
        timeout: float,
        exchange: Exchange,
        options: AnalyzeOptions,
    ) -> AsyncIterator[Outcome]:
        end = time.monotonic() + timeout

        async def requests() -> AsyncIterator[pb.AnalyzeStreamRequest]:
            if not await _accepted(stream):
                return
            try:
                async for item in _each(items):
                    if (request := await asyncio.to_thread(exchange.ask, item)) is not None:
                        yield request
            except Exception as error:
                exchange.broken = error

        stream = self._stub.AnalyzeStream(requests(), timeout=timeout, metadata=self._bearer.metadata())
        try:
            async for response in stream:
                for outcome in exchange.settle():
                    yield outcome
                yield exchange.answered(response)
        except grpc.aio.AioRpcError as error:
            raise _failed(error) from error
        finally:
            stream.cancel()
        for outcome in exchange.finish():
            yield outcome
        for item in exchange.large:
            try:
                left = max(end - time.monotonic(), 1e-3)
                yield Outcome(item=item, analysis=await self.analyze(item.image, item.graph, timeout=left, **options))
            except (RpcFailed, RequestInvalid, OSError) as failure:
                yield Outcome(item=item, error=failure)
        if exchange.broken is not None:
            raise exchange.broken

    async def models(self, *, timeout: float | None = None) -> tuple[Model, ...]:
        """As `Client.models`."""
        response = await self._call(self._stub.ListModels, pb.ListModelsRequest(), timeout)
        return tuple(convert.model(message) for message in response.models)

    async def model(self, name: str, version: str = "", *, timeout: float | None = None) -> Model:
        """As `Client.model`."""
        request = pb.GetModelRequest(name=name, version=version)
        return convert.model((await self._call(self._stub.GetModel, request, timeout)).model)

    async def record_rating(
        self,
        analysis: Analysis,
        answer: RelevanceRating | Mapping[str, Any],
        *,
        attribution: Attribution | None = None,
        annotator: str = "",
        consented_image: Image | None = None,
        request_id: str = "",
        timeout: float | None = None,
    ) -> RecordedRating:
        """As `Client.record_rating`."""
        request = await asyncio.to_thread(
            rating_request, analysis, answer, attribution, annotator, consented_image, request_id
        )
        return recorded_rating(await self._call(self._feedback.RecordRating, request, timeout))

    async def wait_ready(self, timeout: float, *, service: str = SERVICE) -> None:
        """As `Client.wait_ready`."""
        end = time.monotonic() + positive(timeout)
        request = health_pb2.HealthCheckRequest(service=service)
        state = "no answer"
        while (left := end - time.monotonic()) > 0:
            try:
                state = health_state(await self._call(self._health.Check, request, left, wait_for_ready=True))
                if state == "SERVING":
                    return
            except RpcFailed as failure:
                state = still_waiting(failure)
            await asyncio.sleep(POLL_S)
        raise not_ready(service, timeout, state)

    async def close(self) -> None:
        """As `Client.close`."""
        await self._channel.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def _upload(self, request: pb.AnalyzeRequest, timeout: float | None) -> pb.AnalyzeResponse:
        pieces = await asyncio.to_thread(upload_pieces, request)

        async def paced() -> AsyncIterator[pb.AnalyzeUploadRequest]:
            yield next(pieces)
            if await _accepted(call):
                for piece in pieces:
                    yield piece

        call = self._begin(self._stub.AnalyzeUpload, paced(), timeout)
        response: pb.AnalyzeUploadResponse = await _result(call)
        return response.response

    async def _call(self, method: Any, request: Any, timeout: float | None, **options: Any) -> Any:
        return await _result(self._begin(method, request, timeout, **options))

    def _begin(self, method: Any, request: Any, timeout: float | None, **options: Any) -> Any:
        seconds = self._timeout if timeout is None else positive(timeout)
        return method(request, timeout=seconds, metadata=self._bearer.metadata(), **options)


async def _accepted(call: Any) -> bool:
    """Wait until the call is let in or refused: what is written to a refused one makes grpc.aio forget the reason."""
    return _ACCEPTED in tuple(await call.initial_metadata())


async def _result(call: Any) -> Any:
    try:
        return await call
    except grpc.RpcError as error:
        raise _failed(error) from error


def _failed(error: grpc.RpcError) -> RpcFailed:
    if error.details() == _STATUS_LOST:
        return RpcFailed(grpc.StatusCode.UNAVAILABLE, "STREAM_ENDED", _STREAM_ENDED)
    return RpcFailed.from_error(error)


async def _each(items: Iterable[Item | Image] | AsyncIterable[Item | Image]) -> AsyncIterator[Item | Image]:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item
