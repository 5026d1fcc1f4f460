"""The probe: looks at the backend again and again, keeps the catalog fresh and the health service true."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence

from grpc_health.v1 import health, health_pb2

from saaa.errors import SaaaError
from serving.backends.base import Backend
from serving.models.catalog import Catalog
from serving.settings import FacadeSettings

log = logging.getLogger(__name__)

ALIVE = "alive"
"""The health name that serves as long as the process answers, whatever its models do; for liveness probes."""
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Probe:
    """Tells whether the backend can answer.

    Health names: "" and the services' full names are serving while every served model can answer; "model/<name>"
    while one version of that model can; "runtime/<name>" while all its versions are computed with what was wanted,
    see `saaa.work.Execution.refused`.

    Args:
        backend: looked at.
        catalog: told what was seen.
        servicer: told whether it is serving.
        services: full names of the services that need models.
        settings: interval and timeout.
    """

    def __init__(
        self,
        backend: Backend,
        catalog: Catalog,
        servicer: health.aio.HealthServicer,
        services: Sequence[str],
        settings: FacadeSettings,
    ) -> None:
        self._backend = backend
        self._catalog = catalog
        self._servicer = servicer
        self._names = ("", *services)
        self._settings = settings
        self._poke = asyncio.Event()
        self._reached = True
        self._told: set[str] = set()
        self._warned: frozenset[tuple[str, str, str, str]] = frozenset()

    def poke(self) -> None:
        """Look again without delay."""
        self._poke.set()

    async def run(self) -> None:
        """Look for ever; cancel to stop."""
        while True:
            await self.look()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._settings.probe_interval_s):
                    await self._poke.wait()
            self._poke.clear()

    async def look(self) -> None:
        """Look once; the backend's failure is an outcome, not an error."""
        try:
            async with asyncio.timeout(self._settings.probe_timeout_s):
                ready = await self._backend.ready()
        except Exception as error:
            ready = frozenset()
            self._note(error)
        else:
            self._note(None)
        # A list read before an outage may be out of date after it.
        if ready and (ready != self._catalog.ready or not ready <= self._catalog.keys()):
            await self._describe()
        self._catalog.set_ready(ready)
        await self._publish()

    async def _describe(self) -> None:
        """Read the list of models; what is known stays when that fails, for instance because the workers are busy."""
        try:
            async with asyncio.timeout(self._settings.describe_timeout_s):
                self._catalog.describe(await self._backend.describe())
        except Exception as error:
            log.warning("the backend does not describe its models: %s", error or "no answer in time")
            return
        refused = frozenset(
            (info.name, info.version, info.execution.runtime, info.execution.refused)
            for info in self._catalog.models
            if info.execution is not None and info.execution.refused
        )
        for told in sorted(refused - self._warned):
            log.warning("model %s %s is computed by %s: %s", *told)
        self._warned = refused

    def _note(self, error: Exception | None) -> None:
        if error is not None and not isinstance(error, (SaaaError, TimeoutError, OSError)):
            log.error("looking at the backend failed", exc_info=error)
        elif error is not None and self._reached:
            log.warning("the backend does not answer: %s", str(error) or "no answer in time")
        elif error is None and not self._reached:
            log.info("the backend answers again")
        self._reached = error is None

    async def _publish(self) -> None:
        models = self._catalog.models
        whole = SERVING if models and all(map(self._catalog.is_ready, models)) else NOT_SERVING
        for name in self._names:
            await self._servicer.set(name, whole)
        served = {info.name for info in models}
        # A model that was unloaded is told as not serving: whoever watches it learns.
        for name in served | self._told:
            ready = any(info.name == name and self._catalog.is_ready(info) for info in models)
            await self._servicer.set(f"model/{name}", SERVING if ready else NOT_SERVING)
            wanted = name in served and not any(name == told[0] for told in self._warned)
            await self._servicer.set(f"runtime/{name}", SERVING if wanted else NOT_SERVING)
        self._told |= served
