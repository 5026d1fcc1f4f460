"""The blocking client."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
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
        credentials: TLS credentials, such as `saaa.client.tls` makes; None is plain text.
        token: goes with every call: the text, or the path of a file that holds it and may be replaced.
        allow_plain_text: send the token in plain text to other machines too: for where something else encrypts.

    Raises:
        ValueError: the timeout is not above 0, or the token would go to another machine in plain text.
    """

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
            grpc.insecure_channel(address, options=CHANNEL_OPTIONS)
            if credentials is None
            else grpc.secure_channel(address, credentials, options=CHANNEL_OPTIONS)
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
        if must_upload(request):
            response = self._call(self._stub.AnalyzeUpload, upload_pieces(request), timeout).response
        else:
            response = self._call(self._stub.Analyze, request, timeout)
        return convert.analysis(response)

    def analyze_many(
        self, items: Iterable[Item | Image], *, timeout: float, **options: Unpack[AnalyzeOptions]
    ) -> Iterator[Outcome]:
        """Analyse many images on one call, with no more of them in memory than the service works at.

        Args:
            items: the images, taken as the service has room for them, from another thread.
            timeout: deadline of all of them together, in seconds.
            options: as of `analyze`, for every image.

        Yields:
            What came of each item, as they finish and so in any order. One that fails does not stop the others.

        Raises:
            RpcFailed: the call as a whole failed; items that were not yielded have no answer.
            TypeError: an unknown option.
        """
        return self._many(items, positive(timeout), Exchange(options), options)

    def _many(
        self, items: Iterable[Item | Image], timeout: float, exchange: Exchange, options: AnalyzeOptions
    ) -> Iterator[Outcome]:
        end = time.monotonic() + timeout

        def requests() -> Iterator[pb.AnalyzeStreamRequest]:
            try:
                for item in items:
                    if (request := exchange.ask(item)) is not None:
                        yield request
            except Exception as error:
                # gRPC would only log it, in a thread of its own.
                exchange.broken = error

        stream = self._stub.AnalyzeStream(requests(), timeout=timeout, metadata=self._bearer.metadata())
        try:
            for response in stream:
                yield from exchange.settle()
                yield exchange.answered(response)
        except grpc.RpcError as error:
            raise RpcFailed.from_error(error) from error
        finally:
            stream.cancel()
        yield from exchange.finish()
        for item in exchange.large:
            try:
                left = max(end - time.monotonic(), 1e-3)
                yield Outcome(item=item, analysis=self.analyze(item.image, item.graph, timeout=left, **options))
            except (RpcFailed, RequestInvalid, OSError) as failure:
                yield Outcome(item=item, error=failure)
        if exchange.broken is not None:
            raise exchange.broken

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
        end = time.monotonic() + positive(timeout)
        request = health_pb2.HealthCheckRequest(service=service)
        state = "no answer"
        while (left := end - time.monotonic()) > 0:
            try:
                state = health_state(self._call(self._health.Check, request, left, wait_for_ready=True))
                if state == "SERVING":
                    return
            except RpcFailed as failure:
                state = still_waiting(failure)
            time.sleep(POLL_S)
        raise not_ready(service, timeout, state)

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
        seconds = self._timeout if timeout is None else positive(timeout)
        try:
            return method(request, timeout=seconds, metadata=self._bearer.metadata(), **options)
        except grpc.RpcError as error:
            raise RpcFailed.from_error(error) from error
