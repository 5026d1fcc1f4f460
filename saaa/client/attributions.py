"""Attributions and what they are of: frozen dataclasses and NumPy arrays, no protobuf.

Coordinates are pixels of the upright image, origin at the top left corner, x to the right, y down.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from saaa.client.numbers import floats, maybe, shortest

NodeKind = Literal["object", "attribute", "relationship"]
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
        return {"label": self.label, "index": self.index, "probability": shortest(self.probability)}


@dataclass(frozen=True, kw_only=True)
class Region:
    """A rectangle with fractional edges, in pixels."""

    x: float
    y: float
    width: float
    height: float

    def to_json(self) -> dict[str, float]:
        return {
            "x": shortest(self.x),
            "y": shortest(self.y),
            "width": shortest(self.width),
            "height": shortest(self.height),
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
            "mass": shortest(self.mass),
            "density": shortest(self.density),
            "score": shortest(self.score),
            "score_definition": self.score_definition,
            "effect": maybe(self.effect),
            "effect_definition": self.effect_definition,
            "gap_mass": maybe(self.gap_mass),
            "weaker_mass": maybe(self.weaker_mass),
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
        return {"measure": self.measure, "value": maybe(self.value)}


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
            target["target_probability"] = shortest(self.target.probability)
        return {
            **target,
            "method": self.method,
            "grid": floats(self.grid),
            "region": self.region.to_json(),
            "concepts": [concept.to_json() for concept in self.concepts],
            "node_weights": floats(self.node_weights),
            "faithfulness": [entry.to_json() for entry in self.faithfulness],
            "concept_agreement": maybe(self.concept_agreement),
        }
