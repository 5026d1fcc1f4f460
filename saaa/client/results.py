"""What the models say of an image: frozen dataclasses and NumPy arrays, no protobuf.

Coordinates are pixels of the upright image, origin at the top left corner, x to the right, y down.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from saaa.client.attributions import Attribution, Node, Prediction
from saaa.client.numbers import floats, shortest

GraphSource = Literal["request", "proposed", "none"]


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
            "log_probability": shortest(self.log_probability),
            "node_weights": floats(self.node_weights),
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
            "log_probability": shortest(self.log_probability),
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
            "timings": {stage: shortest(value) for stage, value in self.timings.items()},
        }
