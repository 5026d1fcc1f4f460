"""With which status a call ended, as seen from outside of the error mapping."""

from __future__ import annotations

import asyncio

import grpc

from serving.interceptors.base import Call

_BY_NUMBER = {code.value[0]: code for code in grpc.StatusCode}


def outcome(call: Call, error: BaseException | None) -> grpc.StatusCode:
    """The status that the caller sees.

    Args:
        call: that has ended.
        error: what left its handler; None where nothing did.
    """
    if isinstance(error, asyncio.CancelledError):
        # gRPC cancels the handler both when the caller leaves and when the deadline passes.
        left = call.context.time_remaining()
        return grpc.StatusCode.CANCELLED if left is None or left > 0 else grpc.StatusCode.DEADLINE_EXCEEDED
    code = call.context.code()
    known = code if isinstance(code, grpc.StatusCode) else _BY_NUMBER.get(code or 0, grpc.StatusCode.UNKNOWN)
    if error is not None and known is grpc.StatusCode.OK:
        return grpc.StatusCode.UNKNOWN
    return known
