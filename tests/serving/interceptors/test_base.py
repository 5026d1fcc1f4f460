"""The chain over real gRPC: all four kinds of call, written in every way that gRPC allows."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from saaa.errors import LaneFull
from serving.interceptors.base import Call, CallInterceptor, Chain, Proceed, current_call
from serving.interceptors.errors import ErrorInterceptor

KINDS = ("unary", "client_stream", "server_stream", "bidi_stream")
STREAMING = ("server_stream", "server_stream_written", "bidi_stream", "bidi_stream_written")


class Trace(CallInterceptor):
    """Remembers what it saw, in the order of entering and leaving."""

    def __init__(self, name: str, log: list[str], calls: list[Call]) -> None:
        self._name = name
        self._log = log
        self._calls = calls

    async def around(self, call: Call, proceed: Proceed) -> None:
        assert current_call() is call
        self._calls.append(call)
        self._log.append(f"into {self._name}")
        try:
            await proceed()
        except BaseException as error:
            self._log.append(f"{type(error).__name__} through {self._name}")
            raise
        self._log.append(f"out of {self._name}")


class Service:
    """Says what it hears in capital letters; "full" and "bug" fail."""

    def __init__(self) -> None:
        self.stopped = asyncio.Event()
        self.ids: list[str] = []

    def say(self, word: bytes) -> bytes:
        call = current_call()
        assert call is not None
        self.ids.append(call.request_id)
        if word == b"full":
            raise LaneFull("No room.", retry_after_s=2)
        if word == b"bug":
            raise ZeroDivisionError("secret")
        return word.upper()

    async def unary(self, request: bytes, context: Any) -> bytes:
        return self.say(request)

    async def client_stream(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        return b" ".join([self.say(word) async for word in requests])

    async def client_stream_read(self, requests: Any, context: Any) -> bytes:
        words = []
        while (word := await context.read()) is not grpc.aio.EOF:
            words.append(self.say(word))
        return b" ".join(words)

    async def server_stream(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        try:
            for word in request.split():
                if word == b"wait":
                    await asyncio.sleep(60)
                yield self.say(word)
        finally:
            self.stopped.set()

    async def server_stream_written(self, request: bytes, context: Any) -> None:
        async with contextlib.aclosing(self.server_stream(request, context)) as words:
            async for word in words:
                await context.write(word)

    async def bidi_stream(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for word in requests:
            yield self.say(word)

    async def bidi_stream_written(self, requests: Any, context: Any) -> None:
        while (word := await context.read()) is not grpc.aio.EOF:
            await context.write(self.say(word))


class Talk:
    """A running server and a way to call it by kind."""

    def __init__(self, channel: grpc.aio.Channel, service: Service) -> None:
        self.channel = channel
        self.service = service
        self.log: list[str] = []
        self.calls: list[Call] = []

    async def ask(self, name: str, *words: bytes, **options: Any) -> list[bytes]:
        """Call a method by its name; what comes is in `got`, also where the call fails."""
        path, many = f"/talk.Talk/{name}", iter(words)
        self.got: list[bytes] = []
        if name.startswith("unary"):
            self.got.append(await self.channel.unary_unary(path)(words[0], **options))
        elif name.startswith("client"):
            self.got.append(await self.channel.stream_unary(path)(many, **options))
        else:
            server = name.startswith("server")
            method = self.channel.unary_stream if server else self.channel.stream_stream
            async for word in method(path)(b" ".join(words) if server else many, **options):
                self.got.append(word)
        return self.got


@pytest.fixture
async def talk() -> AsyncIterator[Talk]:
    service = Service()
    forms = {
        "unary": grpc.unary_unary_rpc_method_handler,
        "client": grpc.stream_unary_rpc_method_handler,
        "server": grpc.unary_stream_rpc_method_handler,
        "bidi": grpc.stream_stream_rpc_method_handler,
    }
    names = ("unary", "client_stream", "client_stream_read", *STREAMING)
    handlers: dict[str, Any] = {name: forms[name.split("_")[0]](getattr(service, name)) for name in names}
    log: list[str] = []
    calls: list[Call] = []
    chain = [Trace("outer", log, calls), ErrorInterceptor(), Trace("inner", log, calls)]
    server = grpc.aio.server(interceptors=[Chain(chain, message_s=60)])
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("talk.Talk", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        talk = Talk(channel, service)
        talk.log, talk.calls = log, calls
        yield talk
    await server.stop(None)


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("unary", [b"A"]),
        ("client_stream", [b"A B C"]),
        ("client_stream_read", [b"A B C"]),
        ("server_stream", [b"A", b"B", b"C"]),
        ("server_stream_written", [b"A", b"B", b"C"]),
        ("bidi_stream", [b"A", b"B", b"C"]),
        ("bidi_stream_written", [b"A", b"B", b"C"]),
    ],
)
async def test_every_kind_passes_through_the_whole_chain(talk: Talk, name: str, answer: list[bytes]) -> None:
    assert await talk.ask(name, b"a", b"b", b"c") == answer
    assert talk.log == ["into outer", "into inner", "out of inner", "out of outer"]
    outer, inner = talk.calls
    assert outer is inner
    assert (outer.method, outer.kind) == (f"/talk.Talk/{name}", next(kind for kind in KINDS if name.startswith(kind)))
    assert outer.received == (1 if name.startswith(("unary", "server")) else 3)
    assert outer.sent == len(answer)
    assert set(talk.service.ids) == {outer.request_id}
    assert current_call() is None


@pytest.mark.parametrize("name", ["unary", "client_stream", "client_stream_read", *STREAMING])
@pytest.mark.parametrize("word", [b"full", b"bug"])
async def test_failures_of_every_kind_get_the_tables_status(talk: Talk, name: str, word: bytes) -> None:
    words = (word,) if name.startswith("unary") else (b"a", word, b"c")
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await talk.ask(name, *words)
    assert talk.got == ([] if name.startswith(("unary", "client")) else [b"A"])
    error = failure.value
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    assert status is not None
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    if word == b"full":
        assert (error.code(), info.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "LANE_FULL")
        retry = error_details_pb2.RetryInfo()
        assert status.details[1].Unpack(retry)
        assert retry.retry_delay.seconds == 2
    else:
        assert (error.code(), info.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
        assert "secret" not in str(error)
    assert dict(error.trailing_metadata())["x-request-id"] == talk.calls[0].request_id
    kind = "LaneFull" if word == b"full" else "ZeroDivisionError"
    # Within the mapping the error itself, outside of it gRPC's abort, which is raised when the caller knows already.
    async with asyncio.timeout(20):
        while len(talk.log) < 4:
            await asyncio.sleep(0.01)
    assert talk.log[2:] == [f"{kind} through inner", "AbortError through outer"]


async def test_a_caller_who_leaves_cancels_handler_and_chain(talk: Talk) -> None:
    stream = talk.channel.unary_stream("/talk.Talk/server_stream")(b"a wait")
    assert await stream.read() == b"A"
    stream.cancel()
    async with asyncio.timeout(20):
        await talk.service.stopped.wait()
        while len(talk.log) < 4:
            await asyncio.sleep(0.01)
    assert talk.log[2:] == ["CancelledError through inner", "CancelledError through outer"]
    assert talk.calls[0].sent == 1


@pytest.mark.parametrize(
    ("given", "kept"),
    [("mine-1", True), ("x" * 128, True), ("x" * 129, False), ("", False)],
)
async def test_a_sane_request_id_is_kept_and_another_replaced(talk: Talk, given: str, kept: bool) -> None:
    await talk.ask("unary", b"a", metadata=(("x-request-id", given), ("x-other", "1"), ("x-other", "2")))
    call = talk.calls[0]
    assert (call.request_id == given) is kept
    assert kept or (len(call.request_id) == 32 and call.request_id.isalnum())
    assert call.header("x-other") == "2"
    assert call.header("x-nothing") is None
    assert call.caller == ""


async def test_calls_at_once_do_not_see_each_other(talk: Talk) -> None:
    asked = [talk.ask("bidi_stream", b"a", b"b", metadata=(("x-request-id", f"n{number}"),)) for number in range(20)]
    await asyncio.gather(*asked)
    assert sorted(talk.service.ids) == sorted([f"n{number}" for number in range(20)] * 2)


async def test_what_is_around_a_handler_is_made_once_and_anew_for_another_handler() -> None:
    async def say(request: bytes, context: Any) -> bytes:
        return request

    async def nobody(details: Any) -> None:
        return None

    chain, details = Chain([], message_s=60), SimpleNamespace(method="/talk.Talk/say")
    handlers = [grpc.unary_unary_rpc_method_handler(say) for _ in range(2)]

    async def wrapped(handler: Any) -> Any:
        async def find(details: Any) -> Any:
            return handler

        return await chain.intercept_service(find, details)

    first = await wrapped(handlers[0])
    assert first is await wrapped(handlers[0])
    assert first is not await wrapped(handlers[1])
    assert await chain.intercept_service(nobody, details) is None


async def test_a_method_that_nobody_serves_stays_so(talk: Talk) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await talk.ask("unary_unknown", b"a")
    assert failure.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert talk.log == []
