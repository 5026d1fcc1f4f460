"""asyncio on SimPy's clock: coroutines and SimPy's processes in one simulated time.

With it `benchmarks.simulate` runs the facade's own `serving.lanes.Lane` and not a copy of its rules.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import simpy

T = TypeVar("T")


class SimulatedLoop(asyncio.AbstractEventLoop):
    """An event loop whose every callback is an event of SimPy; what is due at the same time runs in the order asked.

    Args:
        env: the simulation; its time is the loop's, in seconds.
    """

    def __init__(self, env: simpy.Environment) -> None:
        self.env = env
        self._failure: BaseException | None = None

    def run(self, until: float | None = None) -> None:
        """Run the simulation until then, or until nothing is left to happen.

        Raises:
            BaseException: what a callback or task raised and nobody caught.
        """
        # There is one running loop a thread; the events of this one are run by SimPy.
        outer = asyncio._get_running_loop()
        asyncio._set_running_loop(self)
        try:
            self.env.run(until)
        finally:
            asyncio._set_running_loop(outer)
        if self._failure is not None:
            raise self._failure

    async def happens(self, event: simpy.Event) -> None:
        """Wait for an event of SimPy."""
        if event.callbacks is None:
            return
        future = self.create_future()
        event.callbacks.append(lambda _: None if future.done() else future.set_result(None))
        await future

    def time(self) -> float:
        """Simulated seconds."""
        return float(self.env.now)

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """See `asyncio`, as are the next ones."""
        return self.call_at(self.time(), callback, *args, context=context)

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        event = self.env.timeout(max(0.0, when - self.time()))
        assert event.callbacks is not None
        event.callbacks.append(lambda _: None if handle.cancelled() else handle._run())
        return handle

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Coroutine[Any, Any, T], **told: Any) -> asyncio.Task[T]:  # type: ignore[override]
        return asyncio.Task(coro, loop=self, **told)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Nothing is lost in a simulation: the first failure ends it."""
        failure = context.get("exception") or RuntimeError(str(context["message"]))
        self._failure = self._failure or failure

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """It stays in SimPy's queue and does nothing there."""
