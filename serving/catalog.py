"""Which models are served, which of them can answer now, and which one a request means."""

from __future__ import annotations

import re
from collections.abc import Iterable

from saaa.errors import BackendUnavailable, ModelNotFound
from saaa.work import ModelInfo, ModelKind


class Catalog:
    """The models that the backend last told of; the probe in `serving.health` keeps it fresh."""

    def __init__(self) -> None:
        self._models: tuple[ModelInfo, ...] = ()
        self._ready: frozenset[tuple[str, str]] = frozenset()
        self._known = False

    @property
    def models(self) -> tuple[ModelInfo, ...]:
        """All models, by name then version."""
        return self._models

    @property
    def ready(self) -> frozenset[tuple[str, str]]:
        """(name, version) of the models that can answer now."""
        return self._ready

    @property
    def known(self) -> bool:
        """Whether the backend has ever described its models."""
        return self._known

    def keys(self) -> frozenset[tuple[str, str]]:
        """(name, version) of all models."""
        return frozenset((info.name, info.version) for info in self._models)

    def describe(self, models: Iterable[ModelInfo]) -> None:
        """Replace the list of models."""
        self._models = tuple(sorted(models, key=lambda info: (info.name, _version_order(info.version))))
        self._known = True

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

    def find(self, name: str, version: str = "", *, kind: ModelKind | None = None, field: str = "name") -> ModelInfo:
        """The model of that name; the highest version unless one is given.

        Args:
            name: the model's name.
            version: its version; empty is the highest.
            kind: what it must be for; None is anything.
            field: how the caller names the model, for the error.

        Raises:
            ModelNotFound: none is served.
        """
        named = [info for info in self._models if info.name == name and kind in (None, info.kind)]
        if not named:
            names = sorted({info.name for info in self._models if kind in (None, info.kind)})
            what = f"{kind.name} model" if kind else "model"
            raise ModelNotFound(f"No {what} named {_show(name)} is served; there {_these(names)}.", field=f"{field}")
        if not version:
            return named[-1]
        for info in named:
            if info.version == version:
                return info
        versions = [info.version for info in named]
        raise ModelNotFound(
            f"The model {name} has no version {_show(version)}; there {_these(versions)}.",
            field="version" if field == "name" else field.replace("name", "version"),
        )

    def default(self, kind: ModelKind) -> ModelInfo | None:
        """The first model of that kind by name, in its highest version; None when none is served."""
        for info in self._models:
            if info.kind is kind:
                return self.find(info.name, kind=kind)
        return None


def _version_order(version: str) -> tuple[tuple[int, int, str], ...]:
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
