"""The cache by itself: what is kept and for whom, what is computed once, how much memory it takes."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saaa.errors import BackendUnavailable, DeadlineExceeded, ImageRejected, LaneFull, SaaaError
from saaa.images import ImageHeader
from saaa.scene_graph import Box, SceneGraph, SceneObject
from saaa.work import AttributionMap, ExplainOptions, Work
from serving.analysis.cache import AnswerCache, Question
from serving.analysis.plan import ClassifyPlan, Plan
from serving.lanes.fairness import Flow, Priority
from serving.observer import CacheUse, Observer
from serving.requests import AnalysisResult, Attribution, ModelUse, Output, Prediction
from tests.serving.pixel_backend import CLASSIFIER
from tests.serving.virtual_time import in_virtual_time, run

HASTY, LEISURELY = Flow("me"), Flow("me", Priority.BATCH)
PLAN = Plan(
    header=ImageHeader(format="PNG", width=4, height=4),
    outputs=frozenset({Output.PREDICTIONS}),
    top_k=5,
    graph=None,
    classify=ClassifyPlan(model=CLASSIFIER, work=Work.PREDICT),
    caption=None,
)


def question(image: object = "", caller: str = "me", plan: Plan = PLAN) -> Question:
    return Question(caller=caller, image_sha256=str(image), plan=plan)


def result(name: object = "", cells: int = 4) -> AnalysisResult:
    target = Prediction(label="red", index=0, probability=0.5)
    values = np.random.default_rng(0).random((cells, cells), dtype=np.float32)
    made = AttributionMap(target=0, method="brightness", values=values)
    return AnalysisResult(
        request_id=str(name),
        image_size=(4, 4),
        image_sha256="",
        backend="pixels",
        software_version="1",
        attributions=(Attribution(target=target, map=made, region=(0, 0, 4, 4)),),
        classifier=ModelUse(info=CLASSIFIER, parameters={}),
    )


class Uses(Observer):
    def __init__(self) -> None:
        self.seen: list[CacheUse] = []

    def cached(self, use: CacheUse) -> None:
        self.seen.append(use)


class Cache:
    """A cache, and answers that take a second."""

    def __init__(self, max_bytes: int = 10**6) -> None:
        self.uses = Uses()
        self.cache = AnswerCache(max_bytes, self.uses)
        self.computed = 0
        self.error: SaaaError | None = None

    async def ask(
        self, asked: Question | None = None, flow: Flow = HASTY, cells: int = 4, seconds: float = 1.0
    ) -> AnalysisResult:
        async def compute() -> AnalysisResult:
            self.computed += 1
            made, error = result(chr(ord("0") + self.computed), cells), self.error
            await asyncio.sleep(seconds)
            if error is not None:
                raise error
            return made

        return await self.cache.answer(asked or question(), flow, compute)


@in_virtual_time
async def test_the_same_question_is_answered_once_and_then_from_memory() -> None:
    cache = Cache()
    first = await cache.ask()
    assert not first.cached
    again = await cache.ask(flow=LEISURELY)
    assert again == replace(first, cached=True)
    assert cache.computed == 1
    assert cache.uses.seen == ["miss", "hit"]


GRAPH = SceneGraph((SceneObject(1, "dog", Box(0, 0, 2, 2)),))
EXPLAIN = ClassifyPlan(model=CLASSIFIER, work=Work.EXPLAIN, targets=(0,), options=ExplainOptions(method="rise"))


@pytest.mark.parametrize(
    "other",
    [
        question("another image"),
        question(caller="you"),
        question(plan=replace(PLAN, top_k=4)),
        question(plan=replace(PLAN, outputs=frozenset({Output.ATTRIBUTIONS}))),
        question(plan=replace(PLAN, graph=GRAPH)),
        question(plan=replace(PLAN, classify=EXPLAIN)),
        question(plan=replace(PLAN, classify=replace(EXPLAIN, targets=(1,)))),
        question(plan=replace(PLAN, classify=replace(EXPLAIN, options=ExplainOptions(method="rise", seed=1)))),
        question(plan=replace(PLAN, classify=replace(EXPLAIN, model=replace(CLASSIFIER, digest="f" * 64)))),
    ],
)
@in_virtual_time
async def test_another_question_has_its_own_answer(other: Question) -> None:
    cache = Cache()
    await cache.ask()
    await cache.ask(question(plan=replace(PLAN, classify=EXPLAIN), image="third"))
    assert not (await cache.ask(other)).cached
    assert (await cache.ask(other)).request_id == "3"
    assert (await cache.ask()).request_id == "1"


@in_virtual_time
async def test_those_who_ask_at_once_get_one_answer() -> None:
    cache = Cache()
    answers = await asyncio.gather(*(cache.ask() for _ in range(10)), cache.ask(question("other")))
    assert [answer.cached for answer in answers] == [False, *[True] * 9, False]
    assert len({answer.request_id for answer in answers[:10]}) == 1
    assert cache.computed == 2
    assert sorted(cache.uses.seen) == [*["miss"] * 2, *["shared"] * 9]


@in_virtual_time
async def test_one_who_leaves_does_not_take_the_others_along() -> None:
    cache = Cache()
    asking = [asyncio.create_task(cache.ask()) for _ in range(4)]
    await asyncio.sleep(0.5)
    asking[0].cancel()
    asking[2].cancel()
    answers = await asyncio.gather(*asking, return_exceptions=True)
    assert [isinstance(answer, asyncio.CancelledError) for answer in answers] == [True, False, True, False]
    assert cache.computed == 2
    # Half a second for nobody, then one.
    assert asyncio.get_running_loop().time() == pytest.approx(1.5)


@pytest.mark.parametrize("error", [DeadlineExceeded("late"), LaneFull("full", retry_after_s=1)])
@in_virtual_time
async def test_the_haste_of_one_is_not_the_failure_of_the_others(error: SaaaError) -> None:
    cache = Cache()
    cache.error = error
    first = asyncio.create_task(cache.ask())
    await asyncio.sleep(0)
    cache.error = None
    others = [asyncio.create_task(cache.ask()) for _ in range(2)]
    with pytest.raises(type(error)):
        await first
    assert {(await other).request_id for other in others} == {"2"}
    assert cache.uses.seen == ["miss", "miss", "shared"]


@pytest.mark.parametrize("error", [ImageRejected("no picture"), BackendUnavailable("down")])
@in_virtual_time
async def test_a_failure_is_told_to_all_who_wait_and_is_not_kept(error: SaaaError) -> None:
    cache = Cache()
    cache.error = error
    answers = await asyncio.gather(*(cache.ask() for _ in range(5)), return_exceptions=True)
    assert answers == [error] * 5
    assert cache.computed == 1
    cache.error = None
    assert not (await cache.ask()).cached
    assert cache.computed == 2


@in_virtual_time
async def test_the_hasty_do_not_wait_for_the_leisurely() -> None:
    cache = Cache()
    slow = asyncio.create_task(cache.ask(flow=LEISURELY, seconds=100))
    await asyncio.sleep(0)
    assert (await cache.ask()).request_id == "2"
    assert asyncio.get_running_loop().time() == pytest.approx(1)
    assert (await slow).request_id == "1"
    # Kept once, counted once.
    assert (await cache.ask()).request_id == "1"
    assert len(cache.cache) == 1
    alone = Cache()
    await alone.ask()
    assert cache.cache.bytes == alone.cache.bytes


async def _bytes(cells: int) -> int:
    cache = Cache()
    await cache.ask(question(0), cells=cells, seconds=0)
    return cache.cache.bytes


SIZES = {cells: run(_bytes(cells)) for cells in (1, 10, 30)}


@given(
    asked=st.lists(st.tuples(st.integers(0, 6), st.sampled_from(sorted(SIZES))), max_size=40),
    room=st.integers(SIZES[1] // 2, 3 * SIZES[30]),
)
@settings(deadline=None, max_examples=40)
def test_those_used_last_are_kept_within_the_bound(asked: list[tuple[int, int]], room: int) -> None:
    """Against the plainest list that does the same."""

    async def check() -> None:
        cache = Cache(room)
        kept: OrderedDict[int, int] = OrderedDict()
        expected: list[str] = []
        for name, cells in asked:
            await cache.ask(question(name), cells=cells, seconds=0)
            expected.append("hit" if name in kept else "miss")
            if name in kept:
                kept.move_to_end(name)
            elif SIZES[cells] <= room:
                kept[name] = SIZES[cells]
                while sum(kept.values()) > room:
                    kept.popitem(last=False)
            assert cache.cache.bytes == sum(kept.values()) <= room
        assert cache.uses.seen == expected

    run(check())


def _predictions(name: int) -> AnalysisResult:
    labels = [f"class {name} {index}" for index in range(50)]
    made = tuple(Prediction(label=label, index=1000 + i, probability=i / 77) for i, label in enumerate(labels))
    return replace(result(name), predictions=made)


def _view(name: int) -> AnalysisResult:
    """A map that is a part of its batch's array."""
    whole = np.zeros((8, 40, 40), np.float32)
    made = AttributionMap(target=0, method="brightness", values=whole[3])
    target = Prediction(label="red", index=0, probability=0.5)
    return replace(result(name), attributions=(Attribution(target=target, map=made, region=(0, 0, 4, 4)),))


@pytest.mark.parametrize("make", [result, _predictions, _view, lambda name: result(name, 30)])
def test_the_bound_is_one_of_real_memory(make: Callable[[int], AnalysisResult]) -> None:
    bound = 2**18
    cache = AnswerCache(bound, Observer())

    async def fill() -> None:
        for name in range(200):
            number = name

            async def compute() -> AnalysisResult:
                return make(number)  # noqa: B023

            await cache.answer(question(f"{name:064}"), HASTY, compute)

    gc.collect()
    tracemalloc.start()
    try:
        run(fill())
        gc.collect()
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert 0.75 * bound < cache.bytes <= bound
    assert held < 1.3 * bound
