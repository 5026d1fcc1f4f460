"""From answer messages to plain values."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import cast

import numpy as np

from saaa.client.attributions import (
    Attribution,
    Concept,
    Faithfulness,
    Measure,
    Node,
    NodeKind,
    Prediction,
    Region,
    ScoreDefinition,
    TargetKind,
    WordTarget,
)
from saaa.client.models import AttributionMethod, Execution, Limits, Model, ModelKind
from saaa.client.results import (
    Analysis,
    Caption,
    CaptionWord,
    Graph,
    GraphObject,
    GraphRelationship,
    GraphSource,
    ModelProvenance,
    Provenance,
)
from saaa.v1 import analysis_pb2 as pb

MAX_RESPONSE_BYTES = 64 * 2**20
"""The largest response that the client takes."""


def analysis(response: pb.AnalyzeResponse) -> Analysis:
    """Convert a response."""
    return Analysis(
        request_id=response.request_id,
        image_width=response.image_width,
        image_height=response.image_height,
        predictions=tuple(_prediction(message) for message in response.predictions),
        attributions=tuple(_attribution(message) for message in response.attributions),
        captions=tuple(_caption(message) for message in response.captions),
        graph=_graph(response.graph) if response.HasField("graph") else None,
        graph_source=cast(
            GraphSource, _word(pb.GraphSource.Name(response.graph_source), "GRAPH_SOURCE_", unset="none")
        ),
        caption_nodes=tuple(_node(message) for message in response.caption_nodes),
        provenance=_provenance(response.provenance),
        timings={timing.stage: timing.milliseconds for timing in response.timings},
    )


def model(message: pb.Model) -> Model:
    """Convert a model's description."""
    return Model(
        name=message.name,
        version=message.version,
        kind=cast(ModelKind, _word(pb.ModelKind.Name(message.kind), "MODEL_KIND_")),
        archive_sha256=message.archive_sha256,
        input_size=message.input_size,
        classes=tuple(message.classes),
        vocabulary_size=message.vocabulary_size,
        max_nodes=message.max_nodes,
        attribution_methods=tuple(
            AttributionMethod(
                name=entry.name,
                cost_forwards=entry.cost_forwards,
                reference=entry.reference,
                targets=tuple(
                    cast(TargetKind, _word(pb.TargetKind.Name(kind), "TARGET_KIND_")) for kind in entry.targets
                ),
            )
            for entry in message.attribution_methods
        ),
        limits=Limits(**{entry.name: getattr(message.limits, entry.name) for entry in fields(Limits)}),
        card=json.loads(message.card_json or "{}"),
        ready=message.ready,
        execution=_execution(message.execution) if message.HasField("execution") else None,
        decode_scales=tuple(message.decode_scales),
        decode_margin=message.decode_margin,
    )


def _execution(message: pb.Execution) -> Execution:
    return Execution(runtime=message.runtime, precision=message.precision, refused=message.refused)


def _prediction(message: pb.Prediction) -> Prediction:
    return Prediction(label=message.label, index=message.index, probability=message.probability)


def _attribution(message: pb.Attribution) -> Attribution:
    shape = (message.grid.height, message.grid.width)
    region = message.region
    return Attribution(
        target=_target(message.target),
        method=message.method,
        grid=np.array(message.grid.values, dtype=np.float32).reshape(shape),
        region=Region(x=region.x, y=region.y, width=region.width, height=region.height),
        concepts=tuple(_concept(entry) for entry in message.concepts),
        node_weights=np.array(message.node_weights, dtype=np.float32),
        faithfulness=tuple(_faithfulness(entry) for entry in message.faithfulness),
        concept_agreement=message.concept_agreement if message.HasField("concept_agreement") else None,
    )


def _target(message: pb.AttributionTarget) -> Prediction | WordTarget | Node:
    kind = message.WhichOneof("target")
    if kind == "word":
        return WordTarget(index=message.word.index, text=message.word.text)
    return _node(message.node) if kind == "node" else _prediction(message.class_prediction)


def _concept(message: pb.ConceptAttribution) -> Concept:
    definition = _word(pb.ScoreDefinition.Name(message.score_definition), "SCORE_DEFINITION_")
    return Concept(
        node=_node(message.node),
        mass=message.mass,
        density=message.density,
        score=message.score,
        score_definition=cast(ScoreDefinition, definition),
        effect=message.effect if message.HasField("effect") else None,
        effect_definition=message.effect_definition,
        gap_mass=message.gap_mass if message.HasField("gap_mass") else None,
        weaker_mass=message.weaker_mass if message.HasField("weaker_mass") else None,
    )


def _faithfulness(message: pb.Faithfulness) -> Faithfulness:
    measure = _word(pb.FaithfulnessMeasure.Name(message.measure), "FAITHFULNESS_MEASURE_")
    return Faithfulness(measure=cast(Measure, measure), value=message.value if message.HasField("value") else None)


def _caption(message: pb.Caption) -> Caption:
    return Caption(
        text=message.text,
        words=tuple(
            CaptionWord(
                text=word.text,
                log_probability=word.log_probability,
                node_weights=np.array(word.node_weights, dtype=np.float32),
            )
            for word in message.words
        ),
        log_probability=message.log_probability,
    )


def _graph(message: pb.SceneGraph) -> Graph:
    return Graph(
        objects=tuple(
            GraphObject(
                id=thing.id,
                name=thing.name,
                attributes=tuple(thing.attributes),
                x=thing.box.x,
                y=thing.box.y,
                width=thing.box.width,
                height=thing.box.height,
            )
            for thing in message.objects
        ),
        relationships=tuple(
            GraphRelationship(id=link.id, subject_id=link.subject_id, object_id=link.object_id, name=link.name)
            for link in message.relationships
        ),
    )


def _node(message: pb.GraphNode) -> Node:
    return Node(
        kind=cast(NodeKind, _word(pb.NodeKind.Name(message.kind), "NODE_KIND_")),
        id=message.id,
        attribute_index=message.attribute_index,
        name=message.name,
    )


def _provenance(message: pb.Provenance) -> Provenance:
    return Provenance(
        classifier=_model_provenance(message.classifier) if message.HasField("classifier") else None,
        captioner=_model_provenance(message.captioner) if message.HasField("captioner") else None,
        image_sha256=message.image_sha256,
        software_version=message.software_version,
        backend=message.backend,
        cached=message.cached,
    )


def _model_provenance(message: pb.ModelProvenance) -> ModelProvenance:
    return ModelProvenance(
        name=message.name,
        version=message.version,
        archive_sha256=message.archive_sha256,
        parameters=dict(message.parameters),
    )


def _word(name: str, prefix: str, *, unset: str = "unspecified") -> str:
    """An enum value's name as a plain word: NODE_KIND_OBJECT is "object"."""
    word = name.removeprefix(prefix).lower()
    return unset if word == "unspecified" else word
