"""Care for a backend: try its models, try work again where a worker died, and leave alone what does not answer.

Being ready is being seen to compute: a version counts as ready once a tiny batch of ours (a canary) or a caller's batch
was answered, and again and again afterwards. A version that does not answer is cut off (its circuit opens): callers are
told at once instead of waiting, its workers are killed and started again, and the next canary that is answered lets
callers in again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from saaa.errors import BackendFailed, BackendUnavailable, DeadlineExceeded, OptionInvalid, SaaaError, WorkerDied
from saaa.scene_graph import RoleGraph
from saaa.work import CaptionOptions, ItemResult, ModelInfo, ModelKind, Work, WorkBatch, WorkItem
from serving.backends.base import Backend, ModelHost

_log = logging.getLogger(__name__)
_FIRST_LOOK_S = 8.0
"""How long `ready` waits for canaries of versions never seen to compute; those that take longer are ready later."""
_LOOK_S = 0.05


@dataclass(frozen=True, kw_only=True)
class CareSettings:
    """How a backend is cared for.

    Raises:
        OptionInvalid: a number outside its range.
    """

    canary_interval_s: float = 30.0
    """A version that has answered nobody for so long gets a canary, in seconds."""
    canary_timeout_s: float = 10.0
    """A canary that takes longer has failed, in seconds."""
    failures: int = 3
    """So many failures in a row open the circuit of a version, at least 1."""

    def __post_init__(self) -> None:
        for name in ("canary_interval_s", "canary_timeout_s"):
            if not getattr(self, name) > 0:
                raise OptionInvalid(f"The setting {name} must be above 0 seconds.", field=name)
        if self.failures < 1:
            raise OptionInvalid("The setting failures must be at least 1.", field="failures")


@dataclass
class _State:
    """What is known of one version."""

    info: ModelInfo | None = None
    tried: bool = False
    """Whether it was ever seen to compute since it is there."""
    open: bool = False
    """Cut off: callers are refused."""
    failures: int = 0
    """In a row."""
    answered: float = 0.0
    """Event-loop time of its last answer."""
    in_flight: int = 0
    """Batches of callers at the backend."""
    canary: asyncio.Task[None] | None = None


class Care:
    """A backend, cared for; itself a `Backend`, and a `ModelHost` where there is one.

    Args:
        backend: computes; closed with this.
        host: holds its models; None where they are somebody else's.
        settings: intervals and bounds.
    """

    def __init__(self, backend: Backend, host: ModelHost | None = None, settings: CareSettings | None = None) -> None:
        self._backend = backend
        self._host = host
        self._settings = settings or CareSettings()
        self._states: defaultdict[tuple[str, str], _State] = defaultdict(_State)
        self._tasks: set[asyncio.Task[None]] = set()
        self.name = backend.name

    @property
    def open(self) -> frozenset[tuple[str, str]]:
        """(name, version) of what is cut off."""
        return frozenset(key for key, state in self._states.items() if state.open)

    async def describe(self) -> tuple[ModelInfo, ...]:
        """See `Backend`. Models that are held here are asked once: who computes need not be disturbed again."""
        if self._host is not None:
            held = self._host.loaded()
            known = [state.info for key in held if (state := self._states[key]).info is not None]
            if {(info.name, info.version): info.digest for info in known if info is not None} == held:
                return tuple(info for info in known if info is not None)
        infos = await self._backend.describe()
        for info in infos:
            self._states[info.name, info.version].info = info
        return infos

    async def ready(self) -> frozenset[tuple[str, str]]:
        """See `Backend`: the versions that were seen to compute and are not cut off."""
        answering = await self._backend.ready()
        for key in self._states.keys() - answering:
            # It has gone, or its workers have; whoever comes back has to be seen to compute first.
            self._states[key].tried = False
        first = set()
        for key in answering:
            state = self._states[key]
            if state.canary is None and self._wants_canary(state):
                state.canary = self._start(self._try(key, state))
            if state.canary is not None and not state.tried and not state.open:
                first.add(state.canary)
        if first:
            await asyncio.wait(first, timeout=_FIRST_LOOK_S)
        return frozenset(key for key in answering if self._states[key].tried and not self._states[key].open)

    async def run(self, batch: WorkBatch, *, timeout: float) -> list[ItemResult]:
        """See `Backend`. A batch whose worker dies is sent once more while there is time: nothing depends on how often
        it is computed.

        Raises:
            BackendUnavailable: additionally, the version is cut off, or gave no answer in time.
        """
        key = (batch.model, batch.version)
        state = self._states[key]
        if state.open:
            raise BackendUnavailable(f"{batch.model} {batch.version} does not answer; it is being started again.")
        clock = asyncio.get_running_loop().time
        # A little less than the caller waits, so that it is this that notices.
        deadline = clock() + timeout - min(1.0, 0.05 * timeout)
        state.in_flight += 1
        try:
            try:
                results = await self._backend.run(batch, timeout=deadline - clock())
            except WorkerDied as error:
                left = deadline - clock()
                if left <= 0:
                    raise
                _log.warning("%s The batch is sent once more.", error.message)
                results = await self._backend.run(batch, timeout=left)
        except DeadlineExceeded:
            self._open(key, state, f"did not answer within {timeout:g} s")
            self._start(self._restart(key))
            raise BackendUnavailable(
                f"{batch.model} {batch.version} did not answer within {timeout:g} s; it is started again."
            ) from None
        except BackendUnavailable as error:
            self._failed(key, state, error.message)
            raise
        finally:
            state.in_flight -= 1
        self._answered(key, state)
        return results

    async def close(self) -> None:
        """See `Backend`."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._backend.close()

    @property
    def folder(self) -> Path:
        """See `ModelHost`."""
        return self._held.folder

    def loaded(self) -> Mapping[tuple[str, str], str]:
        """See `ModelHost`."""
        return self._held.loaded()

    async def load(self, path: Path, info: ModelInfo) -> None:
        """See `ModelHost`."""
        self._states.pop((info.name, info.version), None)
        await self._held.load(path, info)

    async def unload(self, name: str, version: str) -> None:
        """See `ModelHost`; waits for the batches that are computed on it, which nobody else does."""
        while self._states[name, version].in_flight:
            await asyncio.sleep(_LOOK_S)
        await self._held.unload(name, version)
        self._states.pop((name, version), None)

    async def restart(self, name: str, version: str) -> None:
        """See `ModelHost`."""
        await self._held.restart(name, version)

    @property
    def _held(self) -> ModelHost:
        if self._host is None:
            raise BackendUnavailable("The models of this backend are not held here.")
        return self._host

    def _wants_canary(self, state: _State) -> bool:
        if state.open or not state.tried:
            return True
        silent = asyncio.get_running_loop().time() - state.answered
        # Behind a caller's batch it would wait as long as that takes, and tell no more than that does.
        return not state.in_flight and silent >= self._settings.canary_interval_s

    async def _try(self, key: tuple[str, str], state: _State) -> None:
        """Send one canary and note what comes of it."""
        try:
            try:
                if state.info is None:
                    await self.describe()
                if state.info is None:
                    return
                (result,) = await self._backend.run(canary(state.info), timeout=self._settings.canary_timeout_s)
            finally:
                state.canary = None
            if result.error is not None:
                raise BackendFailed(f"it refuses a canary: {result.error.message}")
        except SaaaError as error:
            hung = isinstance(error, DeadlineExceeded)
            # Behind other work it may only have waited.
            if not (hung and state.in_flight):
                state.failures += 1
                self._open(key, state, error.message)
            if hung and not state.in_flight and state.failures >= self._settings.failures:
                state.failures = 0
                await self._restart(key)
        else:
            self._answered(key, state)

    def _answered(self, key: tuple[str, str], state: _State) -> None:
        state.answered = asyncio.get_running_loop().time()
        state.failures = 0
        state.tried = True
        if state.open:
            state.open = False
            _log.warning("%s %s answers again", *key)

    def _failed(self, key: tuple[str, str], state: _State, why: str) -> None:
        state.failures += 1
        if state.failures >= self._settings.failures:
            self._open(key, state, why)

    def _open(self, key: tuple[str, str], state: _State, why: str) -> None:
        if not state.open:
            _log.error("%s %s is cut off: %s", *key, why)
        state.open = True

    async def _restart(self, key: tuple[str, str]) -> None:
        if self._host is not None:
            await self._host.restart(*key)

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("caring for the backend failed", exc_info=error)


def canary(info: ModelInfo) -> WorkBatch:
    """The smallest batch that makes a model compute: a grey picture; a captioner gets one object and gives one word."""
    size = info.input_size
    work, item = Work.PREDICT, WorkItem()
    if info.kind is ModelKind.EGA:
        graph = RoleGraph(
            types=np.zeros(1, np.int64),
            orders=np.zeros(1, np.int64),
            boxes=np.array([[0, 0, size, size]], np.float32),
            edges=np.zeros((0, 3), np.int64),
        )
        work, item = Work.CAPTION, WorkItem(graph=graph)
    return WorkBatch(
        model=info.name,
        version=info.version,
        work=work,
        pixels=np.full((1, size, size, 3), 128, np.uint8),
        items=(item,),
        caption=CaptionOptions(beam_width=1, count=1, max_words=1),
    )
