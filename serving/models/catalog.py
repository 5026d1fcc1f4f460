"""Which models are served, which of them can answer now, and which one a request means."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from saaa.errors import BackendUnavailable, ModelNotFound
from saaa.work import ModelInfo, ModelKind


@dataclass(frozen=True, kw_only=True)
class Route:
    """Which versions of one model callers reach."""

    versions: frozenset[str]
    default: str
    canary: str = ""
    """Gets a share of the requests that name no version; empty is none."""
    share: float = 0.0
    """In [0, 1)."""

    def choose(self, name: str, request_id: str) -> str:
        """The version of a request that names none: a matter of its id alone, so that all services choose alike.

        A larger share keeps those whom a smaller one had chosen. A request without an id gets the default.
        """
        if not self.canary or not request_id:
            return self.default
        drawn = hashlib.sha256(f"{name}\n{self.canary}\n{request_id}".encode()).digest()[:8]
        return self.canary if int.from_bytes(drawn) < self.share * 2**64 else self.default


class Catalog:
    """The models that the backend last told of; the probe in `serving.backends.health` keeps it fresh.

    `serving.backends.reconcile` says which versions callers reach, where a `models.yaml` does; else they reach all, and
    the highest is the default.
    """

    def __init__(self) -> None:
        self._all: tuple[ModelInfo, ...] = ()
        self._routes: dict[str, Route] | None = None
        self._users: Counter[tuple[str, str]] = Counter()
        self._models: tuple[ModelInfo, ...] = ()
        self._ready: frozenset[tuple[str, str]] = frozenset()
        self._known = False

    @property
    def models(self) -> tuple[ModelInfo, ...]:
        """All models that callers reach, by name then version."""
        return self._models

    @property
    def routes(self) -> Mapping[str, Route] | None:
        """Where there is a `models.yaml`: the versions that callers reach, by model."""
        return self._routes

    @property
    def ready(self) -> frozenset[tuple[str, str]]:
        """(name, version) of the models that can answer now."""
        return self._ready

    @property
    def known(self) -> bool:
        """Whether the backend has ever described its models."""
        return self._known

    def keys(self) -> frozenset[tuple[str, str]]:
        """(name, version) of all models of the backend, reached or not."""
        return frozenset((info.name, info.version) for info in self._all)

    def describe(self, models: Iterable[ModelInfo]) -> None:
        """Replace the list of models. What is still the same stays the same object, so that it is in memory once
        however many hold it."""
        before = {(info, info.runtime): info for info in self._all}
        told = (before.get((info, info.runtime), info) for info in models)
        self._all = tuple(sorted(told, key=lambda info: (info.name, version_order(info.version))))
        self._known = True
        self._select()

    def set_routes(self, routes: Mapping[str, Route] | None) -> None:
        """Say which versions callers reach from now on; None is all."""
        self._routes = None if routes is None else dict(routes)
        self._select()

    def _select(self) -> None:
        routes = self._routes
        self._models = tuple(
            info
            for info in self._all
            if routes is None or (info.name in routes and info.version in routes[info.name].versions)
        )

    @contextlib.contextmanager
    def using(self, *models: ModelInfo) -> Iterator[None]:
        """Hold models: what is held is not unloaded."""
        keys = [(info.name, info.version) for info in models]
        self._users.update(keys)
        try:
            yield
        finally:
            self._users.subtract(keys)
            self._users += Counter()  # forget those that nobody holds

    def in_use(self, name: str, version: str) -> bool:
        """Whether somebody holds it."""
        return (name, version) in self._users

    def set_ready(self, ready: frozenset[tuple[str, str]]) -> None:
        """Replace the set of models that can answer now."""
        self._ready = ready

    def is_ready(self, info: ModelInfo) -> bool:
        """Whether this model can answer now."""
        return (info.name, info.version) in self._ready

    def require_known(self) -> None:
        """Raises `BackendUnavailable` while the backend has never been reached."""
        if not self._known:
            raise BackendUnavailable("The model backend has not been reached yet; try again shortly.")

    def require_ready(self, info: ModelInfo) -> None:
        """Raises `BackendUnavailable` while this model cannot answer."""
        if not self.is_ready(info):
            raise BackendUnavailable(f"The model {info.name} {info.version} cannot answer now; try again shortly.")

    def find(
        self,
        name: str,
        version: str = "",
        *,
        kind: ModelKind | None = None,
        field: str = "name",
        request_id: str = "",
    ) -> ModelInfo:
        """The model of that name: the version given, else the canary or the default, else the highest.

        Args:
            name: the model's name.
            version: its version; empty leaves it to the routes.
            kind: what it must be for; None is anything.
            field: how the caller names the model, for the error.
            request_id: decides who gets a canary.

        Raises:
            ModelNotFound: none is served.
            BackendUnavailable: the default version is not there now.
        """
        named = [info for info in self._models if info.name == name and kind in (None, info.kind)]
        if not named:
            names = sorted({info.name for info in self._models if kind in (None, info.kind)})
            what = f"{kind.name} model" if kind else "model"
            raise ModelNotFound(f"No {what} named {_show(name)} is served; there {_these(names)}.", field=f"{field}")
        chosen = version
        if not version:
            if self._routes is None:
                return named[-1]
            chosen = self._routes[name].choose(name, request_id)
        for info in named:
            if info.version == chosen:
                return info
        if not version:
            raise BackendUnavailable(f"The model {name} {chosen} cannot answer now; try again shortly.")
        versions = [info.version for info in named]
        raise ModelNotFound(
            f"The model {name} has no version {_show(version)}; there {_these(versions)}.",
            field="version" if field == "name" else field.replace("name", "version"),
        )

    def default(self, kind: ModelKind, *, request_id: str = "") -> ModelInfo | None:
        """The first model of that kind by name, in the version of `find`; None when none is served."""
        for info in self._models:
            if info.kind is kind:
                return self.find(info.name, kind=kind, request_id=request_id)
        return None


def version_order(version: str) -> tuple[tuple[int, int, str], ...]:
    """1.10 comes after 1.9; words sort before numbers (1.0rc before 1.0.1)."""
    parts = re.findall(r"\d+|[^\d.]+", version)
    return tuple((1, int(part), "") if part.isdecimal() else (0, 0, part) for part in parts)


def _show(text: str) -> str:
    return ascii(text if len(text) <= 64 else text[:61] + "...")


def _these(names: list[str], most: int = 8) -> str:
    if not names:
        return "is none"
    shown = ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
    return f"{'is' if len(names) == 1 else 'are'} {shown}"
