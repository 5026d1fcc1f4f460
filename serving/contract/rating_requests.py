"""From a `RecordRatingRequest` to a rating that can be kept: read and checked in one pass, all faults told at once."""

from __future__ import annotations

import hashlib
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saaa.errors import ImageRejected, InvalidInput
from saaa.scene_graph import SceneGraph
from saaa.v1 import analysis_pb2 as pb
from saaa.v1 import feedback_pb2 as feedback
from serving.analysis.plan import check_image, check_inside, check_request_id
from serving.contract.convert import NODE_KINDS, read_graph
from serving.ratings.place import KeptImage, Rating, spelled
from serving.settings import RequestLimits
from serving.violations import Violations

RELEVANCE = (1.0, 5.0)
"""The least and the greatest relevance."""
MAX_DESCRIPTION = 200
"""Longest description in characters."""
MAX_ANNOTATOR = 64
"""Longest annotator's pseudonym in characters."""
MAX_CAPTION = 1000
"""Longest caption in characters."""
MAX_LABEL = 256
"""Longest name of a class, word, node, method, model or version in characters."""
MAX_PARAMETERS = 64
"""Most parameters of a model's provenance."""
MAX_VALUES = 2**18
"""Most values of a map."""

_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_SOURCES = {pb.GRAPH_SOURCE_REQUEST: "request", pb.GRAPH_SOURCE_PROPOSED: "proposed"}
Json = dict[str, Any]


def read_rating(message: feedback.RecordRatingRequest, limits: RequestLimits) -> Rating:
    """The rating as it will be kept.

    Args:
        message: as it came.
        limits: the bounds of images, graphs and request ids.

    Raises:
        RequestInvalid, InvalidInput: all that is wrong with the message.
    """
    reader = _Reader(limits)
    content, image = reader.content(message), reader.image(message)
    reader.violations.raise_any()
    return Rating(request_id=message.request_id, content=spelled(content), image=image)


class _Reader:
    """Reads one message; what is wrong gathers in `violations`, and then what was read is of no use."""

    def __init__(self, limits: RequestLimits) -> None:
        self.limits = limits
        self.violations = Violations()
        self._check = self.violations.check

    def content(self, message: feedback.RecordRatingRequest) -> Json:
        self._check(bool(message.request_id), "request_id", "Name the rating, so that it can be sent again safely.")
        check_request_id(message.request_id, self.limits, self.violations)
        content: Json = self._about(message.about)
        if message.annotator:
            content["annotator"] = self._text(message.annotator, "annotator", MAX_ANNOTATOR)
        task = message.WhichOneof("answer")
        self._check(task is not None, "answer", "Set relevance (task 1) or human_graph (task 2).")
        if task == "relevance":
            content |= {"task": task, "relevance": self._relevance(message.relevance)}
            told = message.about.HasField("attribution")
            self._check(told, "about.attribution", "This is missing; a relevance rating is about one map.")
        elif task == "human_graph":
            graph = self._graph(message.human_graph, "human_graph", message.about)
            content |= {"task": task, "human_graph": _region(graph) if graph else None}
        return content

    def image(self, message: feedback.RecordRatingRequest) -> KeptImage | None:
        data, field, about = message.consented_image, "consented_image", message.about
        if not data:
            return None
        header = check_image(data, self.limits, self.violations, field=field)
        if header is None:
            return None
        sha256 = hashlib.sha256(data).hexdigest()
        same = sha256 == about.provenance.image_sha256.lower()
        if not same or (header.width, header.height) != (about.image_width, about.image_height):
            text = "This is not the image that was analysed: its SHA-256 or its size is another. Send the same bytes."
            self.violations.add(ImageRejected(text, field=field))
        return KeptImage(sha256=sha256, format=header.format.lower(), data=data)

    def _relevance(self, message: feedback.RelevanceRating) -> Json:
        kind = NODE_KINDS.get(message.content_type)
        self._check(
            kind is not None, "relevance.content_type", "Say whether it is an object, an attribute or a relationship."
        )
        low, high = RELEVANCE
        self._check(
            low <= message.relevance <= high,
            "relevance.relevance",
            f"{message.relevance:g} is out of range; use {low:g} to {high:g}.",
        )
        return {
            "content_type": kind.name.lower() if kind is not None else "",
            "content_description": self._text(
                message.content_description, "relevance.content_description", MAX_DESCRIPTION
            ),
            "relevance": message.relevance,
        }

    def _about(self, message: feedback.RatedAnalysis) -> Json:
        used = message.provenance
        pixels = message.image_width * message.image_height
        for name in ("image_width", "image_height"):
            self._check(getattr(message, name) >= 1, f"about.{name}", "This is missing; give it in pixels.")
        self._check(
            pixels <= self.limits.max_image_pixels,
            "about.image_width",
            f"The image has {pixels} pixels, at most {self.limits.max_image_pixels} are taken.",
        )
        content: Json = {
            "image": {
                "sha256": self._digest(used.image_sha256, "about.provenance.image_sha256"),
                "width": message.image_width,
                "height": message.image_height,
            },
            "models": {
                role: self._model(getattr(used, role), f"about.provenance.{role}")
                for role in ("classifier", "captioner")
                if used.HasField(role)
            },
        }
        for name in ("software_version", "backend"):
            if value := getattr(used, name):
                content[name] = self._text(value, f"about.provenance.{name}", MAX_LABEL)
        if message.caption:
            content["caption"] = self._text(message.caption, "about.caption", MAX_CAPTION)
        graph = self._graph(message.graph, "about.graph", message) if message.HasField("graph") else None
        if graph is not None:
            source = _SOURCES.get(message.graph_source)
            self._check(source is not None, "about.graph_source", "Say where the graph comes from, as Analyze did.")
            content["graph"] = {**_region(graph), "source": source}
        if message.HasField("attribution"):
            content["attribution"] = self._attribution(message, graph)
        return content

    def _attribution(self, about: feedback.RatedAnalysis, graph: SceneGraph | None) -> Json:
        message = about.attribution
        region = {name: getattr(message.region, name) for name in ("x", "y", "width", "height")}
        self._check(
            bool(np.isfinite(list(region.values())).all()) and min(region["width"], region["height"]) > 0,
            "about.attribution.region",
            "Say which part of the image the map covers, in pixels.",
        )
        return {
            **self._target(about, graph),
            "method": self._text(message.method, "about.attribution.method", MAX_LABEL),
            "grid": self._grid(message.grid),
            "region": {name: _shortest(np.array([value], np.float32))[0] for name, value in region.items()},
        }

    def _grid(self, message: pb.Grid) -> list[list[float]]:
        height, width, count = message.height, message.width, len(message.values)
        field = "about.attribution.grid"
        fits = height * width == count and count > 0
        self._check(fits, field, f"{height} x {width} values are announced, {count} given; give all, at least 1.")
        self._check(count <= MAX_VALUES, field, f"The map has {count} values, at most {MAX_VALUES} are taken.")
        if not fits or count > MAX_VALUES:
            return []
        values = np.array(message.values, np.float32)
        self._check(bool(np.isfinite(values).all()), field, "A value is not finite; such a map says nothing.")
        flat = _shortest(values)
        return [flat[start : start + width] for start in range(0, count, width)]

    def _target(self, about: feedback.RatedAnalysis, graph: SceneGraph | None) -> Json:
        target, field = about.attribution.target, "about.attribution.target"
        kind = target.WhichOneof("target")
        if kind is None:
            self._check(False, field, "Say what the map explains, as Analyze did.")
            return {}
        role = "classifier" if kind == "class_prediction" else "captioner"
        self._check(
            about.provenance.HasField(role), f"about.provenance.{role}", "This is missing; the map explains its answer."
        )
        if kind == "class_prediction":
            told = target.class_prediction
            probability = told.probability
            self._check(0 <= probability <= 1, f"{field}.class_prediction.probability", "Use 0 to 1.")
            return {
                "target_kind": "class",
                "target": self._text(told.label, f"{field}.class_prediction.label", MAX_LABEL),
                "target_index": told.index,
                "target_probability": _shortest(np.array([probability], np.float32))[0],
            }
        if kind == "word":
            words = about.caption.split()
            self._check(
                words[target.word.index : target.word.index + 1] == [target.word.text],
                f"{field}.word",
                "The caption has no such word at this place; send caption and word as Analyze did.",
            )
            return {"target_kind": "word", "target": target.word.text, "target_index": target.word.index}
        return {"target_kind": "node", **self._node(target.node, f"{field}.node", graph)}

    def _node(self, message: pb.GraphNode, field: str, graph: SceneGraph | None) -> Json:
        for node in graph.nodes() if graph else ():
            if (node.kind, node.id, node.attribute_index) == (
                NODE_KINDS.get(message.kind),
                message.id,
                message.attribute_index,
            ):
                parts = {"kind": node.kind.name.lower(), "id": node.id, "attribute_index": node.attribute_index}
                return {"target": node.name, "target_node": {**parts, "name": node.name}}
        self._check(False, field, "about.graph has no such node; send graph and node as Analyze did.")
        return {}

    def _model(self, message: pb.ModelProvenance, field: str) -> Json:
        count = len(message.parameters)
        self._check(count <= MAX_PARAMETERS, f"{field}.parameters", f"{count} are given, at most {MAX_PARAMETERS}.")
        within = all(len(key) <= MAX_LABEL and len(text) <= MAX_CAPTION for key, text in message.parameters.items())
        self._check(
            within,
            f"{field}.parameters",
            f"Names have at most {MAX_LABEL} characters, values {MAX_CAPTION}.",
        )
        return {
            "name": self._text(message.name, f"{field}.name", MAX_LABEL),
            "version": self._text(message.version, f"{field}.version", MAX_LABEL),
            "archive_sha256": self._digest(message.archive_sha256, f"{field}.archive_sha256"),
            "parameters": dict(message.parameters),
        }

    def _graph(self, message: pb.SceneGraph, field: str, about: feedback.RatedAnalysis) -> SceneGraph | None:
        found: list[InvalidInput] = []
        graph = read_graph(message, self.limits, found, field=field)
        for violation in found:
            self.violations.add(violation)
        if graph is not None:
            check_inside(graph, about.image_width, about.image_height, self.violations, field=field)
        return graph

    def _text(self, value: str, field: str, most: int) -> str:
        self._check(bool(value.strip()), field, "This is missing.")
        self._check(len(value) <= most, field, f"This has {len(value)} characters, at most {most} are taken.")
        return value

    def _digest(self, value: str, field: str) -> str:
        self._check(
            _SHA256.fullmatch(value) is not None,
            field,
            "This is no SHA-256; send the 64 hexadecimal digits of Analyze.",
        )
        return value.lower()


def _region(graph: SceneGraph) -> Json:
    """Published region JSON; the phrase belongs to no graph here."""
    region = graph.to_region()
    del region["phrase"]
    return region


def _shortest(values: NDArray[np.float32]) -> list[float]:
    """The shortest decimals that read back as the same float32."""
    return [float(text) for text in values.astype(str)]
