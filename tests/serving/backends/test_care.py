"""Care for a backend whose every answer the test decides."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from saaa.errors import BackendFailed, BackendUnavailable, DeadlineExceeded, LaneFull, OptionInvalid, WorkerDied
from saaa.runtime.executor import Executor
from saaa.work import ItemError, ItemResult, ModelInfo, Work, WorkBatch
from serving.backends.care import Care, CareSettings, canary
from tests.serving.pixel_backend import CAPTIONER, CLASSIFIER

A, B = ("colours", "1"), ("words", "2")
GOOD = [ItemResult(probabilities=np.ones(1, np.float32))]
QUICK = CareSettings(canary_interval_s=0.05, canary_timeout_s=0.2, failures=3)
Answer = Callable[[WorkBatch], Awaitable[list[ItemResult]]]


async def good(_: WorkBatch) -> list[ItemResult]:
    return GOOD


def fails(error: Exception) -> Answer:
    async def answer(_: WorkBatch) -> list[ItemResult]:
        raise error

    return answer


@dataclass
class Scripted:
    """A backend and host: answers from a list, the last one for ever."""

    name: str = "scripted"
    models: tuple[ModelInfo, ...] = (CLASSIFIER, CAPTIONER)
    up: set[tuple[str, str]] = field(default_factory=lambda: {A, B})
    answers: dict[tuple[str, str], list[Answer]] = field(default_factory=lambda: {A: [good], B: [good]})
    asked: list[tuple[str, str]] = field(default_factory=list)
    timeouts: list[float] = field(default_factory=list)
    restarted: list[tuple[str, str]] = field(default_factory=list)
    unloaded: list[tuple[str, str]] = field(default_factory=list)
    folder: Path = Path()

    async def describe(self) -> tuple[ModelInfo, ...]:
        return self.models

    async def ready(self) -> frozenset[tuple[str, str]]:
        return frozenset(self.up)

    async def run(self, batch: WorkBatch, *, timeout: float) -> list[ItemResult]:
        key = (batch.model, batch.version)
        self.asked.append(key)
        self.timeouts.append(timeout)
        answers = self.answers[key]
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        try:
            async with asyncio.timeout(timeout):
                return await answer(batch)
        except TimeoutError:
            raise DeadlineExceeded("too late") from None

    async def close(self) -> None:
        pass

    def loaded(self) -> dict[tuple[str, str], str]:
        return dict.fromkeys(self.up, "")

    async def load(self, path: Path, info: ModelInfo) -> None:
        pass

    async def unload(self, name: str, version: str) -> None:
        self.unloaded.append((name, version))

    async def restart(self, name: str, version: str) -> None:
        self.restarted.append((name, version))


def cared(**answers: list[Answer]) -> tuple[Scripted, Care]:
    backend = Scripted()
    backend.answers |= {{"a": A, "b": B}[name]: script for name, script in answers.items()}
    return backend, Care(backend, backend, QUICK)


async def eventually(true: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(10):
        while not await true():
            await asyncio.sleep(0.01)


async def hang(_: WorkBatch) -> list[ItemResult]:
    await asyncio.Event().wait()
    raise AssertionError


BATCH = canary(CLASSIFIER)


async def test_ready_is_who_was_seen_to_compute() -> None:
    refused = [ItemResult(error=ItemError(reason="INTERNAL", message="broken weights"))]

    async def broken(_: WorkBatch) -> list[ItemResult]:
        return refused

    backend, care = cared(a=[broken, broken, good])
    assert await care.ready() == {B}
    assert care.open == {A}
    assert sorted(backend.asked) == [A, B]
    await eventually(lambda: holds(care, {A, B}))
    assert care.open == frozenset()
    await care.close()


async def holds(care: Care, wanted: set[tuple[str, str]]) -> bool:
    return await care.ready() == wanted


async def test_who_answers_callers_gets_no_canary_and_who_is_silent_does() -> None:
    backend, care = cared()
    await care.ready()
    for _ in range(8):
        await asyncio.sleep(0.02)
        await care.run(BATCH, timeout=1)
        await care.ready()
    assert backend.asked.count(A) == 1 + 8
    assert backend.asked.count(B) >= 2
    await care.close()


async def test_who_comes_back_is_tried_again_before_callers_are_let_in() -> None:
    backend, care = cared()
    await care.ready()
    backend.up.discard(A)
    assert await care.ready() == {B}
    backend.up.add(A)
    backend.answers[A] = [fails(BackendUnavailable("not yet")), good]
    assert await care.ready() == {B}
    await eventually(lambda: holds(care, {A, B}))
    await care.close()


async def test_a_dead_workers_batch_is_sent_once_more_with_the_time_that_is_left() -> None:
    async def dies_late(_: WorkBatch) -> list[ItemResult]:
        await asyncio.sleep(0.2)
        raise WorkerDied("died")

    backend, care = cared(a=[dies_late, good])
    assert await care.run(BATCH, timeout=10) == GOOD
    assert backend.asked == [A, A]
    first, second = backend.timeouts
    assert 9 <= first < 10
    assert second <= first - 0.19


async def test_a_second_death_is_told_and_other_failures_are_not_tried_again() -> None:
    backend, care = cared(a=[fails(WorkerDied("died"))])
    with pytest.raises(WorkerDied):
        await care.run(BATCH, timeout=10)
    assert len(backend.asked) == 2
    for error in (BackendUnavailable("gone"), BackendFailed("bug"), LaneFull("full", retry_after_s=1)):
        backend, care = cared(a=[fails(error)])
        with pytest.raises(type(error)):
            await care.run(BATCH, timeout=10)
        assert len(backend.asked) == 1


async def test_failures_in_a_row_cut_off_one_version_at_once_and_an_answered_canary_lets_it_in() -> None:
    gone = fails(BackendUnavailable("gone"))
    backend, care = cared(a=[good, gone, gone, good, gone, gone, gone, gone, good])
    await care.ready()
    for failing in (True, True, False, True, True, True):
        assert care.open == frozenset()
        if failing:
            with pytest.raises(BackendUnavailable, match="gone"):
                await care.run(BATCH, timeout=10)
        else:
            await care.run(BATCH, timeout=10)
    assert care.open == {A}
    before = len(backend.asked)
    with pytest.raises(BackendUnavailable, match="being started again"):
        await care.run(BATCH, timeout=10)
    assert len(backend.asked) == before, "it is left alone"
    assert await care.run(canary(CAPTIONER), timeout=10) == GOOD
    assert await care.ready() == {B}
    await eventually(lambda: holds(care, {A, B}))
    assert await care.run(BATCH, timeout=10) == GOOD
    await care.close()


async def test_a_faulty_input_cuts_off_nobody() -> None:
    _, care = cared(a=[fails(BackendFailed("bug"))])
    for _ in range(5):
        with pytest.raises(BackendFailed):
            await care.run(BATCH, timeout=10)
    assert care.open == frozenset()


async def test_no_answer_in_time_cuts_off_at_once_and_restarts_the_workers() -> None:
    backend, care = cared(a=[good, hang, good])
    await care.ready()
    start = asyncio.get_running_loop().time()
    with pytest.raises(BackendUnavailable, match=r"did not answer within 0\.4 s"):
        await care.run(BATCH, timeout=0.4)
    assert asyncio.get_running_loop().time() - start < 10
    assert care.open == {A}
    await asyncio.sleep(0)
    assert backend.restarted == [A]
    await eventually(lambda: holds(care, {A, B}))
    await care.close()


async def test_canaries_that_hang_restart_the_workers_but_not_behind_a_callers_batch() -> None:
    release = asyncio.Event()

    async def slow(_: WorkBatch) -> list[ItemResult]:
        await release.wait()
        return GOOD

    backend, care = cared(a=[good, slow, hang])
    await care.ready()
    call = asyncio.create_task(care.run(BATCH, timeout=60))
    for _ in range(10):
        await asyncio.sleep(0.02)
        assert await care.ready() == {A, B}, "a long batch of a caller is no fault"
    assert backend.restarted == []
    release.set()
    await call

    async def restarted() -> bool:
        await care.ready()
        return backend.restarted != []

    await eventually(restarted)
    assert backend.restarted == [A]
    assert await care.ready() == {B}
    await care.close()


async def test_unload_waits_for_the_batches_that_are_computed() -> None:
    release = asyncio.Event()

    async def slow(_: WorkBatch) -> list[ItemResult]:
        await release.wait()
        return GOOD

    backend, care = cared(a=[slow])
    call = asyncio.create_task(care.run(BATCH, timeout=60))
    await asyncio.sleep(0)
    unloading = asyncio.create_task(care.unload(*A))
    await asyncio.sleep(0.2)
    assert backend.unloaded == []
    release.set()
    assert await call == GOOD
    await unloading
    assert backend.unloaded == [A]


async def test_a_backend_whose_models_are_held_elsewhere_cannot_change_them() -> None:
    care = Care(Scripted())
    with pytest.raises(BackendUnavailable, match="not held here"):
        care.loaded()
    await care.ready()
    await care.close()


@pytest.mark.parametrize("changes", [{"canary_interval_s": 0}, {"canary_timeout_s": float("nan")}, {"failures": 0}])
def test_settings_are_checked(changes: dict[str, float]) -> None:
    with pytest.raises(OptionInvalid, match=next(iter(changes))):
        replace(CareSettings(), **changes)  # type: ignore[arg-type]


def test_real_models_answer_their_canaries(tiny_models: Path) -> None:
    for path in tiny_models.glob("*.mar"):
        executor = Executor.open(path, threads=1)
        (result,) = executor.run(canary(executor.info))
        assert result.error is None
        assert (result.captions != ()) is (canary(executor.info).work is Work.CAPTION)
