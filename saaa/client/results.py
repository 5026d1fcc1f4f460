"""What a call returns: frozen dataclasses and NumPy arrays, no protobuf.

Coordinates are pixels of the upright image, origin at the top left corner, x to the right, y down.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

GraphSource = Literal["request", "proposed", "none"]
NodeKind = Literal["object", "attribute", "relationship"]
ModelKind = Literal["egdd", "ega"]


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

    def to_json(self) -> dict[str, Any]:
        return {
            "node": self.node.to_json(),
            "mass": _shortest(self.mass),
            "density": _shortest(self.density),
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class Attribution:
    """How much each place of the image speaks for one class."""

    target: Prediction
    method: str
    grid: NDArray[np.float32]
    """(rows, columns) at the method's native resolution; larger speaks more for the target."""
    region: Region
    """The part of the image that the grid covers evenly."""
    concepts: tuple[Concept, ...] = ()
    completeness_gap: float | None = None
    """integrated_gradients only; relative, 0 is exact."""

    def to_json(self) -> dict[str, Any]:
        return {
            "target": self.target.label,
            "target_index": self.target.index,
            "target_probability": _shortest(self.target.probability),
            "method": self.method,
            "grid": _floats(self.grid),
            "region": self.region.to_json(),
            "concepts": [concept.to_json() for concept in self.concepts],
            "completeness_gap": None if self.completeness_gap is None else _shortest(self.completeness_gap),
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

    def to_json(self) -> dict[str, Any]:
        return {
            "classifier": self.classifier.to_json() if self.classifier else None,
            "captioner": self.captioner.to_json() if self.captioner else None,
            "image_sha256": self.image_sha256,
            "software_version": self.software_version,
            "backend": self.backend,
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
    """For one target, in forward passes of one image."""
    reference: str


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a request may carry."""

    max_image_bytes: int
    max_image_pixels: int
    max_graph_nodes: int
    max_targets: int
    max_beam_width: int


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
    attribution_methods: tuple[AttributionMethod, ...] = ()
    """The default first."""
    limits: Limits
    card: Mapping[str, Any] = field(default_factory=dict)
    """Data, digests, metrics, recipe."""
    ready: bool


def _shortest(value: float | np.float32) -> float:
    """The shortest decimal that reads back as the same float32: 0.1, not 0.10000000149011612."""
    return float(str(np.float32(value)))


def _floats(values: NDArray[np.float32]) -> list[Any]:
    return [_floats(row) if np.ndim(row) else _shortest(row) for row in values]
