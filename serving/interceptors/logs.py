"""One log line a call."""

from __future__ import annotations

import logging
import time

from serving.interceptors.base import Call, CallInterceptor, Proceed
from serving.interceptors.outcome import outcome
from serving.telemetry.logs import FIELDS

log = logging.getLogger("serving.calls")

QUIET = ("/grpc.health.", "/grpc.reflection.")
"""What is asked every few seconds by machines is said at level debug only."""


class LogInterceptor(CallInterceptor):
    """Says at level info how each call ended: code, seconds, messages; the formatter adds its id, method and caller."""

    async def around(self, call: Call, proceed: Proceed) -> None:
        """Log when the call has ended."""
        try:
            await proceed()
        except BaseException as error:
            _say(call, error)
            raise
        _say(call, None)


def _say(call: Call, error: BaseException | None) -> None:
    level = logging.DEBUG if call.method.startswith(QUIET) else logging.INFO
    fields = {
        "code": outcome(call, error).name,
        "seconds": round(time.monotonic() - call.started, 6),
        "received": call.received,
        "sent": call.sent,
    }
    log.log(level, "call ended", extra={FIELDS: fields})
