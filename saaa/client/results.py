"""What a call returns: frozen dataclasses and NumPy arrays, no protobuf.

Coordinates are pixels of the upright image, origin at the top left corner, x to the right, y down.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

GraphSource = Literal["request", "proposed", "none"]
NodeKind = Literal["object", "attribute", "relationship"]
ModelKind = Literal["egdd", "ega"]
TargetKind = Literal["class", "word", "node"]
Measure = Literal["not_computed", "completeness_gap", "deletion_drop"]
ScoreDefinition = Literal["effect_share", "density_share"]


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """One class with its softmax probability in [0, 1]."""

    label: str
    index: int
    probability: float

    def to_json(self) -> dict[str, Any]:
        return {"label": self.label, "index": self.index, "probability": _shortest(self.probability)}


@dataclass(frozen=True, kw_only=True)
class Region:
    """A rectangle with fractional edges, in pixels."""

    x: float
    y: float
    width: float
    height: float

    def to_json(self) -> dict[str, float]:
        return {
            "x": _shortest(self.x),
            "y": _shortest(self.y),
            "width": _shortest(self.width),
            "height": _shortest(self.height),
        }


@dataclass(frozen=True, kw_only=True)
class Node:
    """One node of a scene graph."""

    kind: NodeKind
    id: int
    """Of the object, of the attribute's owner, or of the relationship."""
    attribute_index: int = 0
    """For an attribute: its place in the owner's list, 0-based."""
    name: str
    """Not read in a request."""

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "id": self.id, "attribute_index": self.attribute_index, "name": self.name}


@dataclass(frozen=True, kw_only=True)
class Concept:
    """An attribution map aggregated to one graph node."""

    node: Node
    mass: float
    """Share of the map's positive mass on the node's region, in [0, 1]."""
    density: float
    """mass / the region's share of the covered area; 1 is chance."""
    score: float = 0.0
    """Importance in one number, in [0, 1], comparable inside one map."""
    score_definition: ScoreDefinition = "density_share"
    """"effect_share": of the objects' positive effects; "density_share": of the objects' densities."""
    effect: float | None = None
    """Measured by removal, in units of the target's logit; None when not asked for."""
    effect_definition: str = ""
    """What `effect` is for this node; empty without one."""
    gap_mass: float | None = None
    """Relationships: share of the map's positive mass between subject and object."""
    weaker_mass: float | None = None
    """Relationships: the smaller of the masses of subject and object."""

    def to_json(self) -> dict[str, Any]:
        return {
            "node": self.node.to_json(),
            "mass": _shortest(self.mass),
            "density": _shortest(self.density),
            "score": _shortest(self.score),
            "score_definition": self.score_definition,
            "effect": _maybe(self.effect),
            "effect_definition": self.effect_definition,
            "gap_mass": _maybe(self.gap_mass),
            "weaker_mass": _maybe(self.weaker_mass),
        }


@dataclass(frozen=True, kw_only=True)
class WordTarget:
    """A word of the best caption."""

    index: int
    """Its place, 0-based."""
    text: str


@dataclass(frozen=True, kw_only=True)
class Faithfulness:
    """One measure of how well a map says what the model rests on."""

    measure: Measure
    """"completeness_gap": 0 is exact; "deletion_drop": larger is better; "not_computed": nothing was measured."""
    value: float | None = None
    """None for "not_computed"."""

    def to_json(self) -> dict[str, Any]:
        return {"measure": self.measure, "value": _maybe(self.value)}


@dataclass(frozen=True, kw_only=True, eq=False)
class Attribution:
    """How much each place of the image speaks for one target."""

    target: Prediction | WordTarget | Node
    """A class; or, of the best caption, a word or a node of its graph."""
    method: str
    grid: NDArray[np.float32]
    """(rows, columns) at the method's native resolution; larger speaks more for the target."""
    region: Region
    """The part of the image that the grid covers evenly."""
    concepts: tuple[Concept, ...] = ()
    node_weights: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    """Words and nodes: how much each graph node speaks for the target, in the order of `Analysis.caption_nodes`."""
    faithfulness: tuple[Faithfulness, ...] = (Faithfulness(measure="not_computed"),)
    """Every measure that was taken; never empty."""
    concept_agreement: float | None = None
    """Rank correlation of the objects' densities and effects, in [-1, 1]; None where it cannot be told."""

    @property
    def kind(self) -> TargetKind:
        """What is explained."""
        if isinstance(self.target, Prediction):
            return "class"
        return "word" if isinstance(self.target, WordTarget) else "node"

    @property
    def label(self) -> str:
        """The target's name: of the class or node, or the word."""
        if isinstance(self.target, Prediction):
            return self.target.label
        return self.target.text if isinstance(self.target, WordTarget) else self.target.name

    def overlay(self, image: bytes | str | os.PathLike[str] | NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The map in colours over its picture.

        Args:
            image: the analysed picture: its encoded bytes, a path to read, or (height, width, 3) uint8 RGB, upright.

        Returns:
            (height, width, 3) uint8 RGB, the longer side 440 pixels, in the picture's shape.

        Raises:
            ImageRejected: the bytes are no picture.
            OSError: the path cannot be read.
        """
        # Here, because drawing needs more than a client does.
        from saaa.images import decode
        from saaa.report.heatmap import Scale, draw_overlay

        if not isinstance(image, np.ndarray):
            image = decode(image if isinstance(image, bytes) else Path(image).read_bytes())
        return np.array(draw_overlay(image, self, Scale.of(self.grid)))

    def to_json(self) -> dict[str, Any]:
        target: dict[str, Any] = {"target": self.label, "target_kind": self.kind}
        if isinstance(self.target, Node):
            target["target_node"] = self.target.to_json()
        else:
            target["target_index"] = self.target.index
        if isinstance(self.target, Prediction):
            target["target_probability"] = _shortest(self.target.probability)
        return {
            **target,
            "method": self.method,
            "grid": _floats(self.grid),
            "region": self.region.to_json(),
            "concepts": [concept.to_json() for concept in self.concepts],
            "node_weights": _floats(self.node_weights),
            "faithfulness": [entry.to_json() for entry in self.faithfulness],
            "concept_agreement": _maybe(self.concept_agreement),
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class CaptionWord:
    """One word with what the decoder looked at when it said it."""

    text: str
    log_probability: float
    """Natural logarithm, at most 0."""
    node_weights: NDArray[np.float32]
    """(nodes,), in the order of `Analysis.caption_nodes`; sums to 1."""

    def to_json(self) -> dict[str, Any]:
        return {
            "text": self.text,
            "log_probability": _shortest(self.log_probability),
            "node_weights": _floats(self.node_weights),
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class Caption:
    """One guided caption."""

    text: str
    words: tuple[CaptionWord, ...]
    """In order, without the end marker."""
    log_probability: float
    """Of the whole caption, end marker included, natural logarithm."""

    def to_json(self) -> dict[str, Any]:
        return {
            "text": self.text,
            "words": [word.to_json() for word in self.words],
            "log_probability": _shortest(self.log_probability),
        }


@dataclass(frozen=True, kw_only=True)
class GraphObject:
    """An object with its attributes and its box (pixels, integers)."""

    id: int
    name: str
    attributes: tuple[str, ...] = ()
    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True, kw_only=True)
class GraphRelationship:
    """A directed relationship between two objects."""

    id: int
    subject_id: int
    object_id: int
    name: str


@dataclass(frozen=True, kw_only=True)
class Graph:
    """The abstract scene graph that was used."""

    objects: tuple[GraphObject, ...]
    relationships: tuple[GraphRelationship, ...] = ()

    def to_region(self) -> dict[str, Any]:
        """The graph as published region JSON, which `Client.analyze` takes again."""
        return {
            "objects": [
                {
                    "object_id": thing.id,
                    "name": thing.name,
                    "attributes": list(thing.attributes),
                    "x": thing.x,
                    "y": thing.y,
                    "w": thing.width,
                    "h": thing.height,
                }
                for thing in self.objects
            ],
            "relationships": [
                {
                    "relationship_id": link.id,
                    "subject_id": link.subject_id,
                    "object_id": link.object_id,
                    "name": link.name,
                }
                for link in self.relationships
            ],
        }


@dataclass(frozen=True, kw_only=True)
class ModelProvenance:
    """Identifies a model that took part."""

    name: str
    version: str
    archive_sha256: str
    parameters: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "version": self.version,
            "archive_sha256": self.archive_sha256,
            "parameters": dict(self.parameters),
        }


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What an auditor needs to make the answer again."""

    classifier: ModelProvenance | None = None
    captioner: ModelProvenance | None = None
    image_sha256: str = ""
    software_version: str = ""
    backend: str = ""
    cached: bool = False
    """Whether it was computed for another request with the same image, options and archives."""

    def to_json(self) -> dict[str, Any]:
        return {
            "classifier": self.classifier.to_json() if self.classifier else None,
            "captioner": self.captioner.to_json() if self.captioner else None,
            "image_sha256": self.image_sha256,
            "software_version": self.software_version,
            "backend": self.backend,
            "cached": self.cached,
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class Analysis:
    """What the models say of one image."""

    request_id: str = ""
    image_width: int
    """Of the upright image, pixels."""
    image_height: int
    predictions: tuple[Prediction, ...] = ()
    """Best first."""
    attributions: tuple[Attribution, ...] = ()
    captions: tuple[Caption, ...] = ()
    """Best first."""
    graph: Graph | None = None
    graph_source: GraphSource = "none"
    caption_nodes: tuple[Node, ...] = ()
    """The graph nodes that guided the captions; `CaptionWord.node_weights` follows this order."""
    provenance: Provenance = field(default_factory=Provenance)
    timings: Mapping[str, float] = field(default_factory=dict)
    """Milliseconds of wall-clock time by stage."""

    def to_json(self, *, file: str | None = None) -> dict[str, Any]:
        """Everything as plain dicts, lists, strings and numbers.

        Args:
            file: name of the picture; becomes the key "file" when given.
        """
        return {
            **({} if file is None else {"file": file}),
            "request_id": self.request_id,
            "image": {"width": self.image_width, "height": self.image_height},
            "graph_source": self.graph_source,
            "predictions": [prediction.to_json() for prediction in self.predictions],
            "attributions": [attribution.to_json() for attribution in self.attributions],
            "captions": [caption.to_json() for caption in self.captions],
            "caption_nodes": [node.to_json() for node in self.caption_nodes],
            "graph": self.graph.to_region() if self.graph else None,
            "provenance": self.provenance.to_json(),
            "timings": {stage: _shortest(value) for stage, value in self.timings.items()},
        }


@dataclass(frozen=True, kw_only=True)
class AttributionMethod:
    """One attribution method that a model supports."""

    name: str
    cost_forwards: float
    """For one target with default options, in forward passes of one image."""
    reference: str
    targets: tuple[TargetKind, ...] = ()
    """What it can explain in this model."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a request may carry."""

    max_image_bytes: int
    max_image_pixels: int
    max_graph_nodes: int
    max_targets: int
    """Classes, words and nodes of one request."""
    max_beam_width: int
    max_cost_forwards: int
    """Attribution work of one request, in forward passes of one image."""
    max_message_bytes: int = 0
    """A message, in and out; this and what follows is 0 where the service does not say."""
    max_upload_bytes: int = 0
    """An encoded image sent in pieces."""
    max_stream_in_flight: int = 0
    """Items of one `analyze_many` at work at once."""
    max_top_k: int = 0
    max_steps: int = 0
    max_masks: int = 0
    max_words: int = 0
    """Of a caption that is asked for."""
    max_request_id: int = 0
    """Characters."""


@dataclass(frozen=True, kw_only=True)
class Execution:
    """What a model is computed with."""

    runtime: str
    """"torch", the reference, or "openvino"."""
    precision: str
    """"fp32" or "bf16"."""
    refused: str = ""
    """Why what is faster, or what the operator asked for, is not used; empty where nothing was refused."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """A served model."""

    name: str
    version: str
    kind: ModelKind
    archive_sha256: str
    input_size: int
    """Width and height of the input, pixels."""
    classes: tuple[str, ...] = ()
    vocabulary_size: int = 0
    max_nodes: int = 0
    """Nodes of a graph that guides a caption; a larger one is refused."""
    attribution_methods: tuple[AttributionMethod, ...] = ()
    """The default first."""
    limits: Limits
    card: Mapping[str, Any] = field(default_factory=dict)
    """Data, digests, metrics, recipe."""
    ready: bool
    execution: Execution | None = None
    """None where the service does not tell."""
    decode_scales: tuple[int, ...] = ()
    """By what a JPEG may be reduced while it is decoded: 2, 4, 8; empty is never."""
    decode_margin: float = 0.0
    """How many pixels must be left for each of the input's then."""


def _shortest(value: float | np.float32) -> float:
    """The shortest decimal that reads back as the same float32: 0.1, not 0.10000000149011612."""
    return float(str(np.float32(value)))


def _maybe(value: float | None) -> float | None:
    return None if value is None else _shortest(value)


def _floats(values: NDArray[np.float32]) -> list[Any]:
    return [_floats(row) if np.ndim(row) else _shortest(row) for row in values]
