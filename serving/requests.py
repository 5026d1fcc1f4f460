"""What is asked and what is answered, in plain dataclasses: protobuf stops at `serving.contract.convert`."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field

from saaa.concepts import ConceptScore
from saaa.errors import InvalidInput, SaaaError
from saaa.scene_graph import Node, NodeKind, SceneGraph
from saaa.work import AUTO_METHOD, AttributionMap, CaptionOptions, CaptionResult, ExplainOptions, ModelInfo
from serving.lanes.fairness import Priority
from serving.observer import Seat


class RequestInvalid(InvalidInput):
    """Several faults of one request, told together.

    Args:
        violations: every fault found, at least one.
    """

    def __init__(self, violations: Sequence[SaaaError]) -> None:
        super().__init__(" ".join(_sentence(violation) for violation in violations))
        self.violations = tuple(violations)


def _sentence(violation: SaaaError) -> str:
    text = f"{violation.field}: {violation.message}" if violation.field else violation.message
    return text if text.endswith((".", "!", "?")) else f"{text}."


class Output(enum.Enum):
    """One kind of answer."""

    PREDICTIONS = "predictions"
    ATTRIBUTIONS = "attributions"
    CAPTIONS = "captions"


class GraphSource(enum.Enum):
    """Where a scene graph comes from."""

    REQUEST = "request"
    PROPOSED = "proposed"


@dataclass(frozen=True, kw_only=True)
class Selector:
    """Names a model; an empty version is the highest."""

    name: str
    version: str = ""


NodeKey = tuple[NodeKind, int, int]
"""Kind, id and attribute index of a node: what names it inside its graph."""


@dataclass(frozen=True, kw_only=True)
class CaptionTargets:
    """What to explain of the best caption."""

    words: tuple[int, ...] = ()
    """Places in the caption, 0-based."""
    every_word: bool = False
    nodes: tuple[NodeKey, ...] = ()
    """Of the request's graph."""
    method: str = AUTO_METHOD

    def __bool__(self) -> bool:
        """Whether anything is to be explained."""
        return bool(self.words or self.every_word or self.nodes)


@dataclass(frozen=True, kw_only=True)
class AnalysisRequest:
    """One image and what is wanted of it, as far as it can be read without knowing the models."""

    image: bytes
    graph: SceneGraph | None = None
    outputs: frozenset[Output] = frozenset()
    """Empty: all that the served models can give."""
    top_k: int | None = 5
    """Most classes to tell, best first; None is all."""
    explain: ExplainOptions = field(default_factory=ExplainOptions)
    classes: tuple[str, ...] = ()
    """Class names or decimal indices to explain; empty is the most probable class."""
    caption: CaptionOptions = field(default_factory=CaptionOptions)
    text: tuple[str, ...] | None = None
    """The words of a caption to score and explain; None is to make one."""
    caption_targets: CaptionTargets = field(default_factory=CaptionTargets)
    classifier: Selector | None = None
    captioner: Selector | None = None
    priority: Priority = Priority.INTERACTIVE
    request_id: str = ""
    uploaded: bool = False
    """Whether the image came in pieces: it may be larger then."""
    violations: tuple[InvalidInput, ...] = ()
    """Faults met while reading; told together with those that the models' limits show."""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """One class with its probability."""

    label: str
    index: int
    probability: float


@dataclass(frozen=True, kw_only=True)
class Word:
    """A word of the best caption, by its place."""

    index: int
    text: str


@dataclass(frozen=True, kw_only=True)
class Attribution:
    """One map with its place in the image."""

    target: Prediction | Word | Node
    map: AttributionMap
    region: tuple[float, float, float, float]
    """x, y, width, height in pixels of the upright image."""
    concepts: tuple[ConceptScore, ...] = ()
    concept_agreement: float | None = None
    """`saaa.concepts.concept_agreement` of `concepts`."""


@dataclass(frozen=True, kw_only=True)
class ModelUse:
    """A model that took part, and with which parameters."""

    info: ModelInfo
    parameters: dict[str, str]
    seat: Seat | None = None
    """Where it was computed."""


@dataclass(frozen=True, kw_only=True)
class AnalysisResult:
    """What the models say of one image."""

    request_id: str
    image_size: tuple[int, int]
    """Width and height of the upright image in pixels."""
    image_sha256: str
    backend: str
    software_version: str
    cached: bool = False
    """Whether it was computed for another request."""
    predictions: tuple[Prediction, ...] = ()
    attributions: tuple[Attribution, ...] = ()
    captions: tuple[CaptionResult, ...] = ()
    graph: SceneGraph | None = None
    graph_source: GraphSource | None = None
    caption_nodes: tuple[Node, ...] = ()
    classifier: ModelUse | None = None
    captioner: ModelUse | None = None
    timings: dict[str, float] = field(default_factory=dict)
    """Seconds by stage, in the order in which the stages ended."""
