"""Counts calls."""

from __future__ import annotations

import time

from serving.interceptors.base import Call, CallInterceptor, Proceed
from serving.interceptors.outcome import outcome
from serving.telemetry.metrics import Metrics


class MetricsInterceptor(CallInterceptor):
    """The outermost of the chain: sees every call with the status that its caller gets.

    Args:
        metrics: told of each call.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    async def around(self, call: Call, proceed: Proceed) -> None:
        """Tell of the call's begin and end."""
        self._metrics.began(call)
        try:
            await proceed()
        except BaseException as error:
            self._ended(call, error)
            raise
        self._ended(call, None)

    def _ended(self, call: Call, error: BaseException | None) -> None:
        self._metrics.ended(call, outcome(call, error), time.monotonic() - call.started)
