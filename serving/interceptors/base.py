"""The chain's common part: a call as every interceptor sees it, and one method to override.

Outermost first, it is: metrics, logs, tracing, error mapping, stopping, authentication, limits, handler.
All of them, and whatever runs below them, see the same `Call`.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, TypeAlias, cast

import grpc
from google.protobuf.message import DecodeError

from saaa.errors import DeadlineExceeded, InvalidInput

Context = grpc.aio.ServicerContext[Any, Any]
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Kind = Literal["unary", "client_stream", "server_stream", "bidi_stream"]

CREDENTIALS = frozenset({"authorization", "proxy-authorization", "cookie"})
"""Metadata that only authentication may see, so that nothing else can log it or pass it on."""
REQUEST_ID_KEY = "x-request-id"
"""The metadata key that names a call, in and out."""
MAX_REQUEST_ID = 128
"""Longest request id that is taken from metadata, in characters."""


@dataclass(eq=False, kw_only=True)
class Call:
    """One call from its first message to its last."""

    method: str
    """Full name, such as "/saaa.v1.AnalysisService/Analyze"."""
    kind: Kind
    """Which sides send many messages."""
    metadata: tuple[tuple[str, str | bytes], ...]
    """What the caller sent along, without credentials; keys are lower case and may repeat."""
    context: Context
    """gRPC's own, for deadlines, peers and aborting."""
    request_id: str
    """The caller's, where it is printable and short, else made: 1 to 128 characters, fit for logs."""
    started: float = field(default_factory=time.monotonic)
    """`time.monotonic()` when the call came, in seconds."""
    caller: str = ""
    """Who calls; empty until authenticated."""
    received: int = 0
    """Messages taken from the caller so far."""
    sent: int = 0
    """Messages given to the caller so far."""
    pace: Callable[[], Awaitable[None]] | None = None
    """Waited for before each message of a stream of requests is handed on; what is not read holds up the caller."""

    def header(self, key: str) -> str | None:
        """The last value of a text key in the metadata, or None."""
        return next((value for name, value in reversed(self.metadata) if name == key and isinstance(value, str)), None)


_CURRENT: ContextVar[Call | None] = ContextVar("call", default=None)


def current_call() -> Call | None:
    """The call that this code runs for; None outside of one."""
    return _CURRENT.get()


Proceed = Callable[[], Awaitable[None]]


class CallInterceptor:
    """Does something around every call, of whatever kind; subclasses override `around`."""

    async def around(self, call: Call, proceed: Proceed) -> None:
        """Called once a call; `proceed` is what is further in, down to the handler's last message, whose exceptions
        come out of it. Wait for it once, or raise instead."""
        await proceed()


class Chain(grpc.aio.ServerInterceptor):
    """Interceptors around every handler, and the one message of a request read behind them.

    So the chain judges the caller before the message, which may be large, is taken in and parsed. It must be there in
    time: a caller without a deadline could else hold its place for ever.

    Handlers are coroutines, or asynchronous generators where they answer with a stream. gRPC asks for them anew for
    each call; what is around a method's handler is made once.

    Args:
        interceptors: outermost first.
        message_s: seconds until a message must be there.
    """

    def __init__(self, interceptors: Sequence[CallInterceptor], message_s: float) -> None:
        self._inwards = tuple(reversed(interceptors))
        self._message_s = message_s
        self._wrapped: dict[str, tuple[Handler, Handler]] = {}
        """By method: its handler, and that one wrapped."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """The method's handler, wrapped; None, a method that nobody serves, stays None."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        method = handler_call_details.method
        served, wrapped = self._wrapped.get(method, (None, handler))
        if served is not handler:
            wrapped = self._wrap(method, handler)
            self._wrapped[method] = handler, wrapped
        return wrapped

    def _wrap(self, method: str, handler: Handler) -> Handler:
        streamed = bool(handler.request_streaming)
        kind = _KINDS[streamed, bool(handler.response_streaming)]
        inner: Any = getattr(handler, _SLOTS[kind])

        async def answer(requests: AsyncIterator[Any], context: Context) -> Any:
            call = _enter(method, kind, context)
            response = None

            async def handle() -> None:
                nonlocal response
                request = _counted(requests, call) if streamed else await self._only(call)
                response = await inner(request, call.context)
                call.sent = 1

            await self._through(call, handle)
            return response

        async def stream(requests: AsyncIterator[Any], context: Context) -> None:
            call = _enter(method, kind, context)

            async def handle() -> None:
                messages = inner(_counted(requests, call) if streamed else await self._only(call), call.context)
                if not hasattr(messages, "__aiter__"):
                    await messages
                    return
                async with contextlib.aclosing(messages):
                    async for message in messages:
                        await call.context.write(message)

            await self._through(call, handle)

        # Always as a stream of requests, for gRPC reads a single one before it calls.
        make: Any = grpc.stream_unary_rpc_method_handler
        if handler.response_streaming:
            make = grpc.stream_stream_rpc_method_handler
        behaviour = stream if handler.response_streaming else answer
        return cast(Handler, make(behaviour, handler.request_deserializer, handler.response_serializer))

    async def _through(self, call: Call, handle: Proceed) -> None:
        for interceptor in self._inwards:
            handle = partial(interceptor.around, call, handle)
        await handle()

    async def _only(self, call: Call) -> Any:
        # Read, not iterated over: an iterator that is left before its end costs a task of its own to close.
        try:
            async with asyncio.timeout(self._message_s):
                message = await call.context.read()
        except TimeoutError:
            raise DeadlineExceeded(f"The message did not come within {self._message_s:g} s; send it faster.") from None
        if message is grpc.aio.EOF:
            raise InvalidInput("The call brings no message; send one.")
        return message


_KINDS: dict[tuple[bool, bool], Kind] = {
    (False, False): "unary",
    (True, False): "client_stream",
    (False, True): "server_stream",
    (True, True): "bidi_stream",
}
_SLOTS: dict[Kind, str] = {
    "unary": "unary_unary",
    "client_stream": "stream_unary",
    "server_stream": "unary_stream",
    "bidi_stream": "stream_stream",
}
"""What gRPC calls a handler of that kind."""


class _CountingContext:
    """gRPC's context; counts what is read and written through it, for the current call: holding that one, which holds
    this, would be a circle."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    async def read(self) -> Any:
        try:
            message = await self._context.read()
        except DecodeError:
            raise _unreadable() from None
        if message is not grpc.aio.EOF and (call := _CURRENT.get()) is not None:
            await _taken(call)
        return message

    async def write(self, message: Any) -> None:
        try:
            await self._context.write(message)
        except grpc.aio.InternalError as error:
            # What gRPC says of a write that waited for a caller who has gone; else it would have cancelled the handler.
            raise asyncio.CancelledError from error
        if (call := _CURRENT.get()) is not None:
            call.sent += 1


def _enter(method: str, kind: Kind, context: Context) -> Call:
    """A new call, current from now on: gRPC runs each in a task of its own, so nothing needs resetting."""
    sent = context.invocation_metadata() or ()
    metadata = tuple((key, value) for key, value in sent if key not in CREDENTIALS)
    counting: Any = _CountingContext(context)
    call = Call(method=method, kind=kind, metadata=metadata, context=counting, request_id="")
    named = call.header(REQUEST_ID_KEY) or ""
    sane = 0 < len(named) <= MAX_REQUEST_ID and named.isascii() and named.isprintable()
    call.request_id = named if sane else secrets.token_hex(16)
    _CURRENT.set(call)
    return call


async def _counted(requests: AsyncIterator[Any], call: Call) -> AsyncIterator[Any]:
    try:
        async for request in requests:
            await _taken(call)
            yield request
    except DecodeError:
        raise _unreadable() from None


async def _taken(call: Call) -> None:
    call.received += 1
    if call.pace is not None:
        await call.pace()


def _unreadable() -> InvalidInput:
    return InvalidInput("The message is not of the type that this method takes; see its contract.")
