"""Ends every failed call with the status that the table names."""

from __future__ import annotations

import asyncio

import grpc
from google.rpc import status_pb2  # type: ignore[import-untyped]

from saaa.errors import NotEnabled, SaaaError
from serving.errors import to_status, unforeseen
from serving.interceptors.base import REQUEST_ID_KEY, Call, CallInterceptor, Proceed

DETAILS_KEY = "grpc-status-details-bin"
_CODES_BY_NUMBER = {code.value[0]: code for code in grpc.StatusCode}


class ErrorInterceptor(CallInterceptor):
    """Turns exceptions into statuses with `google.rpc` details; the call's request id goes with them."""

    async def around(self, call: Call, proceed: Proceed) -> None:
        """Abort the call when the handler raises; what nobody foresaw is logged and told as an incident."""
        try:
            await proceed()
            return
        except grpc.aio.AbortError:
            raise
        except Exception as error:
            status = _status(error, call)
            # By its traceback it keeps the frames that it left, and those may keep it: what only the collector would
            # end, with a pause for all.
            error.__traceback__ = None
        trailing = ((DETAILS_KEY, status.SerializeToString()), (REQUEST_ID_KEY, call.request_id))
        try:
            await call.context.abort(_CODES_BY_NUMBER[status.code], status.message, trailing)
        except grpc.aio.AbortError as aborted:
            # It has left all frames by then.
            asyncio.get_running_loop().call_soon(_let_go, aborted)
            raise


def _status(error: Exception, call: Call) -> status_pb2.Status:
    if isinstance(error, SaaaError):
        return to_status(error)
    # What generated servicers say of a method of their contract that nobody wrote.
    if isinstance(error, NotImplementedError) and call.context.code() is grpc.StatusCode.UNIMPLEMENTED:
        return to_status(NotEnabled("This service does not have this method."))
    return unforeseen(error)


def _let_go(aborted: grpc.aio.AbortError) -> None:
    """Forget how it came about: gRPC keeps it with the call, and its traceback would keep all frames, the request's
    bytes and the call with them."""
    aborted.__traceback__ = None
