"""Follow `models.yaml` while requests are answered: load what is new, send callers there, let go of what nobody uses.

What is wanted is compared with what is loaded again and again, so that whatever fails on the way (an archive that is
not there yet, a worker that dies while it loads) is tried again, and a service that was away catches up. Callers get a
version only once it was seen to compute; one that is no longer listed is let go only when the last request that holds
it has its answer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from saaa.errors import OptionInvalid, SaaaError
from serving.backends.base import ModelHost
from serving.models.catalog import Catalog, Route, version_order
from serving.models.models_file import FILE_NAME, Entry, ModelsFile, Version, read
from serving.models.store import check

_log = logging.getLogger(__name__)
_Key = tuple[str, str]
_FIRST_RETRY_S, _LONGEST_RETRY_S = 2.0, 60.0


class Reconciler:
    """Brings what is served to what `models.yaml` says; an async context manager around the service.

    Args:
        host: holds the models, and names their folder.
        catalog: told where callers go.
        interval_s: seconds between two looks at the file.
    """

    def __init__(self, host: ModelHost, catalog: Catalog, *, interval_s: float = 1.0) -> None:
        self._host = host
        self._catalog = catalog
        self._interval_s = interval_s
        self._wanted: ModelsFile | None = None
        self._stamp: tuple[int, ...] | None = None
        self._retries: dict[_Key, tuple[int, float]] = {}
        """Of what does not load: how often it was tried, and the event-loop time of the next attempt."""
        self._leaving: _Key | None = None
        """What is being unloaded: nobody is sent there, whatever the file says meanwhile."""

    async def __aenter__(self) -> Self:
        """Send callers where the file says before the first one comes, then go on beside the service."""
        self._read()
        self._publish()
        self._tasks = [asyncio.create_task(self._again(work)) for work in (self._follow, self._change)]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def step(self) -> None:
        """Compare once, and do all that can be done now."""
        await self._follow()
        await self._change()

    async def _again(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do it again and again. What takes long (loading) and what must not wait for it have each their own turn."""
        while True:
            try:
                await work()
            except Exception:
                _log.exception("following %s failed", FILE_NAME)
            await asyncio.sleep(self._interval_s)

    async def _follow(self) -> None:
        self._read()
        self._publish()

    async def _change(self) -> None:
        while missing := self._missing():
            await self._load(*missing)
        await self._let_go()

    def _read(self) -> None:
        path = self._host.folder / FILE_NAME
        try:
            stat = path.stat()
        except OSError:
            stamp: tuple[int, ...] = ()
        else:
            stamp = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            content = read(self._host.folder)
        except OptionInvalid as error:
            _log.error("what is served stays as it is: %s", error.message)
            return
        if content is None and self._wanted is not None:
            _log.error("%s is gone; what is served stays as it is", path)
            return
        self._wanted = content
        self._retries.clear()

    def _missing(self) -> tuple[_Key, Version] | None:
        """What is to be loaded next. A version whose place another archive still holds comes later."""
        now = asyncio.get_running_loop().time()
        loaded = self._host.loaded()
        for key, version in self._versions().items():
            if key not in loaded and now >= self._retries.get(key, (0, 0.0))[1]:
                return key, version
        return None

    async def _load(self, key: _Key, version: Version) -> None:
        folder = self._host.folder
        try:
            info = await asyncio.to_thread(check, folder, *key, version)
            await self._host.load(folder / version.archive, info)
        except SaaaError as error:
            attempts, _ = self._retries.get(key, (0, 0.0))
            delay = min(_FIRST_RETRY_S * 2**attempts, _LONGEST_RETRY_S)
            self._retries[key] = (attempts + 1, asyncio.get_running_loop().time() + delay)
            _log.error("%s %s is not loaded, again in %g s: %s", *key, delay, error.message)
        else:
            self._retries.pop(key, None)
            _log.warning("%s %s is loaded", *key)

    def _publish(self) -> None:
        """Send callers where the file says, as far as that can answer; else where they went before."""
        if self._wanted is None:
            return
        before = self._catalog.routes
        if before is None:
            before = self._implied()
        routes = {}
        for name, entry in self._wanted.models.items():
            route = self._route(name, entry, before.get(name))
            if route is not None:
                routes[name] = route
        if routes != self._catalog.routes:
            self._catalog.set_routes(routes)
            _log.info("callers go to %s", "; ".join(f"{name} {_told(route)}" for name, route in routes.items()))

    def _implied(self) -> dict[str, Route]:
        """Where callers go while nothing is listed: to all that is loaded, and to the highest version."""
        names: dict[str, set[str]] = {}
        for name, version in self._host.loaded():
            names.setdefault(name, set()).add(version)
        return {
            name: Route(versions=frozenset(versions), default=max(versions, key=version_order))
            for name, versions in names.items()
        }

    def _route(self, name: str, entry: Entry, before: Route | None) -> Route | None:
        loaded = self._host.loaded()
        held = {
            version
            for version, listed in entry.versions.items()
            if loaded.get((name, version)) == listed.digest and (name, version) != self._leaving
        }
        known = before.versions if before else frozenset()
        able = frozenset(v for v in held if v in known or (name, v) in self._catalog.ready)
        default = entry.default
        if default not in able:
            # Not there yet. The one before goes on, unless another archive is to take its place.
            if before is None or (name, before.default) not in loaded or before.default in entry.versions.keys() - held:
                return None
            default = before.default
        canary = entry.canary if entry.canary in able and entry.canary != default else ""
        return Route(versions=able | {default}, default=default, canary=canary, share=entry.share if canary else 0.0)

    async def _let_go(self) -> None:
        """Unload what is neither listed nor reached, once the last request that holds it has its answer."""
        if self._catalog.routes is None:
            return
        listed = {key: version.digest for key, version in self._versions().items()}
        reached = {(name, v) for name, route in self._catalog.routes.items() for v in route.versions}
        for key, digest in dict(self._host.loaded()).items():
            if not digest or listed.get(key) == digest or key in reached or self._catalog.in_use(*key):
                continue
            self._leaving = key
            try:
                await self._host.unload(*key)
            except SaaaError as error:
                _log.error("%s %s is not unloaded yet: %s", *key, error.message)
            else:
                _log.warning("%s %s is unloaded", *key)
            finally:
                self._leaving = None

    def _versions(self) -> dict[_Key, Version]:
        models = self._wanted.models if self._wanted else {}
        return {(name, v): version for name, entry in models.items() for v, version in entry.versions.items()}


def _told(route: Route) -> str:
    return route.default + (f" ({route.share:g} to {route.canary})" if route.canary else "")
