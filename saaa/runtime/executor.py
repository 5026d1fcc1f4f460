"""Run batches on an archived model. TorchServe's handlers and the in-process backend both compute here.

An item's fault is that item's `ItemError` and nobody else's; so is a failure that nobody foresaw.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from saaa import archive as archives
from saaa.archive import Archive
from saaa.errors import InvalidInput, OptionInvalid, SaaaError
from saaa.runtime.fingerprint import fingerprint
from saaa.runtime.options import RuntimeOptions
from saaa.scene_graph import RoleGraph
from saaa.work import (
    CaptionOptions,
    Execution,
    ItemError,
    ItemResult,
    ModelInfo,
    ModelKind,
    Work,
    WorkBatch,
    WorkItem,
)

_INTERNAL = "INTERNAL"
_log = logging.getLogger(__name__)


class _Runner(Protocol):
    """One kind of model."""

    works: tuple[Work, ...]
    engine: str
    """What computes, as in `fingerprint`."""
    execution: Execution

    @property
    def threads(self) -> int:
        """For one batch."""

    def check_options(self, batch: WorkBatch) -> None:
        """Raise a `SaaaError` when the options that all items share cannot be served."""

    def check_item(self, batch: WorkBatch, item: WorkItem) -> None:
        """Raise a `SaaaError` when this item cannot be served."""

    def run(self, batch: WorkBatch) -> list[ItemResult]:
        """Compute checked items; may raise anything."""


class Executor:
    """A loaded model.

    Not thread-safe: attribution changes the network's flags while it runs, so hold a lock or use one executor
    a thread.

    Args:
        archive: what to run.
        threads: for one batch, at least 1; None leaves torch's setting alone.
        runtime: what to execute the model with; None is as the environment says.

    Raises:
        ArchiveError: the archive does not describe a usable model.
    """

    def __init__(self, archive: Archive, *, threads: int | None = None, runtime: RuntimeOptions | None = None) -> None:
        if threads is not None and threads < 1:
            raise OptionInvalid(f"threads is {threads}; give at least 1.", field="threads")
        make = _classifying if archive.kind is ModelKind.EGDD else _captioning
        self._runner = make(archive, runtime or RuntimeOptions.from_environment(), threads)
        told = fingerprint(self._runner.engine, self._runner.threads)
        self.info: ModelInfo = dataclasses.replace(archive.info(), runtime=told, execution=self._runner.execution)
        """What the model says of itself."""

    @classmethod
    def open(cls, path: Path | str, *, threads: int | None = None, runtime: RuntimeOptions | None = None) -> Executor:
        """Read an archive, or a folder one was unpacked to; arguments and errors as for the class."""
        return cls(archives.read(path), threads=threads, runtime=runtime)

    def run(self, batch: WorkBatch) -> list[ItemResult]:
        """Compute a batch: one result an item, in order. Never raises for what a batch may hold."""
        try:
            self._check_batch(batch)
        except SaaaError as error:
            return [_failure(error)] * len(batch.items)
        results: list[ItemResult | None] = [self._refuse(batch, item) for item in batch.items]
        sound = [index for index, result in enumerate(results) if result is None]
        for index, result in zip(sound, self._compute(_select(batch, sound)), strict=True):
            results[index] = result
        return [result for result in results if result is not None]

    def warm_up(self) -> None:
        """Run each kind of work once, so that the first caller does not pay for what torch sets up lazily.

        Raises:
            RuntimeError: the model cannot serve even a grey image.
        """
        size = self.info.input_size
        whole = RoleGraph(
            types=np.zeros(1, np.int64),
            orders=np.zeros(1, np.int64),
            boxes=np.array([[0, 0, size, size]], np.float32),
            edges=np.zeros((0, 3), np.int64),
        )
        for work in self._runner.works:
            batch = WorkBatch(
                model=self.info.name,
                version=self.info.version,
                work=work,
                pixels=np.full((1, size, size, 3), 128, np.uint8),
                items=(WorkItem(graph=whole),),
                caption=CaptionOptions(beam_width=1),
            )
            (result,) = self.run(batch)
            if result.error is not None:
                raise RuntimeError(f"{self.info.name} cannot {work.value}: {result.error.message}")

    def _check_batch(self, batch: WorkBatch) -> None:
        info = self.info
        if (batch.model, batch.version) != (info.name, info.version):
            raise InvalidInput(f"The batch is for {batch.model} {batch.version}; this is {info.name} {info.version}.")
        if batch.work not in self._runner.works:
            able = " and ".join(work.value for work in self._runner.works)
            raise OptionInvalid(
                f"Model {info.name} can {able}, not {batch.work.value}; choose another model.", field="model"
            )
        wanted = (len(batch.items), info.input_size, info.input_size, 3)
        if batch.pixels.shape != wanted or batch.pixels.dtype != np.uint8:
            raise InvalidInput(
                f"The pixels are {batch.pixels.dtype} {batch.pixels.shape}, not uint8 {wanted}.",
                field="pixels",
            )
        self._runner.check_options(batch)

    def _refuse(self, batch: WorkBatch, item: WorkItem) -> ItemResult | None:
        try:
            self._runner.check_item(batch, item)
        except SaaaError as error:
            return _failure(error)
        return None

    def _compute(self, batch: WorkBatch) -> list[ItemResult]:
        """Run all items at once; should that fail, one by one, so that only the guilty ones fail."""
        if not batch.items:
            return []
        try:
            results = self._runner.run(batch)
            if len(results) != len(batch.items):
                raise RuntimeError(f"{len(results)} results for {len(batch.items)} items")
            return [_checked(result) for result in results]
        except Exception as error:
            if len(batch.items) == 1:
                return [_failure(error)]
            _log.warning("a batch of %d failed (%r); running its items one by one", len(batch.items), error)
        return [r for index in range(len(batch.items)) for r in self._compute(_select(batch, [index]))]


def item_error(error: Exception) -> ItemError:
    """Say an error so that it may be shown to the caller; what was not raised on purpose shows no details."""
    if isinstance(error, SaaaError):
        return ItemError(reason=error.reason, message=error.message, field=error.field)
    _log.error("unforeseen failure", exc_info=error)
    message = f"The model failed on this item ({type(error).__name__}); the server's log has the details."
    return ItemError(reason=_INTERNAL, message=message)


def _classifying(archive: Archive, options: RuntimeOptions, threads: int | None) -> _Runner:
    from saaa.runtime.classifying import ClassifierRunner  # a worker loads only what its model needs

    return ClassifierRunner(archive, options, threads)


def _captioning(archive: Archive, options: RuntimeOptions, threads: int | None) -> _Runner:
    from saaa.runtime.lean import import_vision

    import_vision()
    from saaa.runtime.captioning import CaptionerRunner

    return CaptionerRunner(archive, options, threads)


def _failure(error: Exception) -> ItemResult:
    return ItemResult(error=item_error(error))


def _select(batch: WorkBatch, indices: Sequence[int]) -> WorkBatch:
    if len(indices) == len(batch.items):
        return batch
    return dataclasses.replace(batch, pixels=batch.pixels[list(indices)], items=tuple(batch.items[i] for i in indices))


def _checked(result: ItemResult) -> ItemResult:
    """Raise when a result holds a number that is none."""
    arrays: list[NDArray[Any]] = []
    for m in result.maps:
        arrays += [array for array in (m.values, m.node_weights, m.effects) if array is not None]
        arrays.append(np.array([measure for measure in (m.completeness_gap, m.deletion_drop) if measure is not None]))
    if result.probabilities is not None:
        arrays.append(result.probabilities)
    for caption in result.captions:
        arrays += [caption.log_probabilities, caption.node_weights]
    if not all(np.isfinite(array).all() for array in arrays):
        raise ArithmeticError("the model's answer is not finite")
    return result
