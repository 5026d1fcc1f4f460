"""From what the models gave to what the caller gets."""

from __future__ import annotations

import numpy as np

import saaa
from saaa import errors
from saaa.concepts import concept_attribution
from saaa.errors import BackendFailed, BackendUnavailable, SaaaError
from saaa.images import Geometry
from saaa.scene_graph import SceneGraph
from saaa.work import ItemError, ItemResult, Work
from serving.plan import STEPPED_METHODS, CaptionPlan, ClassifyPlan, Plan
from serving.requests import AnalysisResult, Attribution, GraphSource, ModelUse, Output, Prediction


def make_answer(
    plan: Plan,
    *,
    graph: SceneGraph | None,
    classified: ItemResult | None,
    geometry: Geometry | None,
    captioned: ItemResult | None,
    request_id: str,
    image_sha256: str,
    backend: str,
    timings: dict[str, float],
) -> AnalysisResult:
    """Put the answer together.

    Args:
        plan: what was asked for.
        graph: the request's, or the one that was proposed.
        classified: the classifier's result.
        geometry: where its input lies in the image.
        captioned: the captioner's result.
        request_id: of the request.
        image_sha256: of the image's bytes.
        backend: what computed.
        timings: seconds by stage.

    Raises:
        BackendFailed: a result does not fit the model.
    """
    predictions, attributions = _classes(plan, classified, geometry, graph)
    used = graph if attributions or captioned is not None else None
    source = None
    if used is not None:
        source = GraphSource.PROPOSED if plan.graph is None else GraphSource.REQUEST
    caption = plan.caption if captioned is not None else None
    return AnalysisResult(
        request_id=request_id,
        image_size=plan.image_size,
        image_sha256=image_sha256,
        backend=backend,
        software_version=saaa.__version__,
        predictions=predictions,
        attributions=attributions,
        captions=captioned.captions if captioned else (),
        graph=used,
        graph_source=source,
        caption_nodes=used.nodes()[: caption.model.max_nodes] if used and caption else (),
        classifier=_classifier_use(plan.classify),
        captioner=_captioner_use(caption),
        timings=timings,
    )


def _classes(
    plan: Plan, result: ItemResult | None, geometry: Geometry | None, graph: SceneGraph | None
) -> tuple[tuple[Prediction, ...], tuple[Attribution, ...]]:
    """Predictions and attributions as asked for."""
    if plan.classify is None or result is None or geometry is None:
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


def checked(result: ItemResult) -> ItemResult:
    """The result itself, or its error raised."""
    if result.error is not None:
        raise raised(result.error)
    return result


def raised(error: ItemError) -> SaaaError:
    """The error that an item's answer stands for: the caller's fault where the model says so, else the backend's."""
    for kind in (errors.ImageRejected, errors.SceneGraphError, errors.OptionInvalid, errors.InvalidInput):
        named = kind(error.message, field=error.field)
        if named.reason == error.reason:
            return named
    if error.reason == "BACKEND_UNAVAILABLE":
        return BackendUnavailable(error.message)
    return BackendFailed(error.message)
