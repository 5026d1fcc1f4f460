"""Between the contract's messages and plain dataclasses.

Reading never raises: what is wrong becomes the request's violations, told together with what the models' limits show.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import Any

from saaa.concepts import ConceptScore, ScoreDefinition
from saaa.errors import InvalidInput, OptionInvalid, SceneGraphError
from saaa.scene_graph import Box, Node, NodeKind, Relationship, SceneGraph, SceneObject
from saaa.v1 import analysis_pb2 as pb
from saaa.work import (
    AUTO_METHOD,
    AttributionMap,
    CaptionOptions,
    CaptionResult,
    ExplainOptions,
    ModelInfo,
    ModelKind,
    Sampling,
    TargetKind,
)
from serving.lanes.fairness import Priority
from serving.requests import (
    AnalysisRequest,
    AnalysisResult,
    Attribution,
    CaptionTargets,
    GraphSource,
    ModelUse,
    NodeKey,
    Output,
    Prediction,
    Selector,
    Word,
)
from serving.settings import FacadeSettings, RequestLimits

_DECODING = ("beam_width", "count", "max_words", "length_penalty")
_SAMPLING = ("temperature", "top_k", "top_p", "seed")
_OUTPUTS = {
    pb.OUTPUT_PREDICTIONS: Output.PREDICTIONS,
    pb.OUTPUT_ATTRIBUTIONS: Output.ATTRIBUTIONS,
    pb.OUTPUT_CAPTIONS: Output.CAPTIONS,
}
_PRIORITIES = {
    pb.PRIORITY_UNSPECIFIED: Priority.INTERACTIVE,
    pb.PRIORITY_INTERACTIVE: Priority.INTERACTIVE,
    pb.PRIORITY_BATCH: Priority.BATCH,
}
_GRAPH_SOURCES = {
    None: pb.GRAPH_SOURCE_UNSPECIFIED,
    GraphSource.REQUEST: pb.GRAPH_SOURCE_REQUEST,
    GraphSource.PROPOSED: pb.GRAPH_SOURCE_PROPOSED,
}
_NODE_KINDS = {
    NodeKind.OBJECT: pb.NODE_KIND_OBJECT,
    NodeKind.ATTRIBUTE: pb.NODE_KIND_ATTRIBUTE,
    NodeKind.RELATIONSHIP: pb.NODE_KIND_RELATIONSHIP,
}
NODE_KINDS = {value: key for key, value in _NODE_KINDS.items()}
"""The graph's roles by the contract's numbers."""
_TARGET_KINDS = {
    TargetKind.CLASS: pb.TARGET_KIND_CLASS,
    TargetKind.WORD: pb.TARGET_KIND_WORD,
    TargetKind.NODE: pb.TARGET_KIND_NODE,
}
_SCORES = {
    ScoreDefinition.EFFECT_SHARE: pb.SCORE_DEFINITION_EFFECT_SHARE,
    ScoreDefinition.DENSITY_SHARE: pb.SCORE_DEFINITION_DENSITY_SHARE,
}
_MODEL_KINDS = {ModelKind.EGDD: pb.MODEL_KIND_EGDD, ModelKind.EGA: pb.MODEL_KIND_EGA}


def read_analyze_request(
    message: pb.AnalyzeRequest, limits: RequestLimits, *, request_id: str = "", uploaded: bytes | None = None
) -> AnalysisRequest:
    """The message as a dataclass with every default filled in.

    Args:
        message: as it came.
        limits: the bounds of a request.
        request_id: of a request that names none; empty is to make one.
        uploaded: the image, where it came in pieces.
    """
    violations: list[InvalidInput] = []
    graph = read_graph(message.graph, limits, violations) if message.HasField("graph") else None
    for place, value in enumerate(message.outputs):
        if value not in _OUTPUTS and value != pb.OUTPUT_UNSPECIFIED:
            violations.append(
                OptionInvalid(f"{value} is no kind of output; use those of the enum Output.", field=f"outputs[{place}]")
            )
    if message.priority not in _PRIORITIES:
        text = f"{message.priority} is no priority; use those of the enum Priority."
        violations.append(OptionInvalid(text, field="priority"))
    attribution, caption = message.attribution, message.caption
    return AnalysisRequest(
        image=message.image if uploaded is None else uploaded,
        uploaded=uploaded is not None,
        graph=graph,
        outputs=frozenset(_OUTPUTS[value] for value in message.outputs if value in _OUTPUTS),
        top_k=message.top_k if message.HasField("top_k") else 5,
        explain=ExplainOptions(
            method=attribution.method or AUTO_METHOD,
            deletion=attribution.deletion,
            effects=attribution.effects,
            **_set_fields(attribution, "steps", "gamma", "masks", "seed"),
        ),
        classes=tuple(attribution.classes),
        caption=_read_decoding(caption, violations),
        text=_read_text(caption, violations),
        caption_targets=CaptionTargets(
            words=tuple(attribution.words),
            every_word=attribution.every_word,
            nodes=_read_nodes(attribution.nodes, violations),
            method=attribution.word_method or AUTO_METHOD,
        ),
        classifier=_read_selector(message.classifier) if message.HasField("classifier") else None,
        captioner=_read_selector(message.captioner) if message.HasField("captioner") else None,
        priority=_PRIORITIES.get(message.priority, Priority.INTERACTIVE),
        request_id=message.request_id or request_id or uuid.uuid4().hex,
        violations=tuple(violations),
    )


def _read_decoding(message: pb.CaptionOptions, violations: list[InvalidInput]) -> CaptionOptions:
    sampling = None
    if message.HasField("sampling"):
        sampling = Sampling(**_set_fields(message.sampling, *_SAMPLING))
        if message.HasField("beam_width"):
            text = "Captions are drawn, so there is no beam; leave this unset."
            violations.append(OptionInvalid(text, field="caption.beam_width"))
    return CaptionOptions(**_set_fields(message, *_DECODING), sampling=sampling)


def _set_fields(message: pb.AttributionOptions | pb.CaptionOptions | pb.Sampling, *names: str) -> dict[str, Any]:
    """The optional fields that are set; the others keep the dataclass's defaults."""
    return {name: getattr(message, name) for name in names if message.HasField(name)}


def _read_text(message: pb.CaptionOptions, violations: list[InvalidInput]) -> tuple[str, ...] | None:
    if not message.HasField("text"):
        return None
    for name in [name for name in (*_DECODING, "sampling") if message.HasField(name)]:
        text = "A caption is given, so none is made; leave this unset."
        violations.append(OptionInvalid(text, field=f"caption.{name}"))
    return tuple(message.text.split())


def _read_nodes(messages: Iterable[pb.GraphNode], violations: list[InvalidInput]) -> tuple[NodeKey, ...]:
    nodes = []
    for place, message in enumerate(messages):
        kind = NODE_KINDS.get(message.kind)
        if kind is None:
            text = "Say whether the node is an object, an attribute or a relationship."
            violations.append(OptionInvalid(text, field=f"attribution.nodes[{place}].kind"))
        else:
            nodes.append((kind, message.id, message.attribute_index))
    return tuple(nodes)


def _read_selector(message: pb.ModelSelector) -> Selector:
    return Selector(name=message.name, version=message.version)


def read_graph(
    message: pb.SceneGraph, limits: RequestLimits, violations: list[InvalidInput], *, field: str = "graph"
) -> SceneGraph | None:
    """The graph, or None and what is wrong with it: a fault of each object, or one of the graph as a whole."""
    nodes = len(message.relationships) + sum(1 + len(thing.attributes) for thing in message.objects)
    if nodes > limits.max_graph_nodes:
        # Told before the graph is looked at: a huge one must not cost anything.
        text = (
            f"The graph has {nodes} nodes (objects, attributes and relationships), at most "
            f"{limits.max_graph_nodes} are taken; leave out the least important."
        )
        violations.append(SceneGraphError(text, field=field))
        return None
    before = len(violations)
    objects = []
    for place, thing in enumerate(message.objects):
        box = thing.box
        objects.append(
            SceneObject(thing.id, thing.name, Box(box.x, box.y, box.width, box.height), tuple(thing.attributes))
        )
        if not thing.HasField("box"):
            path = f"{field}.objects[{place}].box"
            violations.append(SceneGraphError("The box is missing; say where the object is.", field=path))
            continue
        try:
            SceneGraph((objects[-1],))
        except SceneGraphError as error:
            path = error.field.replace("objects[0]", f"objects[{place}]")
            violations.append(SceneGraphError(error.message, field=f"{field}.{path}"))
    if len(violations) > before:
        return None
    relationships = tuple(
        Relationship(link.id, link.subject_id, link.object_id, link.name) for link in message.relationships
    )
    try:
        return SceneGraph(tuple(objects), relationships, max_nodes=limits.max_graph_nodes)
    except SceneGraphError as error:
        path = f"{field}.{error.field}" if error.field else field
        violations.append(SceneGraphError(error.message, field=path))
        return None


def write_analysis(result: AnalysisResult) -> pb.AnalyzeResponse:
    """The answer as a message."""
    width, height = result.image_size
    response = pb.AnalyzeResponse(
        request_id=result.request_id,
        image_width=width,
        image_height=height,
        predictions=[_write_prediction(prediction) for prediction in result.predictions],
        attributions=[_write_attribution(attribution) for attribution in result.attributions],
        captions=[_write_caption(caption) for caption in result.captions],
        graph_source=_GRAPH_SOURCES[result.graph_source],
        provenance=pb.Provenance(
            image_sha256=result.image_sha256,
            software_version=result.software_version,
            backend=result.backend,
            cached=result.cached,
        ),
        timings=[pb.StageTiming(stage=stage, milliseconds=seconds * 1000) for stage, seconds in result.timings.items()],
        caption_nodes=[_write_node(node) for node in result.caption_nodes],
    )
    if result.graph is not None:
        response.graph.CopyFrom(_write_graph(result.graph))
    if result.classifier is not None:
        response.provenance.classifier.CopyFrom(_write_use(result.classifier))
    if result.captioner is not None:
        response.provenance.captioner.CopyFrom(_write_use(result.captioner))
    return response


def _write_prediction(prediction: Prediction) -> pb.Prediction:
    return pb.Prediction(label=prediction.label, index=prediction.index, probability=prediction.probability)


def _write_attribution(attribution: Attribution) -> pb.Attribution:
    values = attribution.map.values
    x, y, width, height = attribution.region
    return pb.Attribution(
        target=_write_target(attribution.target),
        method=attribution.map.method,
        grid=pb.Grid(height=values.shape[0], width=values.shape[1], values=values.ravel().tolist()),
        region=pb.Region(x=x, y=y, width=width, height=height),
        concepts=[_write_concept(concept) for concept in attribution.concepts],
        node_weights=() if attribution.map.node_weights is None else attribution.map.node_weights.tolist(),
        faithfulness=_write_faithfulness(attribution.map),
        concept_agreement=attribution.concept_agreement,
    )


def _write_target(target: Prediction | Word | Node) -> pb.AttributionTarget:
    if isinstance(target, Prediction):
        return pb.AttributionTarget(class_prediction=_write_prediction(target))
    if isinstance(target, Word):
        return pb.AttributionTarget(word=pb.WordTarget(index=target.index, text=target.text))
    return pb.AttributionTarget(node=_write_node(target))


def _write_faithfulness(made: AttributionMap) -> list[pb.Faithfulness]:
    measured = {
        pb.FAITHFULNESS_MEASURE_COMPLETENESS_GAP: made.completeness_gap,
        pb.FAITHFULNESS_MEASURE_DELETION_DROP: made.deletion_drop,
    }
    told = [pb.Faithfulness(measure=name, value=value) for name, value in measured.items() if value is not None]
    return told or [pb.Faithfulness(measure=pb.FAITHFULNESS_MEASURE_NOT_COMPUTED)]


def _write_concept(concept: ConceptScore) -> pb.ConceptAttribution:
    return pb.ConceptAttribution(
        node=_write_node(concept.node),
        mass=concept.mass,
        density=concept.density,
        effect=concept.effect,
        effect_definition=concept.effect_definition,
        score=concept.score,
        score_definition=_SCORES[concept.score_definition],
        gap_mass=concept.gap_mass,
        weaker_mass=concept.weaker_mass,
    )


def _write_node(node: Node) -> pb.GraphNode:
    return pb.GraphNode(kind=_NODE_KINDS[node.kind], id=node.id, attribute_index=node.attribute_index, name=node.name)


def _write_caption(caption: CaptionResult) -> pb.Caption:
    return pb.Caption(
        text=" ".join(caption.words),
        words=[
            pb.CaptionWord(text=word, log_probability=log_probability, node_weights=weights)
            for word, log_probability, weights in zip(
                caption.words, caption.log_probabilities.tolist(), caption.node_weights.tolist(), strict=True
            )
        ],
        log_probability=caption.log_probability,
    )


def _write_graph(graph: SceneGraph) -> pb.SceneGraph:
    return pb.SceneGraph(
        objects=[
            pb.SceneObject(
                id=thing.id,
                name=thing.name,
                attributes=thing.attributes,
                box=pb.Box(x=thing.box.x, y=thing.box.y, width=thing.box.width, height=thing.box.height),
            )
            for thing in graph.objects
        ],
        relationships=[
            pb.Relationship(id=link.id, subject_id=link.subject_id, object_id=link.object_id, name=link.name)
            for link in graph.relationships
        ],
    )


def _write_use(use: ModelUse) -> pb.ModelProvenance:
    return pb.ModelProvenance(
        name=use.info.name,
        version=use.info.version,
        archive_sha256=use.info.digest,
        parameters=use.parameters,
    )


def write_limits(settings: FacadeSettings) -> pb.Limits:
    """What a request may carry, as a message: the limits of the same names."""
    limits = {**vars(settings.limits), "max_message_bytes": settings.max_message_bytes}
    return pb.Limits(**{name: value for name, value in limits.items() if name in pb.Limits.DESCRIPTOR.fields_by_name})


def write_model(info: ModelInfo, limits: pb.Limits, *, ready: bool) -> pb.Model:
    """A served model as a message."""
    return pb.Model(
        name=info.name,
        version=info.version,
        kind=_MODEL_KINDS[info.kind],
        archive_sha256=info.digest,
        input_size=info.input_size,
        classes=info.classes,
        vocabulary_size=info.vocabulary_size,
        max_nodes=info.max_nodes,
        attribution_methods=[
            pb.AttributionMethod(
                name=method.name,
                cost_forwards=method.cost_forwards,
                reference=method.reference,
                targets=[_TARGET_KINDS[kind] for kind in method.targets],
            )
            for method in info.methods
        ],
        limits=limits,
        card_json=info.card_json,
        ready=ready,
        execution=None if info.execution is None else pb.Execution(**vars(info.execution)),
        decode_scales=info.decode_scales,
        decode_margin=info.decode_margin if info.decode_scales else 0,
    )
