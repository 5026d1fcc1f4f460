"""The data plane: one request's way from bytes to answer.

Checked and admitted before anything dear; decoded once; fitted to each model's input; prediction and attribution from
one shared forward; captions beside them when the request brought a graph, after them when one has to be proposed.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

import saaa
from saaa import errors
from saaa.concepts import concept_attribution
from saaa.errors import BackendFailed, BackendUnavailable, DeadlineExceeded, ImageRejected, SaaaError
from saaa.images import Geometry, decode, fit
from saaa.proposal import propose_graph
from saaa.scene_graph import SceneGraph
from saaa.work import ItemError, ItemResult, ModelInfo, Work, WorkItem
from serving.backends.base import Backend
from serving.catalog import Catalog
from serving.lanes import BatchKey, Lane, Place
from serving.plan import STEPPED_METHODS, CaptionPlan, ClassifyPlan, Plan, make_plan
from serving.requests import (
    AnalysisRequest,
    AnalysisResult,
    Attribution,
    GraphSource,
    ModelUse,
    Output,
    Prediction,
)
from serving.settings import FacadeSettings

T = TypeVar("T")


@dataclass
class _Stages:
    """Seconds by stage."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextlib.contextmanager
    def time(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = time.perf_counter() - start


@dataclass(frozen=True, kw_only=True)
class _Input:
    """An image as one model sees it."""

    pixels: NDArray[np.uint8]
    geometry: Geometry


@dataclass(frozen=True, kw_only=True)
class _Decoded:
    """A decoded image, once for each model."""

    sha256: str
    classify: _Input | None
    caption: _Input | None


class Analysis:
    """Answers requests.

    Args:
        backend: runs batches.
        catalog: the served models.
        settings: lanes, limits and threads.
        alarm: called when the backend fails to answer, so that its state is looked at without delay.
    """

    def __init__(
        self, backend: Backend, catalog: Catalog, settings: FacadeSettings, alarm: Callable[[], None]
    ) -> None:
        self._backend = backend
        self._catalog = catalog
        self._limits = settings.limits
        self._alarm = alarm
        self._lanes = {
            Work.PREDICT: Lane(backend.run, settings.predict),
            Work.EXPLAIN: Lane(backend.run, settings.explain),
            Work.CAPTION: Lane(backend.run, settings.caption),
        }
        self._threads = ThreadPoolExecutor(settings.decode_threads, thread_name_prefix="decode")

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
                return await self._answer(request, plan, deadline)
        except TimeoutError:
            raise DeadlineExceeded(
                "The deadline passed before the answer was there; allow more time."
            ) from None
        except BackendUnavailable:
            self._alarm()
            raise

    async def _answer(self, request: AnalysisRequest, plan: Plan, deadline: float) -> AnalysisResult:
        stages = _Stages()
        with stages.time("total"), contextlib.ExitStack() as places:
            classify_place, caption_place = self._admit(plan, deadline, places)
            with stages.time("decode"):
                image = await self._in_thread(_decode, request.image, plan, self._limits.max_image_pixels)

            async def classify() -> ItemResult | None:
                if classify_place is None or plan.classify is None or image.classify is None:
                    return None
                with stages.time("classify"):
                    item = WorkItem(targets=plan.classify.targets)
                    return _checked(await classify_place.result(image.classify.pixels, item))

            async def caption(graph: SceneGraph | None) -> ItemResult | None:
                if caption_place is None or plan.caption is None or image.caption is None or graph is None:
                    return None
                with stages.time("caption"):
                    item = _guided(graph, plan.caption.model, image.caption.geometry)
                    return _checked(await caption_place.result(image.caption.pixels, item), prefix="caption")

            graph, source = plan.graph, GraphSource.REQUEST
            if graph is not None:
                classified, captioned = await _together(classify(), caption(graph))
            else:
                classified = await classify()
                if classified is not None and classified.maps and image.classify is not None:
                    with stages.time("propose"):
                        graph = await self._in_thread(
                            propose_graph, classified.maps[0].values, image.classify.geometry, plan.image_size
                        )
                    source = GraphSource.PROPOSED
                captioned = await caption(graph)
            predictions, attributions = _classes(plan, classified, image.classify, graph)
        used = graph if attributions or captioned is not None else None
        caption_nodes = (
            used.nodes()[: plan.caption.model.max_nodes] if used and captioned and plan.caption else ()
        )
        return AnalysisResult(
            request_id=request.request_id,
            image_size=plan.image_size,
            image_sha256=image.sha256,
            backend=self._backend.name,
            software_version=saaa.__version__,
            predictions=predictions,
            attributions=attributions,
            captions=captioned.captions if captioned else (),
            graph=used,
            graph_source=source if used else None,
            caption_nodes=caption_nodes,
            classifier=_classifier_use(plan.classify),
            captioner=_captioner_use(plan.caption) if captioned else None,
            timings=stages.seconds,
        )

    def _admit(
        self, plan: Plan, deadline: float, places: contextlib.ExitStack
    ) -> tuple[Place | None, Place | None]:
        """A place in every lane that the request needs, or a refusal before any work."""
        classify = caption = None
        before = 0.0
        if (part := plan.classify) is not None:
            key = BatchKey(
                model=part.model.name, version=part.model.version, work=part.work, explain=part.options
            )
            lane = self._lanes[part.work]
            if plan.graph is None:
                before = lane.expected_wait() + lane.estimate(key)
            classify = places.enter_context(lane.admit(key, deadline))
        if (guided := plan.caption) is not None:
            key = BatchKey(
                model=guided.model.name,
                version=guided.model.version,
                work=Work.CAPTION,
                caption=guided.options,
            )
            caption = places.enter_context(self._lanes[Work.CAPTION].admit(key, deadline, after=before))
        return classify, caption

    async def _in_thread(self, work: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *args)


def _decode(data: bytes, plan: Plan, max_pixels: int) -> _Decoded:
    """Decode once and fit to the input of each model that takes part."""
    try:
        image = decode(data, max_pixels=max_pixels)
    except ImageRejected as error:
        raise ImageRejected(error.message, field="image") from None

    def fitted(model: ModelInfo) -> _Input:
        pixels, geometry = fit(image, model.input_size, mode=model.resize, crop_fraction=model.crop_fraction)
        return _Input(pixels=pixels, geometry=geometry)

    return _Decoded(
        sha256=hashlib.sha256(data).hexdigest(),
        classify=fitted(plan.classify.model) if plan.classify else None,
        caption=fitted(plan.caption.model) if plan.caption else None,
    )


def _guided(graph: SceneGraph, model: ModelInfo, geometry: Geometry) -> WorkItem:
    """The captioner's item: the first nodes in published order, their boxes in pixels of its input."""
    roles = graph.role_graph(model.max_nodes)
    return WorkItem(graph=roles.with_boxes(geometry.to_input(roles.boxes)))


def _classes(
    plan: Plan, result: ItemResult | None, image: _Input | None, graph: SceneGraph | None
) -> tuple[tuple[Prediction, ...], tuple[Attribution, ...]]:
    """Predictions and attributions as asked for."""
    if plan.classify is None or result is None or image is None:
        return (), ()
    probabilities = result.probabilities
    if probabilities is None or len(probabilities) != len(plan.classify.model.classes):
        raise BackendFailed("The classifier's answer does not fit its classes.")
    labels = plan.classify.model.classes

    def prediction(index: int) -> Prediction:
        return Prediction(label=labels[index], index=index, probability=float(probabilities[index]))

    predictions: tuple[Prediction, ...] = ()
    if Output.PREDICTIONS in plan.outputs:
        best = np.argsort(-probabilities, kind="stable")[: plan.top_k]
        predictions = tuple(prediction(int(index)) for index in best)
    attributions: tuple[Attribution, ...] = ()
    if Output.ATTRIBUTIONS in plan.outputs:
        geometry = image.geometry
        region = (geometry.x, geometry.y, geometry.width, geometry.height)
        attributions = tuple(
            Attribution(
                target=prediction(entry.target),
                map=entry,
                region=region,
                concepts=concept_attribution(entry.values, geometry, graph) if graph else (),
            )
            for entry in result.maps
        )
    return predictions, attributions


def _classifier_use(plan: ClassifyPlan | None) -> ModelUse | None:
    if plan is None:
        return None
    parameters: dict[str, str] = {}
    if plan.work is Work.EXPLAIN:
        parameters["method"] = plan.options.method
        if plan.options.method in STEPPED_METHODS:
            parameters["steps"] = str(plan.options.steps)
    return ModelUse(info=plan.model, parameters=parameters)


def _captioner_use(plan: CaptionPlan | None) -> ModelUse | None:
    if plan is None:
        return None
    words = plan.options.max_words or plan.model.max_words
    return ModelUse(
        info=plan.model,
        parameters={
            "beam_width": str(plan.options.beam_width),
            "count": str(plan.options.count),
            "max_words": str(words),
            "max_nodes": str(plan.model.max_nodes),
        },
    )


def _checked(result: ItemResult, *, prefix: str = "") -> ItemResult:
    """The result itself, or its error raised."""
    if result.error is not None:
        raise raised(result.error, prefix)
    return result


def raised(error: ItemError, prefix: str = "") -> SaaaError:
    """The error that an item's answer stands for: the caller's fault where the model says so, else the backend's."""
    field = f"{prefix}.{error.field}" if prefix and error.field else error.field
    for kind in (errors.ImageRejected, errors.SceneGraphError, errors.OptionInvalid, errors.InvalidInput):
        named = kind(error.message, field=field)
        if named.reason == error.reason:
            return named
    if error.reason == "BACKEND_UNAVAILABLE":
        return BackendUnavailable(error.message)
    return BackendFailed(error.message)


async def _together(first: Coroutine[Any, Any, T], second: Coroutine[Any, Any, T]) -> tuple[T, T]:
    """Both results; when one fails the other is cancelled and the failure is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = group.create_task(first), group.create_task(second)
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return tasks[0].result(), tasks[1].result()
