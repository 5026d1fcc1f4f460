"""What one caller may ask for, in a second and at once, and how many calls there may be at all."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from saaa.errors import CallerLimited, ServiceFull
from serving.interceptors.base import Call, CallInterceptor, Proceed
from serving.security.scopes import is_open
from serving.security.settings import SecuritySettings

_FEW = 1024
"""So many callers are remembered before those at rest are forgotten."""
_AGAIN_S = 0.5
"""When to come back with too many calls at work: how long they take is not known."""


@dataclass(slots=True, eq=False)
class _Account:
    """What a caller has left."""

    calls: float
    """Calls that may be made at once; below 0 where a stream has taken items ahead."""
    at: float
    """When that was so, in seconds of the clock."""
    working: int = 0
    """Calls at work."""


class LimitsInterceptor(CallInterceptor):
    """A token bucket and a count for each caller, a count for all. Items of a stream are held up rather than refused.

    Args:
        settings: the rate, its burst, and calls at once, of one caller and of all.
        clock: seconds that only grow.
    """

    def __init__(self, settings: SecuritySettings, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = settings.calls_per_s or math.inf
        self._burst = float(settings.burst)
        self._at_once = settings.calls_at_once or math.inf
        self._max_calls = settings.max_calls
        self._working = 0
        self._clock = clock
        self._accounts: dict[str, _Account] = {}
        self._forget_above = _FEW

    async def around(self, call: Call, proceed: Proceed) -> None:
        """Count the call as its caller's while it runs; health and liveness are free.

        Raises:
            CallerLimited: the caller has no call left, or too many at work.
            ServiceFull: all callers together have too many at work.
        """
        if is_open(call.method):
            await proceed()
            return
        account = self._account(call.caller)
        if account.working >= self._at_once:
            raise CallerLimited(
                f"One caller may have {self._at_once} calls at work; wait for one to end.", retry_after_s=_AGAIN_S
            )
        if account.calls < 1:
            raise CallerLimited(
                f"One caller may make {self._rate:g} calls a second; make fewer.",
                retry_after_s=(1 - account.calls) / self._rate,
            )
        if self._working >= self._max_calls:
            raise ServiceFull("Too many calls are at work; try again later.", retry_after_s=_AGAIN_S)
        account.calls -= 1
        account.working += 1
        self._working += 1
        if call.kind == "bidi_stream":
            call.pace = lambda: self._pace(call)
        try:
            await proceed()
        finally:
            account.working -= 1
            self._working -= 1

    async def _pace(self, call: Call) -> None:
        """Hold up a stream's items until the caller may make so many calls; the first is the call itself."""
        if call.received <= 1:
            return
        account = self._account(call.caller)
        account.calls -= 1
        if account.calls < 0:
            await asyncio.sleep(-account.calls / self._rate)

    def _account(self, caller: str) -> _Account:
        now = self._clock()
        account = self._accounts.get(caller)
        if account is None:
            self._forget(now)
            account = self._accounts[caller] = _Account(self._burst, now)
        elapsed = now - account.at
        # With an endless rate the bucket is full after any time, none included.
        account.calls = min(self._burst, account.calls + elapsed * self._rate) if self._rate < math.inf else self._burst
        account.at = now
        return account

    def _forget(self, now: float) -> None:
        """Drop accounts that are as good as new, so that memory is bounded by callers at work or just now."""
        if len(self._accounts) < self._forget_above:
            return
        self._accounts = {
            caller: account
            for caller, account in self._accounts.items()
            if account.working or account.calls + (now - account.at) * self._rate < self._burst
        }
        self._forget_above = max(_FEW, 2 * len(self._accounts))
