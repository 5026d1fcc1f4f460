"""The data plane: one request's way from bytes to answer.

Checked and admitted before anything dear; decoded once; fitted to each model's input; prediction and attribution from
one shared forward; captions beside them when the request brought a graph, after them when one has to be proposed.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from saaa.errors import BackendUnavailable, DeadlineExceeded, ImageRejected
from saaa.fitting import Picture
from saaa.geometry import Geometry
from saaa.images import ImageHeader, keep_buffers
from saaa.proposal import propose_graph
from saaa.scene_graph import RoleGraph, SceneGraph
from saaa.work import ExplainOptions, ItemResult, ModelInfo, Work, WorkItem
from serving.analysis.answer import checked, make_answer
from serving.analysis.cache import AnswerCache, Question
from serving.analysis.plan import CaptionPlan, ClassifyPlan, Plan, image_bytes, make_plan
from serving.backends.base import Backend
from serving.interceptors.base import current_call
from serving.lanes.fairness import Flow
from serving.lanes.lanes import BatchKey, Lane
from serving.lanes.places import Place
from serving.models.catalog import Catalog
from serving.observer import Observer, Seat
from serving.requests import AnalysisRequest, AnalysisResult
from serving.settings import FacadeSettings, RequestLimits

T = TypeVar("T")
KEPT_BLOCKS = 4
"""Of `keep_buffers`: as many as a picture of 12 million pixels takes and leaves when it is decoded."""


class Stages:
    """Seconds by stage, in the order in which the stages ended.

    Args:
        observer: told of each stage.
    """

    def __init__(self, observer: Observer) -> None:
        self.seconds: dict[str, float] = {}
        self._observer = observer

    @contextlib.contextmanager
    def time(self, stage: str) -> Iterator[None]:
        """Time what is done inside."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = seconds = time.perf_counter() - start
            self._observer.staged(stage, seconds)


class _Part:
    """One model's part of one request: its place in a lane and, once decoded, the image as the model sees it."""

    pixels: NDArray[np.uint8]
    geometry: Geometry

    def __init__(self, stage: str, model: ModelInfo, place: Place, stages: Stages) -> None:
        self._stage = stage
        self._place = place
        self._stages = stages
        self.model = model

    def fit(self, picture: Picture) -> None:
        self.pixels, self.geometry = picture.fit(self.model)

    @property
    def seat(self) -> Seat | None:
        return self._place.seat

    async def ask(self, item: WorkItem) -> ItemResult:
        with self._stages.time(self._stage):
            return checked(await self._place.result(self.pixels, item))


class Analysis:
    """Answers requests.

    Args:
        backend: runs batches.
        catalog: the served models.
        settings: lanes, limits, cache and threads.
        alarm: called when the backend fails to answer, so that its state is looked at without delay.
        observer: told what happens.
    """

    def __init__(
        self,
        backend: Backend,
        catalog: Catalog,
        settings: FacadeSettings,
        alarm: Callable[[], None],
        observer: Observer | None = None,
    ) -> None:
        self._backend = backend
        self._catalog = catalog
        self._limits = settings.limits
        self._alarm = alarm
        self._observer = observer or Observer()
        self._lanes = {
            Work.PREDICT: Lane(backend.run, settings.predict, self._observer),
            Work.EXPLAIN: Lane(backend.run, settings.explain, self._observer),
            Work.CAPTION: Lane(backend.run, settings.caption, self._observer),
        }
        self._cache = AnswerCache(settings.cache_bytes, self._observer) if settings.cache_bytes else None
        self._threads = ThreadPoolExecutor(settings.decode_threads, thread_name_prefix="decode")
        keep_buffers(KEPT_BLOCKS)

    @property
    def lanes(self) -> dict[Work, Lane]:
        """The lane of each kind of work."""
        return self._lanes

    async def close(self) -> None:
        """Fail what still waits and stop the threads."""
        for lane in self._lanes.values():
            await lane.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def analyze(self, request: AnalysisRequest, timeout: float) -> AnalysisResult:
        """Answer one request.

        Args:
            request: as it was read.
            timeout: seconds until the answer is worthless.

        Raises:
            SaaaError: what `serving.errors` maps: the request is wrong, the lane is full, the time is over, the
                backend cannot answer.
        """
        plan = make_plan(request, self._catalog, self._limits)
        deadline = asyncio.get_running_loop().time() + timeout
        try:
            async with asyncio.timeout_at(deadline):
                result = await self._answer(request, plan, deadline)
        except TimeoutError:
            raise DeadlineExceeded("The deadline passed before the answer was there; allow more time.") from None
        except BackendUnavailable:
            self._alarm()
            raise
        self._observer.answered(request, result)
        return result

    async def _answer(self, request: AnalysisRequest, plan: Plan, deadline: float) -> AnalysisResult:
        """The answer to this request, computed or kept, with its own id and timings."""
        call = current_call()
        flow = Flow(call.caller if call else "", request.priority)
        stages = Stages(self._observer)
        with stages.time("total"):
            if self._cache is None:
                return await self._compute(request, plan, deadline, flow, stages)
            # Not in the threads that decode: what is kept, or will be refused, must not wait for those.
            digest = await asyncio.to_thread(_digest, request.image)
            question = Question(caller=flow.caller, image_sha256=digest, plan=plan)
            result = await self._cache.answer(
                question, flow, lambda: self._compute(request, plan, deadline, flow, stages, digest)
            )
            return replace(result, request_id=request.request_id, timings=stages.seconds)

    async def _compute(
        self, request: AnalysisRequest, plan: Plan, deadline: float, flow: Flow, stages: Stages, digest: str = ""
    ) -> AnalysisResult:
        """A new answer; the image's digest is made where it is not known yet."""
        with contextlib.ExitStack() as places:
            classifier, captioner = self._admit(plan, deadline, flow, places, stages)
            parts = [part for part in (classifier, captioner) if part is not None]
            places.enter_context(self._catalog.using(*(part.model for part in parts)))
            with stages.time("decode"):
                digest = await self._in_thread(_decode, request, plan.header, parts, self._limits, digest)

            async def classify() -> ItemResult | None:
                if classifier is None or plan.classify is None:
                    return None
                return await classifier.ask(_explained(plan.classify, classifier))

            async def caption(graph: SceneGraph | None) -> ItemResult | None:
                if captioner is None or plan.caption is None or graph is None:
                    return None
                return await captioner.ask(_guided(graph, plan.caption, captioner))

            graph = plan.graph
            if graph is not None:
                classified, captioned = await _together(classify(), caption(graph))
            else:
                classified = await classify()
                if classifier is not None and classified is not None and classified.maps:
                    with stages.time("propose"):
                        values = classified.maps[0].values
                        graph = await self._in_thread(propose_graph, values, classifier.geometry, plan.header.size)
                captioned = await caption(graph)
        return make_answer(
            plan,
            graph=graph,
            classified=classified,
            geometry=classifier.geometry if classifier else None,
            seat=classifier.seat if classifier else None,
            captioned=captioned,
            caption_geometry=captioner.geometry if captioner else None,
            caption_seat=captioner.seat if captioner else None,
            request_id=request.request_id,
            image_sha256=digest,
            backend=self._backend.name,
            timings=stages.seconds,
        )

    def _admit(
        self, plan: Plan, deadline: float, flow: Flow, places: contextlib.ExitStack, stages: Stages
    ) -> tuple[_Part | None, _Part | None]:
        """A place in every lane that the request needs, or a refusal before any work."""
        classifier = captioner = None
        before = 0.0
        if (part := plan.classify) is not None:
            model = part.model
            key = BatchKey(model=model.name, version=model.version, work=part.work, explain=part.options)
            lane = self._lanes[part.work]
            if plan.graph is None and plan.caption is not None:
                cost = lane.estimate(key, part.cost_forwards)
                before = lane.expected_wait(flow, cost) + cost
            place = places.enter_context(lane.admit(key, deadline, flow=flow, work=part.cost_forwards))
            classifier = _Part("classify", model, place, stages)
        if (guided := plan.caption) is not None:
            model = guided.model
            explain = guided.explanation.options if guided.explanation else ExplainOptions()
            key = BatchKey(
                model=model.name, version=model.version, work=Work.CAPTION, explain=explain, caption=guided.options
            )
            lane = self._lanes[Work.CAPTION]
            work = guided.cost_forwards
            place = places.enter_context(lane.admit(key, deadline, flow=flow, work=work, after=before))
            captioner = _Part("caption", model, place, stages)
        return classifier, captioner

    async def _in_thread(self, work: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *args)


def _digest(image: bytes) -> str:
    return hashlib.sha256(image).hexdigest()


def _decode(
    request: AnalysisRequest, header: ImageHeader, parts: Iterable[_Part], limits: RequestLimits, digest: str
) -> str:
    """Decode once a scale, fit to the input of each model that takes part; gives the SHA-256 of the bytes."""
    most = image_bytes(request, limits)
    picture = Picture(request.image, header, max_pixels=limits.max_image_pixels, max_bytes=most)
    try:
        for part in parts:
            part.fit(picture)
    except ImageRejected as error:
        raise ImageRejected(error.message, field="image") from None
    return digest or _digest(request.image)


def _explained(plan: ClassifyPlan, part: _Part) -> WorkItem:
    """The classifier's item, with the whole graph where its objects are to be removed."""
    graph = plan.graph
    return WorkItem(targets=plan.targets, graph=_in_pixels(graph, len(graph.nodes()), part) if graph else None)


def _guided(graph: SceneGraph, plan: CaptionPlan, part: _Part) -> WorkItem:
    """The captioner's item: the first nodes in published order, and what is to be explained."""
    roles = _in_pixels(graph, part.model.max_nodes, part)
    wanted = plan.explanation
    if wanted is None:
        return WorkItem(graph=roles, text=plan.text)
    return WorkItem(graph=roles, text=plan.text, words=wanted.words, every_word=wanted.every_word, nodes=wanted.nodes)


def _in_pixels(graph: SceneGraph, max_nodes: int, part: _Part) -> RoleGraph:
    """The graph's first nodes, their boxes in pixels of the model's input."""
    roles = graph.role_graph(max_nodes)
    return roles.with_boxes(part.geometry.to_input(roles.boxes))


async def _together(first: Coroutine[Any, Any, T], second: Coroutine[Any, Any, T]) -> tuple[T, T]:
    """Both results; when one fails the other is cancelled and the failure is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = group.create_task(first), group.create_task(second)
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return tasks[0].result(), tasks[1].result()
