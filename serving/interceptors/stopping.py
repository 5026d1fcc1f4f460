"""Refuses new calls and ends those that would never end by themselves, so that the service can stop."""

from __future__ import annotations

import asyncio

from saaa.errors import BackendUnavailable
from serving.interceptors.base import Call, CallInterceptor, Proceed

ENDLESS = ("/grpc.health.", "/grpc.reflection.")
"""How their methods' full names begin: they wait for news or for questions, and have no work to finish."""


class StoppingInterceptor(CallInterceptor):
    """Refuses and ends them when the service stops; all other calls finish.

    Args:
        stopping: done when the service stops.
    """

    def __init__(self, stopping: asyncio.Future[None]) -> None:
        self._stopping = stopping

    async def around(self, call: Call, proceed: Proceed) -> None:
        """Raises `BackendUnavailable` at the begin of any call, and in the middle of an endless one."""
        if self._stopping.done():
            raise _stopped()
        task = asyncio.current_task()
        if call.kind == "unary" or not call.method.startswith(ENDLESS) or task is None:
            await proceed()
            return

        def end(_: asyncio.Future[None]) -> None:
            task.cancel()

        self._stopping.add_done_callback(end)
        try:
            await proceed()
        except asyncio.CancelledError:
            if not self._stopping.done():
                raise
            task.uncancel()
            raise _stopped() from None
        finally:
            self._stopping.remove_done_callback(end)


def _stopped() -> BackendUnavailable:
    return BackendUnavailable("The service is stopping; ask another one.")
