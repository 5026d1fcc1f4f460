"""The seam between the facade and what computes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from saaa.work import ItemResult, ModelInfo, WorkBatch


class Backend(Protocol):
    """Runs packed batches on some models. All methods may be called at the same time from one event loop."""

    name: str
    """What computes, for people: "torchserve" or "local"."""

    async def describe(self) -> tuple[ModelInfo, ...]:
        """Describe every model that can answer.

        Raises:
            BackendUnavailable: the backend cannot be reached.
            BackendFailed: it answered with something else.
        """

    async def run(self, batch: WorkBatch, *, timeout: float) -> list[ItemResult]:
        """Compute a batch: one result an item, in order; what is wrong with one item is in its result.

        Args:
            batch: for one of the models.
            timeout: seconds after which nobody waits for the answer any more, above 0.

        Raises:
            ModelNotFound: no such model or version.
            WorkerDied: the process that computed it died; it may be sent again at once.
            BackendUnavailable: not computed, or the answer is lost; another attempt may succeed.
            LaneFull: more waits at the backend than it takes.
            BackendFailed: it cannot be computed; another attempt would fail alike.
            DeadlineExceeded: no answer within `timeout`.
        """

    async def ready(self) -> frozenset[tuple[str, str]]:
        """Name the models that can answer now, as (name, version); none while it cannot be reached."""

    async def close(self) -> None:
        """Let go of everything; no other method may be called afterwards."""


class ModelHost(Protocol):
    """Who holds the models of a folder: loads and unloads them while others compute."""

    @property
    def folder(self) -> Path:
        """The folder of archives."""

    def loaded(self) -> Mapping[tuple[str, str], str]:
        """What is loaded: the archive's digest by (name, version), "" while that is not known."""

    async def load(self, path: Path, info: ModelInfo) -> None:
        """Load one version and wait until it can compute.

        Args:
            path: the archive.
            info: what it was when it was checked; what is loaded must be the same.

        Raises:
            SaaaError: it does not load; nothing of it is left.
        """

    async def unload(self, name: str, version: str) -> None:
        """Let go of one version; nobody asks it any more. Raises `SaaaError` where it cannot be done now."""

    async def restart(self, name: str, version: str) -> None:
        """Kill what computes on one version, because it does not answer; it is started again. Raises nothing."""
