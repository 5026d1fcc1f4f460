"""The one client of `benchmarks.serving`: ready-made requests sent by asyncio, answers left as bytes.

gRPC where a server speaks it, else HTTP/1.1 over kept connections.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

import grpc
from google.protobuf.wrappers_pb2 import BytesValue

from saaa.client.request import AnalyzeOptions, analyze_request
from saaa.v1 import analysis_pb2 as pb
from serving.backends.ts import inference_pb2
from serving.contract.oip import open_inference_pb2 as oip

MESSAGE = 32 * 2**20
CHANNEL = [("grpc.max_receive_message_length", MESSAGE), ("grpc.max_send_message_length", MESSAGE)]
BOUNDARY = "serving-benchmark-boundary"


class Late(Exception):
    """No answer before the deadline."""


class Refused(Exception):
    """The server would not take it; says how."""


class Caller(Protocol):
    """Sends requests to one server."""

    async def __call__(self, request: bytes, timeout: float | None = None) -> bytes:
        """The answer; raises `Late`, `Refused`, or anything else for a failure."""

    async def close(self) -> None:
        """Close connections."""


class GrpcCaller:
    """One channel, one method."""

    def __init__(self, port: int, method: str) -> None:
        self._channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=CHANNEL)
        self._method = self._channel.unary_unary(method)

    async def __call__(self, request: bytes, timeout: float | None = None) -> bytes:
        try:
            answer: bytes = await self._method(request, timeout=timeout)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                raise Late from error
            if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
                raise Refused(error.details()) from error
            raise
        return answer

    async def close(self) -> None:
        await self._channel.close()


class HttpCaller:
    """Kept connections, as many as calls are under way."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def __call__(self, request: bytes, timeout: float | None = None) -> bytes:
        while self._idle:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                return await self._ask(self._idle.pop(), request, timeout)
            # The server had closed it meanwhile, as it may.
        return await self._ask(await asyncio.open_connection("127.0.0.1", self._port), request, timeout)

    async def _ask(
        self, connection: tuple[asyncio.StreamReader, asyncio.StreamWriter], request: bytes, timeout: float | None
    ) -> bytes:
        try:
            answer, keep = await asyncio.wait_for(self._exchange(*connection, request), timeout)
        except TimeoutError as error:
            connection[1].close()
            raise Late from error
        except BaseException:
            connection[1].close()
            raise
        if keep:
            self._idle.append(connection)
        else:
            connection[1].close()
        return answer

    @staticmethod
    async def _exchange(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes
    ) -> tuple[bytes, bool]:
        writer.write(request)
        await writer.drain()
        status, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
        if "content-length" in headers:
            body = await reader.readexactly(int(headers["content-length"]))
        else:
            body = b""
            while size := int(await reader.readline(), 16):
                body += (await reader.readexactly(size + 2))[:-2]
            await reader.readline()
        code = int(status.split()[1])
        if code in (429, 503):
            raise Refused(status)
        if code != 200:
            raise RuntimeError(f"{status}: {body[:200]!r}")
        return body, headers.get("connection", "").lower() != "close"

    async def close(self) -> None:
        for _, writer in self._idle:
            writer.close()


Answer = Mapping[str, float]
"""Class -> probability."""


class Protocols:
    """How each kind of server is asked: a request of a JPEG, a caller of a port, the answer's meaning."""

    @staticmethod
    def plain(jpeg: bytes) -> bytes:
        """The JPEG itself."""
        return jpeg

    @staticmethod
    def wrapped(jpeg: bytes) -> bytes:
        """google.protobuf.BytesValue: Ray Serve wants a message."""
        return BytesValue(value=jpeg).SerializeToString()

    @staticmethod
    def wrapped_answer(answer: bytes) -> Answer:
        """google.protobuf.BytesValue."""
        return json_answer(BytesValue.FromString(answer).value)

    @staticmethod
    def torchserve(jpeg: bytes) -> bytes:
        """TorchServe's PredictionsRequest."""
        return inference_pb2.PredictionsRequest(model_name="bench", input={"image": jpeg}).SerializeToString()

    @staticmethod
    def torchserve_answer(answer: bytes) -> Answer:
        """TorchServe's PredictionResponse."""
        return json_answer(inference_pb2.PredictionResponse.FromString(answer).prediction)

    @staticmethod
    def inference(jpeg: bytes) -> bytes:
        """Open Inference Protocol."""
        contents = oip.InferTensorContents(bytes_contents=[jpeg])
        tensor = oip.ModelInferRequest.InferInputTensor(name="image", datatype="BYTES", shape=[1, 1], contents=contents)
        return oip.ModelInferRequest(model_name="bench", inputs=[tensor]).SerializeToString()

    @staticmethod
    def inference_answer(answer: bytes) -> Answer:
        """Open Inference Protocol."""
        response = oip.ModelInferResponse.FromString(answer)
        if response.raw_output_contents:
            return json_answer(response.raw_output_contents[0][4:])  # after the length
        return json_answer(response.outputs[0].contents.bytes_contents[0])

    @staticmethod
    def multipart(path: str) -> Callable[[bytes], bytes]:
        """An HTTP request with one file, "image"."""

        def request(jpeg: bytes) -> bytes:
            head = 'Content-Disposition: form-data; name="image"; filename="image.jpg"\r\nContent-Type: image/jpeg'
            body = f"--{BOUNDARY}\r\n{head}\r\n\r\n".encode() + jpeg + f"\r\n--{BOUNDARY}--\r\n".encode()
            lines = [
                f"POST {path} HTTP/1.1",
                "Host: 127.0.0.1",
                f"Content-Type: multipart/form-data; boundary={BOUNDARY}",
                f"Content-Length: {len(body)}",
            ]
            return ("\r\n".join(lines) + "\r\n\r\n").encode() + body

        return request


def json_answer(answer: bytes) -> Answer:
    """A JSON object; what is no number in it is left out."""
    found: dict[str, Any] = json.loads(answer)
    return {name: value for name, value in found.items() if isinstance(value, float)}


def analyze(jpeg: bytes, **options: Any) -> bytes:
    """Our AnalyzeRequest; predictions of all classes unless told otherwise."""
    asked: AnalyzeOptions = {"outputs": ["predictions"], "top_k": 10, **options}  # type: ignore[typeddict-item]
    return analyze_request(jpeg, None, asked).SerializeToString()


def analyze_answer(answer: bytes) -> Answer:
    """Our AnalyzeResponse."""
    return {each.label: each.probability for each in pb.AnalyzeResponse.FromString(answer).predictions}


async def closed_loop(
    call: Callable[[bytes], Awaitable[object]], requests: Sequence[bytes], *, callers: int, calls: int, clock: Any
) -> list[float]:
    """Each caller sends its next request when it has an answer; seconds a call, `calls` in all."""
    times: list[float] = []
    left = iter(range(calls))

    async def caller() -> None:
        for index in left:
            start = clock()
            await call(requests[index % len(requests)])
            times.append(clock() - start)

    await asyncio.gather(*(caller() for _ in range(callers)))
    return times
