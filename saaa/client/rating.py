"""From an analysis and a person's answer to a `RecordRatingRequest`."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from saaa.client.attributions import Attribution, Node, NodeKind, Prediction, WordTarget
from saaa.client.errors import RequestInvalid
from saaa.client.request import NODE_KINDS, Image, graph_message, node_message, put_number
from saaa.client.results import Analysis, ModelProvenance
from saaa.v1 import analysis_pb2 as pb
from saaa.v1 import feedback_pb2 as feedback

_SOURCES = {"request": pb.GRAPH_SOURCE_REQUEST, "proposed": pb.GRAPH_SOURCE_PROPOSED}


@dataclass(frozen=True, kw_only=True)
class RelevanceRating:
    """The answer of task 1: what the highlighted part shows, and how relevant it is to the target."""

    content_type: NodeKind
    content_description: str
    """A name; (object, attribute); or (object, relationship, object). At most 200 characters."""
    relevance: float
    """1 (not at all) to 5 (fully)."""


@dataclass(frozen=True, kw_only=True)
class RecordedRating:
    """A rating that is kept."""

    request_id: str
    recorded_at: datetime
    """When it was kept, UTC."""


def rating_request(
    analysis: Analysis,
    answer: RelevanceRating | Mapping[str, Any],
    attribution: Attribution | None,
    annotator: str,
    consented_image: Image | None,
    request_id: str,
) -> feedback.RecordRatingRequest:
    """Build the message for `Client.record_rating`.

    Raises:
        RequestInvalid: a value cannot be put into the message; ranges are the service's to check.
        OSError: the image is a path that cannot be read.
    """
    request = feedback.RecordRatingRequest(
        request_id=request_id or uuid.uuid4().hex, annotator=annotator, about=_about(analysis, attribution)
    )
    if isinstance(answer, RelevanceRating):
        kind = NODE_KINDS.get(answer.content_type)
        if kind is None:
            text = f"{answer.content_type!r} is none; choose from {', '.join(NODE_KINDS)}"
            raise RequestInvalid("content_type", text)
        request.relevance.content_type = kind
        request.relevance.content_description = answer.content_description
        put_number(request.relevance, "relevance", "relevance", answer.relevance)
    else:
        request.human_graph.CopyFrom(graph_message(answer))
    if consented_image is not None:
        image = consented_image
        request.consented_image = image if isinstance(image, bytes) else Path(image).read_bytes()
    return request


def recorded_rating(response: feedback.RecordRatingResponse) -> RecordedRating:
    """Convert a response."""
    return RecordedRating(request_id=response.request_id, recorded_at=response.recorded_at.ToDatetime(UTC))


def _about(analysis: Analysis, attribution: Attribution | None) -> feedback.RatedAnalysis:
    used = analysis.provenance
    about = feedback.RatedAnalysis(
        provenance=pb.Provenance(
            image_sha256=used.image_sha256, software_version=used.software_version, backend=used.backend
        ),
        image_width=analysis.image_width,
        image_height=analysis.image_height,
        graph_source=_SOURCES.get(analysis.graph_source, pb.GRAPH_SOURCE_UNSPECIFIED),
        caption=analysis.captions[0].text if analysis.captions else "",
    )
    for role in ("classifier", "captioner"):
        model: ModelProvenance | None = getattr(used, role)
        if model is not None:
            getattr(about.provenance, role).CopyFrom(pb.ModelProvenance(**model.to_json()))
    if analysis.graph is not None:
        about.graph.CopyFrom(graph_message(analysis.graph.to_region()))
    if attribution is not None:
        rows, columns = attribution.grid.shape
        about.attribution.CopyFrom(
            pb.Attribution(
                target=_target(attribution.target),
                method=attribution.method,
                grid=pb.Grid(height=rows, width=columns, values=attribution.grid.ravel().tolist()),
                region=pb.Region(**attribution.region.to_json()),
            )
        )
    return about


def _target(target: Prediction | WordTarget | Node) -> pb.AttributionTarget:
    if isinstance(target, Prediction):
        return pb.AttributionTarget(
            class_prediction=pb.Prediction(label=target.label, index=target.index, probability=target.probability)
        )
    if isinstance(target, WordTarget):
        return pb.AttributionTarget(word=pb.WordTarget(index=target.index, text=target.text))
    node = node_message(target, "attribution.target")
    node.name = target.name
    return pb.AttributionTarget(node=node)
