"""The two clients: `Client` blocks, `AsyncClient` awaits. Both speak `saaa.v1` and share the conversion."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Unpack

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from saaa.client import convert
from saaa.client.errors import RpcFailed
from saaa.client.rating import RecordedRating, RelevanceRating, rating_request, recorded_rating
from saaa.client.request import MAX_REQUEST_BYTES, AnalyzeOptions, Image, analyze_request
from saaa.client.results import Analysis, Attribution, Model
from saaa.v1 import analysis_pb2 as pb
from saaa.v1.analysis_pb2_grpc import AnalysisServiceStub
from saaa.v1.feedback_pb2_grpc import FeedbackServiceStub

SERVICE = "saaa.v1.AnalysisService"
DEFAULT_TIMEOUT_S = 60.0
_POLL_S = 0.1
_CHANNEL_OPTIONS = (
    ("grpc.max_send_message_length", MAX_REQUEST_BYTES),
    ("grpc.max_receive_message_length", convert.MAX_RESPONSE_BYTES),
)
_NOT_YET = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.DEADLINE_EXCEEDED)
"""Codes of a health check that mean "ask again": not listening, not registered, too slow."""


class Client:
    """A blocking client; safe to share between threads.

    Example:
        with Client("localhost:8080") as client:
            client.wait_ready(60)
            analysis = client.analyze("kitchen.jpg", outputs=["predictions", "attributions"])
            print(analysis.predictions[0].label, analysis.attributions[0].grid.shape)

    Args:
        address: "host:port" of the facade, or any gRPC target such as "unix:/run/saaa.sock".
        timeout: deadline of every call that sets none of its own, in seconds; more than 0.
        credentials: TLS credentials; None is plain text.
    """

    def __init__(
        self,
        address: str,
        *,
        timeout: float = DEFAULT_TIMEOUT_S,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        self._timeout = _positive(timeout)
        self._channel = (
            grpc.insecure_channel(address, options=_CHANNEL_OPTIONS)
            if credentials is None
            else grpc.secure_channel(address, credentials, options=_CHANNEL_OPTIONS)
        )
        self._stub: Any = AnalysisServiceStub(self._channel)  # type: ignore[no-untyped-call]
        self._feedback: Any = FeedbackServiceStub(self._channel)  # type: ignore[no-untyped-call]
        self._health: Any = health_pb2_grpc.HealthStub(self._channel)

    def analyze(
        self,
        image: Image,
        graph: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = None,
        **options: Unpack[AnalyzeOptions],
    ) -> Analysis:
        """Analyse one image.

        Args:
            image: the encoded bytes, or a path to read.
            graph: scene graph as published region JSON ({"objects": [...], "relationships": [...]}), boxes in
                pixels of the upright image; None lets the service propose one.
            timeout: deadline in seconds; None is the client's.
            options: the keys of `saaa.client.AnalyzeOptions`, such as `outputs`, `method`, `words` and `effects`.

        Raises:
            RequestInvalid: a value cannot be sent at all.
            RpcFailed: the service refused or failed the call, or cannot be reached.
            OSError: the path cannot be read.
            TypeError: an unknown option.
        """
        request = analyze_request(image, graph, options)
        return convert.analysis(self._call(self._stub.Analyze, request, timeout))

    def models(self, *, timeout: float | None = None) -> tuple[Model, ...]:
        """Describe every served model, by name then version. Raises `RpcFailed`."""
        response = self._call(self._stub.ListModels, pb.ListModelsRequest(), timeout)
        return tuple(convert.model(message) for message in response.models)

    def model(self, name: str, version: str = "", *, timeout: float | None = None) -> Model:
        """Describe one model; an empty version is the highest. Raises `RpcFailed`."""
        request = pb.GetModelRequest(name=name, version=version)
        return convert.model(self._call(self._stub.GetModel, request, timeout).model)

    def record_rating(
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
        """Keep a person's answer about an analysis; once this returns, the service does not lose it.

        Args:
            analysis: what the person was shown.
            answer: task 1: a `RelevanceRating` of `attribution`; task 2: the graph that the model should attend to, as
                published region JSON.
            attribution: the one of the analysis's attributions that the answer is about; task 2 can do without.
            annotator: a pseudonym of who answered.
            consented_image: the analysed image, as bytes or a path, if its owner agrees that it is kept with the
                rating; None keeps none.
            request_id: names the rating; to send one again after a failed call, give the same id. One is made unless
                given.
            timeout: deadline in seconds; None is the client's.

        Raises:
            RequestInvalid: a value cannot be sent at all.
            RpcFailed: the service refused or failed the call, keeps no ratings (UNIMPLEMENTED), or cannot be reached.
            OSError: the path cannot be read.
        """
        request = rating_request(analysis, answer, attribution, annotator, consented_image, request_id)
        return recorded_rating(self._call(self._feedback.RecordRating, request, timeout))

    def wait_ready(self, timeout: float, *, service: str = SERVICE) -> None:
        """Return as soon as the service says that it is serving.

        Args:
            timeout: how long to wait, in seconds.
            service: name in `grpc.health.v1`; "" is the server as a whole.

        Raises:
            RpcFailed: not serving within the time (UNAVAILABLE), or the health check fails for good.
        """
        end = time.monotonic() + _positive(timeout)
        request = health_pb2.HealthCheckRequest(service=service)
        state = "no answer"
        while (left := end - time.monotonic()) > 0:
            try:
                state = _state(self._call(self._health.Check, request, left, wait_for_ready=True))
                if state == "SERVING":
                    return
            except RpcFailed as failure:
                state = _still_waiting(failure)
            time.sleep(_POLL_S)
        raise _not_ready(service, timeout, state)

    def close(self) -> None:
        """Close the connection; calls in flight are cancelled."""
        self._channel.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _call(self, method: Any, request: Any, timeout: float | None, **options: Any) -> Any:
        seconds = self._timeout if timeout is None else _positive(timeout)
        try:
            return method(request, timeout=seconds, **options)
        except grpc.RpcError as error:
            raise RpcFailed.from_error(error) from error


class AsyncClient:
    """`Client` for asyncio: the same methods and arguments, awaited. Use it inside one event loop."""

    def __init__(
        self,
        address: str,
        *,
        timeout: float = DEFAULT_TIMEOUT_S,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        self._timeout = _positive(timeout)
        self._channel = (
            grpc.aio.insecure_channel(address, options=_CHANNEL_OPTIONS)
            if credentials is None
            else grpc.aio.secure_channel(address, credentials, options=_CHANNEL_OPTIONS)
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
        return convert.analysis(await self._call(self._stub.Analyze, request, timeout))

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
        end = time.monotonic() + _positive(timeout)
        request = health_pb2.HealthCheckRequest(service=service)
        state = "no answer"
        while (left := end - time.monotonic()) > 0:
            try:
                state = _state(await self._call(self._health.Check, request, left, wait_for_ready=True))
                if state == "SERVING":
                    return
            except RpcFailed as failure:
                state = _still_waiting(failure)
            await asyncio.sleep(_POLL_S)
        raise _not_ready(service, timeout, state)

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

    async def _call(self, method: Any, request: Any, timeout: float | None, **options: Any) -> Any:
        seconds = self._timeout if timeout is None else _positive(timeout)
        try:
            return await method(request, timeout=seconds, **options)
        except grpc.RpcError as error:
            raise RpcFailed.from_error(error) from error


def _positive(seconds: float) -> float:
    if not seconds > 0:
        raise ValueError(f"a timeout must be more than 0 seconds, not {seconds}")
    return seconds


def _state(response: health_pb2.HealthCheckResponse) -> str:
    return health_pb2.HealthCheckResponse.ServingStatus.Name(response.status)


def _still_waiting(failure: RpcFailed) -> str:
    if failure.code not in _NOT_YET:
        raise failure
    return f"{failure.code.name}: {failure.message}"


def _not_ready(service: str, timeout: float, state: str) -> RpcFailed:
    message = f"{service or 'the server'} is not ready after {timeout:g} s ({state})"
    return RpcFailed(grpc.StatusCode.UNAVAILABLE, "NOT_READY", message)
