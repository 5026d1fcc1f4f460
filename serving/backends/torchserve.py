"""The one module that knows how TorchServe talks. It starts nothing: see `serving.backends.process`."""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf import empty_pb2
from google.protobuf.message import Message

from saaa import wire
from saaa.errors import (
    BackendFailed,
    BackendUnavailable,
    DeadlineExceeded,
    InvalidInput,
    LaneFull,
    ModelNotFound,
    SaaaError,
    WorkerDied,
)
from saaa.work import ItemResult, ModelInfo, WorkBatch
from serving.backends.ts import inference_pb2, inference_pb2_grpc, management_pb2, management_pb2_grpc
from serving.observer import BATCH_TRACE

_MANAGEMENT_S = 5.0
"""Management calls are answered by Java alone, without any worker."""
_UNREGISTER_S = 30.0
"""TorchServe waits for the workers' ends."""
_DESCRIBE_S = 20.0
"""A describe call may wait for the batch that its worker is computing."""
_ROOM = 64 * 1024
"""For the names and framing around a message's payload."""
_PAGE = 100
_BUSY_RETRY_S = 1.0
_OPTIONS = [
    ("grpc.max_send_message_length", wire.MAX_MESSAGE_BYTES + _ROOM),
    ("grpc.max_receive_message_length", wire.MAX_MESSAGE_BYTES + _ROOM),
    ("grpc.enable_http_proxy", 0),
    # A name with several addresses is several TorchServes.
    ("grpc.lb_policy_name", "round_robin"),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2000),
    # No keepalive pings: TorchServe answers them by closing the connection, with the calls in flight.
]

_REACHED = "org.pytorch.serve.http."
"""TorchServe signs what it says of a worker's failure with the name of a Java exception."""
_MEANINGS: tuple[tuple[str, type[SaaaError], str], ...] = (
    ("Worker died", WorkerDied, "The worker of {model} died while it computed; it is started again."),
    ("Model not found", ModelNotFound, "TorchServe serves no {model}."),
    ("Model version", ModelNotFound, "TorchServe serves no {model}."),
    ("does not exist", ModelNotFound, "TorchServe serves no {model}."),
    ("model_name is required", ModelNotFound, "A model must be named."),
    ("Failed to start workers", BackendFailed, "No worker of {model} starts; TorchServe's log has the details."),
    ("Prediction failed", BackendFailed, "The handler of {model} failed; TorchServe's log has the details."),
    ("Out of resources", BackendFailed, "The handler of {model} ran out of memory; TorchServe's log has the details."),
    ("Received message larger", BackendFailed, "The answer of {model} is too large; ask for fewer at once."),
    ("RST_STREAM", BackendFailed, "TorchServe refused the message to {model} as too large; use fewer items."),
    (_REACHED, BackendFailed, "The handler of {model} failed ({said}); TorchServe's log has the details."),
)
"""What is meant by what TorchServe says, by a part of its text: its codes tell little. The first that fits counts."""

_log = logging.getLogger(__name__)


class _NoWorker(BackendUnavailable):
    """TorchServe's one answer for "all are busy and the queue is full" and for "all are down"."""


@dataclass(frozen=True, kw_only=True)
class ModelState:
    """What TorchServe's frontend says of one version of a model."""

    name: str
    version: str
    workers: int
    """Worker processes, ready or not."""
    ready: int
    """Workers that can compute."""
    pids: tuple[int, ...] = ()
    """Process ids of the workers that are ready, on TorchServe's machine."""


class TorchServeBackend:
    """Sends batches to a running TorchServe; one request is one whole batch.

    Args:
        inference_address: host:port of TorchServe's gRPC inference service.
        management_address: host:port of its gRPC management service.
    """

    name = "torchserve"

    def __init__(self, inference_address: str, management_address: str) -> None:
        self._address = inference_address
        self._channels = [
            grpc.aio.insecure_channel(address, options=_OPTIONS) for address in (inference_address, management_address)
        ]
        self._inference = inference_pb2_grpc.InferenceAPIsServiceStub(self._channels[0])  # type: ignore[no-untyped-call]
        self._management = management_pb2_grpc.ManagementAPIsServiceStub(self._channels[1])  # type: ignore[no-untyped-call]
        self._known: dict[tuple[str, str], ModelInfo] = {}
        self.registered: dict[tuple[str, str], str] = {}
        """What TorchServe last said that it holds: archive digests by (name, version), "" while not known."""

    async def ping(self, timeout: float) -> None:
        """Ask both of the frontend's services for a sign of life, which needs no worker; raises as `states`.

        Args:
            timeout: seconds that it may take.
        """
        listing = management_pb2.ListModelsRequest(limit=1)
        try:
            await asyncio.gather(
                self._inference.Ping(empty_pb2.Empty(), timeout=timeout),
                self._management.ListModels(listing, timeout=timeout),
            )
        except grpc.aio.AioRpcError as error:
            raise self._error(error, "", timeout) from error

    async def states(self) -> tuple[ModelState, ...]:
        """Ask the frontend about all models.

        Raises:
            BackendUnavailable: one of TorchServe's two services cannot be reached.
            BackendFailed: it answers with something else.
        """
        names: list[str] = []
        token: int | None = 0
        try:
            # After a restart one channel may be connected again while the other still waits to try: whoever took
            # the models for ready would be refused.
            await self._inference.Ping(empty_pb2.Empty(), timeout=_MANAGEMENT_S)
            while token is not None:
                request = management_pb2.ListModelsRequest(limit=_PAGE, next_page_token=token)
                page = json.loads((await self._management.ListModels(request, timeout=_MANAGEMENT_S)).msg)
                names += [model["modelName"] for model in page["models"]]
                token = int(page["nextPageToken"]) if page.get("nextPageToken") else None
            answers = await asyncio.gather(*(self._state(name) for name in sorted(set(names))))
        except grpc.aio.AioRpcError as error:
            raise self._error(error, "", _MANAGEMENT_S) from error
        except (ValueError, KeyError, TypeError) as error:
            raise BackendFailed(f"TorchServe at {self._address} answers oddly: {error!r}") from error
        found = tuple(state for states in answers for state in states)
        keys = {(state.name, state.version) for state in found}
        self.registered = {key: self._known[key].digest if key in self._known else "" for key in keys}
        return found

    async def describe(self) -> tuple[ModelInfo, ...]:
        """See `Backend`. A model whose workers are down is described as it was last; archives that are
        not saaa's are left out."""
        states = await self.states()
        told = await asyncio.gather(*(self._described(state) for state in states))
        self._known = {(info.name, info.version): info for info in told if info is not None}
        self.registered |= {key: info.digest for key, info in self._known.items()}
        return tuple(self._known.values())

    async def identify(self, name: str, version: str) -> ModelInfo:
        """Ask a worker which archive it runs; raises as `run`."""
        answer = await self._predict(name, version, wire.pack_describe(), b"", _DESCRIBE_S)
        info = wire.unpack_description(answer)
        if (info.name, info.version) != (name, version):
            raise BackendFailed(f"its archive holds {info.name} {info.version}.")
        return info

    async def ready(self) -> frozenset[tuple[str, str]]:
        """See `Backend`: the models with a worker that can compute."""
        try:
            return frozenset((s.name, s.version) for s in await self.states() if s.ready)
        except (BackendUnavailable, DeadlineExceeded, ModelNotFound):
            return frozenset()

    async def run(self, batch: WorkBatch, *, timeout: float) -> list[ItemResult]:
        """See `Backend`.

        Raises:
            InvalidInput: additionally, the batch is too large for one message.
        """
        header, pixels = wire.pack_batch(batch, trace=BATCH_TRACE.get())
        size = len(header) + len(pixels)
        if size > wire.MAX_MESSAGE_BYTES:
            raise InvalidInput(
                f"The batch has {size} bytes; at most {wire.MAX_MESSAGE_BYTES} can be sent. Use fewer items."
            )
        try:
            answer = await self._predict(batch.model, batch.version, header, pixels, timeout)
        except _NoWorker as error:
            raise await self._busy_or_down(batch.model, batch.version, error) from None
        return wire.unpack_results(answer, len(batch.items))

    async def scale(self, name: str, version: str, workers: int) -> None:
        """Ask for `workers` worker processes, at least 1, without waiting for them; raises as `states`."""
        request = management_pb2.ScaleWorkerRequest(
            model_name=name, model_version=version, min_worker=workers, max_worker=workers
        )
        await self._manage(self._management.ScaleWorker, request, f"{name} {version}")

    async def register(self, archive: str, workers: int, *, timeout: float) -> None:
        """Add the model of an archive and wait until its workers have loaded it.

        Args:
            archive: file name in TorchServe's model store.
            workers: worker processes, at least 1.
            timeout: seconds that it may take.

        Raises:
            BackendFailed: it does not load; TorchServe has forgotten it again.
            BackendUnavailable, DeadlineExceeded: no answer.
        """
        request = management_pb2.RegisterModelRequest(url=archive, initial_workers=workers, synchronous=True)
        await self._manage(self._management.RegisterModel, request, archive, timeout)

    async def unregister(self, name: str, version: str) -> None:
        """Take a version away; what it computes is lost. Raises as `states`, and `ModelNotFound`."""
        others = [state.version for state in await self.states() if state.name == name and state.version != version]
        if others:
            # TorchServe keeps the version that it takes for the default.
            default = management_pb2.SetDefaultRequest(model_name=name, model_version=others[0])
            await self._manage(self._management.SetDefault, default, f"{name} {others[0]}")
        request = management_pb2.UnregisterModelRequest(model_name=name, model_version=version)
        await self._manage(self._management.UnregisterModel, request, f"{name} {version}", _UNREGISTER_S)
        self._known.pop((name, version), None)

    async def close(self) -> None:
        """See `Backend`."""
        for channel in self._channels:
            await channel.close()

    async def _state(self, name: str) -> list[ModelState]:
        request = management_pb2.DescribeModelRequest(model_name=name, model_version="all")
        answer: list[dict[str, Any]] = json.loads(
            (await self._management.DescribeModel(request, timeout=_MANAGEMENT_S)).msg
        )
        states = []
        for model in answer:
            ready = [worker for worker in model["workers"] if worker["status"] == "READY"]
            states.append(
                ModelState(
                    name=model["modelName"],
                    version=model["modelVersion"],
                    workers=len(model["workers"]),
                    ready=len(ready),
                    pids=tuple(int(worker["pid"]) for worker in ready if int(worker.get("pid", 0)) > 0),
                )
            )
        return states

    async def _described(self, state: ModelState) -> ModelInfo | None:
        key = (state.name, state.version)
        if state.ready:
            try:
                return await self.identify(*key)
            except SaaaError as error:
                _log.warning("TorchServe's model %s %s does not describe itself: %s", *key, error)
        return self._known.get(key)

    async def _predict(self, name: str, version: str, header: bytes, pixels: bytes, timeout: float) -> bytes:
        request = inference_pb2.PredictionsRequest(
            model_name=name,
            model_version=version,
            input={wire.HEADER_KEY: header, wire.PIXELS_KEY: pixels},
        )
        try:
            answer = await self._inference.Predictions(request, timeout=timeout)
        except grpc.aio.AioRpcError as error:
            raise self._error(error, f"{name} {version}", timeout) from error
        return bytes(answer.prediction)

    def _error(self, error: grpc.aio.AioRpcError, model: str, timeout: float) -> SaaaError:
        """Say what TorchServe means: its codes are unreliable, its texts tell the cases apart."""
        code, text = error.code(), error.details() or ""
        said = text.splitlines()[0] if text else code.name
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return DeadlineExceeded(f"{model or 'TorchServe'} did not answer within {timeout:g} s.")
        if "has no worker" in text:
            return _NoWorker(f"No worker of {model} can compute now; try again shortly.")
        for part, meaning, words in _MEANINGS:
            if part in text:
                message = words.format(model=model or "the model", said=said)
                return meaning(message, field="model" if meaning is ModelNotFound else "")
        if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
            return BackendUnavailable(f"TorchServe at {self._address} cannot be reached ({said}).")
        return BackendFailed(f"TorchServe answered {code.name}: {said}")

    async def _busy_or_down(self, name: str, version: str, error: SaaaError) -> SaaaError:
        """TorchServe says the same of both; the state of the workers tells them apart."""
        try:
            states = await self.states()
        except SaaaError:
            return error
        if any((state.name, state.version) == (name, version) and state.ready for state in states):
            message = f"TorchServe's queue of {name} {version} is full; try again in {_BUSY_RETRY_S:g} s."
            return LaneFull(message, retry_after_s=_BUSY_RETRY_S)
        return error

    async def _manage(self, call: Any, request: Message, model: str, timeout: float = _MANAGEMENT_S) -> None:
        try:
            await call(request, timeout=timeout)
        except grpc.aio.AioRpcError as error:
            raise self._error(error, model, timeout) from error
