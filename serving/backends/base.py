"""The seam between the facade and what computes."""

from __future__ import annotations

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
            BackendUnavailable: not computed, or the answer is lost; another attempt may succeed.
            BackendFailed: it cannot be computed; another attempt would fail alike.
            DeadlineExceeded: no answer within `timeout`.
        """

    async def ready(self) -> frozenset[tuple[str, str]]:
        """Name the models that can answer now, as (name, version); none while it cannot be reached."""

    async def close(self) -> None:
        """Let go of everything; no other method may be called afterwards."""
