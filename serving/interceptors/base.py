"""The chain's common part: a call as every interceptor sees it, and one method to override.

Outermost first, the facade's chain is: metrics, tracing, error mapping, stopping, authentication, limits, handler.
Whichever is outermost makes the `Call`; all others, and whatever runs below them, see the same one.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal

import grpc
from google.protobuf.message import DecodeError

from saaa.errors import DeadlineExceeded, InvalidInput

Context = grpc.aio.ServicerContext[Any, Any]
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


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Does something around every call, of whatever kind; subclasses override `around`.

    Handlers are coroutines, or asynchronous generators where they answer with a stream.
    """

    @contextlib.asynccontextmanager
    async def around(self, call: Call) -> AsyncIterator[None]:
        """Entered before the handler and left after its last message; the handler's exceptions pass through."""
        yield

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Wrap the method's handler; None, a method that nobody serves, stays None."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        form = _KINDS[bool(handler.request_streaming), bool(handler.response_streaming)]
        inner: Any = getattr(handler, _SLOTS[form])
        # Its form is another one where `read_late` has changed it.
        kind: Kind = getattr(inner, "kind", form)
        method = handler_call_details.method

        async def answer(request: Any, context: Context) -> Any:
            call, request = _enter(method, kind, request, context)
            async with self.around(call):
                response = await inner(request, call.context)
                call.sent = 1
            return response

        async def stream(request: Any, context: Context) -> None:
            call, request = _enter(method, kind, request, context)
            async with self.around(call):
                messages = inner(request, call.context)
                if not hasattr(messages, "__aiter__"):
                    await messages
                    return
                async with contextlib.aclosing(messages):
                    async for message in messages:
                        await call.context.write(message)

        outer: Any = stream if handler.response_streaming else answer
        outer.kind = kind
        return _handler(form, outer, handler)


def read_late(handler: grpc.RpcMethodHandler[Any, Any], seconds: float) -> grpc.RpcMethodHandler[Any, Any]:
    """The same handler, but the one message of a request is read when it is called, not before.

    So the chain around it judges the caller before the message, which may be large, is taken in and parsed. It must be
    there after so many seconds: a caller without a deadline could else hold its place for ever.
    """
    if handler.request_streaming:
        return handler
    kind = _KINDS[False, bool(handler.response_streaming)]
    inner: Any = getattr(handler, _SLOTS[kind])

    async def answer(_: AsyncIterator[Any], context: Context) -> Any:
        return await inner(await _only(context, seconds), context)

    async def stream(_: AsyncIterator[Any], context: Context) -> None:
        messages = inner(await _only(context, seconds), context)
        if not hasattr(messages, "__aiter__"):
            await messages
            return
        async with contextlib.aclosing(messages):
            async for message in messages:
                await context.write(message)

    outer: Any = stream if handler.response_streaming else answer
    outer.kind = kind
    return _handler("bidi_stream" if handler.response_streaming else "client_stream", outer, handler)


def _handler(form: Kind, behaviour: Any, like: grpc.RpcMethodHandler[Any, Any]) -> grpc.RpcMethodHandler[Any, Any]:
    make: Any = getattr(grpc, f"{_SLOTS[form]}_rpc_method_handler")
    wrapped: grpc.RpcMethodHandler[Any, Any] = make(behaviour, like.request_deserializer, like.response_serializer)
    return wrapped


async def _only(context: Context, seconds: float) -> Any:
    # Read, not iterated over: an iterator that is left before its end costs a task of its own to close.
    try:
        async with asyncio.timeout(seconds):
            message = await context.read()
    except TimeoutError:
        raise DeadlineExceeded(f"The message did not come within {seconds:g} s; send it faster.") from None
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
        await self._context.write(message)
        if (call := _CURRENT.get()) is not None:
            call.sent += 1


def _enter(method: str, kind: Kind, request: Any, context: Context) -> tuple[Call, Any]:
    """The call, made by the outermost interceptor, and its request or requests, which that one counts.

    gRPC runs each call in a task of its own, so nothing needs resetting.
    """
    call = _CURRENT.get()
    if call is not None and call.context is context:
        return call, request
    sent = context.invocation_metadata() or ()
    metadata = tuple((key, value) for key, value in sent if key not in CREDENTIALS)
    call = Call(method=method, kind=kind, metadata=metadata, context=context, request_id="")
    named = call.header(REQUEST_ID_KEY) or ""
    sane = 0 < len(named) <= MAX_REQUEST_ID and named.isascii() and named.isprintable()
    call.request_id = named if sane else uuid.uuid4().hex
    streamed = hasattr(request, "__aiter__")
    if kind != "unary" or streamed:
        call.context = _CountingContext(context)  # type: ignore[assignment]
    _CURRENT.set(call)
    if streamed:
        return call, _counted(request, call)
    call.received = 1
    return call, request


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
