"""From what the models gave to what the caller gets."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np

import saaa
from saaa import errors
from saaa.concepts import concept_agreement, concept_attribution
from saaa.errors import BackendFailed, BackendUnavailable, SaaaError
from saaa.images import Geometry
from saaa.scene_graph import Node, SceneGraph
from saaa.work import DELETION_SHARE, AttributionMap, ExplainOptions, ItemError, ItemResult, TargetKind, Work
from serving.analysis.explaining import REMOVING_METHODS, options_read
from serving.analysis.plan import CaptionPlan, ClassifyPlan, Plan
from serving.observer import Seat
from serving.requests import AnalysisResult, Attribution, GraphSource, ModelUse, Output, Prediction, Word

FILL = "mean colour"
"""What removed parts of an image become; the one fill of this service."""


def make_answer(
    plan: Plan,
    *,
    graph: SceneGraph | None,
    classified: ItemResult | None,
    geometry: Geometry | None,
    seat: Seat | None,
    captioned: ItemResult | None,
    caption_geometry: Geometry | None,
    caption_seat: Seat | None,
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
        seat: where it was computed.
        captioned: the captioner's result.
        caption_geometry: where the captioner's input lies in the image.
        caption_seat: where it was computed.
        request_id: of the request.
        image_sha256: of the image's bytes.
        backend: what computed.
        timings: seconds by stage.

    Raises:
        BackendFailed: a result does not fit the model.
    """
    predictions, attributions = _classes(plan, classified, geometry, graph)
    attributions += _caption_attributions(captioned, caption_geometry, graph)
    used = graph if attributions or captioned is not None else None
    source = None
    if used is not None:
        source = GraphSource.PROPOSED if plan.graph is None else GraphSource.REQUEST
    caption = plan.caption if captioned is not None else None
    return AnalysisResult(
        request_id=request_id,
        image_size=plan.header.size,
        image_sha256=image_sha256,
        backend=backend,
        software_version=saaa.__version__,
        predictions=predictions,
        attributions=attributions,
        captions=captioned.captions if captioned else (),
        graph=used,
        graph_source=source,
        caption_nodes=used.nodes()[: caption.model.max_nodes] if used and caption else (),
        classifier=_classifier_use(plan.classify, seat),
        captioner=_captioner_use(caption, caption_seat),
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
        attributions = tuple(_attribution(prediction(entry.target), entry, geometry, graph) for entry in result.maps)
    return predictions, attributions


def _caption_attributions(
    result: ItemResult | None, geometry: Geometry | None, graph: SceneGraph | None
) -> tuple[Attribution, ...]:
    """The maps of words and nodes."""
    if result is None or not result.maps or geometry is None or graph is None:
        return ()
    words, nodes = result.captions[0].words, graph.nodes()

    def target(entry: AttributionMap) -> Word | Node:
        if entry.kind is TargetKind.WORD:
            return Word(index=entry.target, text=words[entry.target])
        return nodes[entry.target]

    return tuple(_attribution(target(entry), entry, geometry, graph) for entry in result.maps)


def _attribution(
    target: Prediction | Word | Node, made: AttributionMap, geometry: Geometry, graph: SceneGraph | None
) -> Attribution:
    concepts = concept_attribution(made.values, geometry, graph, made.effects) if graph else ()
    return Attribution(
        target=target,
        map=made,
        region=(geometry.x, geometry.y, geometry.width, geometry.height),
        concepts=concepts,
        concept_agreement=concept_agreement(concepts),
    )


def _classifier_use(plan: ClassifyPlan | None, seat: Seat | None) -> ModelUse | None:
    if plan is None:
        return None
    objects = len(plan.graph.objects) if plan.graph else 0
    parameters = _explaining(plan.options, objects) if plan.work is Work.EXPLAIN else {}
    return ModelUse(info=plan.model, parameters=parameters, seat=seat)


def _explaining(options: ExplainOptions, objects: int) -> dict[str, str]:
    """What was used of the options, by name."""
    parameters = {"method": options.method}
    for name in options_read(options, objects):
        parameters[name] = str(getattr(options, name))
    if options.effects:
        parameters["effects"] = "true"
    if options.deletion:
        parameters["deletion_share"] = str(DELETION_SHARE)
    if options.deletion or options.effects or options.method in REMOVING_METHODS:
        parameters["fill"] = FILL
    return parameters


def _captioner_use(plan: CaptionPlan | None, seat: Seat | None) -> ModelUse | None:
    if plan is None:
        return None
    parameters = {"max_nodes": str(plan.model.max_nodes)}
    if plan.text is not None:
        parameters["text"] = " ".join(plan.text)
    else:
        options = plan.options
        if options.sampling is None:
            parameters["beam_width"] = str(options.beam_width)
        else:
            drawn = asdict(options.sampling)
            parameters |= {name: str(value) for name, value in drawn.items() if value is not None}
        if options.length_penalty:
            parameters["length_penalty"] = str(options.length_penalty)
        parameters["count"] = str(options.count)
        parameters["max_words"] = str(plan.options.max_words or plan.model.max_words)
    if plan.explanation is not None:
        parameters |= _explaining(plan.explanation.options, 0)
    return ModelUse(info=plan.model, parameters=parameters, seat=seat)


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
