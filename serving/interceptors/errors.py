"""Ends every failed call with the status that the table names."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import grpc

from saaa.errors import NotEnabled, SaaaError
from serving.errors import to_status, unforeseen
from serving.interceptors.base import REQUEST_ID_KEY, Call, CallInterceptor

DETAILS_KEY = "grpc-status-details-bin"
_CODES_BY_NUMBER = {code.value[0]: code for code in grpc.StatusCode}


class ErrorInterceptor(CallInterceptor):
    """Turns exceptions into statuses with `google.rpc` details; the call's request id goes with them."""

    @contextlib.asynccontextmanager
    async def around(self, call: Call) -> AsyncIterator[None]:
        """Abort the call when the handler raises; what nobody foresaw is logged and told as an incident."""
        try:
            yield
            return
        except SaaaError as error:
            status = to_status(error)
        except grpc.aio.AbortError:
            raise
        except NotImplementedError as error:
            # What generated servicers say of a method of their contract that nobody wrote.
            known = call.context.code() is grpc.StatusCode.UNIMPLEMENTED
            status = to_status(NotEnabled("This service does not have this method.")) if known else unforeseen(error)
        except Exception as error:
            status = unforeseen(error)
        trailing = ((DETAILS_KEY, status.SerializeToString()), (REQUEST_ID_KEY, call.request_id))
        try:
            await call.context.abort(_CODES_BY_NUMBER[status.code], status.message, trailing)
        except grpc.aio.AbortError as aborted:
            # It has left all frames by then.
            asyncio.get_running_loop().call_soon(_let_go, aborted)
            raise


def _let_go(aborted: grpc.aio.AbortError) -> None:
    """Forget how it came about. gRPC keeps it with the call, and by tracebacks it and what it stands for keep every
    frame, with the request's bytes and the call: circles that only the collector would end, with a pause for all."""
    if (failure := aborted.__context__) is not None:
        failure.__traceback__ = None
    aborted.__traceback__ = aborted.__context__ = None
