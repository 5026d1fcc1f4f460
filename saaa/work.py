"""What crosses the seam between the facade and a model: batches of work in, one result an item out.

Plain dataclasses and NumPy arrays: no torch, no protobuf (`saaa.wire` packs them into bytes). The facade makes a
`WorkBatch`, a backend runs it (`saaa.runtime.executor` computes) and gives one `ItemResult` an item, in order.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from saaa.scene_graph import RoleGraph

AUTO_METHOD = "auto"
REGION_METHOD = "region_shapley"
"""The method that removes the objects of the item's graph, as effects do."""
TEMPERATURES = (0.01, 10.0)
"""The range of `Sampling.temperature`."""
MAX_LENGTH_PENALTY = 5.0
DECODE_SCALES = (2, 4, 8)
"""By what a JPEG can be reduced while it is decoded."""
DELETION_SHARE = 0.1
"""Share of the input that is removed to measure a map's deletion drop."""


class Work(enum.Enum):
    """One kind of work; the facade has one lane for each."""

    PREDICT = "predict"
    """Class probabilities only."""
    EXPLAIN = "explain"
    """Class probabilities and attribution maps, from one shared forward."""
    CAPTION = "caption"
    """Captions guided by a graph."""


class TargetKind(enum.Enum):
    """What a map explains."""

    CLASS = "class"
    """A class of the classifier."""
    WORD = "word"
    """A word of a caption."""
    NODE = "node"
    """A node of the graph that guides a caption: the caption's words, weighted by their attention to the node."""


@dataclass(frozen=True, kw_only=True)
class ExplainOptions:
    """How to attribute; the same for a whole batch. Each method reads the options that concern it."""

    method: str = AUTO_METHOD
    """Name in the attribution registry, or "auto" for the model's default."""
    steps: int = 16
    """integrated_gradients: integration steps, 1 to 64."""
    gamma: float = 0.0
    """layer_lrp, cp_lrp, attn_lrp: weight of the gamma rule in linear layers, 0 to 1; 0 is the epsilon rule."""
    masks: int = 500
    """rise: random masks, 1 to 8000. region_shapley above its exact limit: coalitions sampled."""
    seed: int = 0
    """Of whatever is drawn at random, at least 0."""
    deletion: bool = False
    """Also measure how far the target's probability drops when the map's top tenth is removed; one more forward."""
    effects: bool = False
    """Also measure the effect of each node of the item's graph on the target."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How captions are drawn; see `saaa.models.captioner.sample`."""

    temperature: float = 1.0
    """Less than 1 prefers likely words more; 0.01 to 10."""
    top_k: int | None = None
    """Among so many likeliest words, at least 1; None is all."""
    top_p: float = 1.0
    """Then among the fewest likeliest words that have this share of the probability, above 0 to 1."""
    seed: int = 0
    """0 to 2**64 - 1."""


@dataclass(frozen=True, kw_only=True)
class CaptionOptions:
    """How to decode; the same for a whole batch."""

    beam_width: int = 3
    """1 is greedy; 1 to 10. Not read when captions are drawn."""
    count: int = 1
    """Captions an item, best first; 1 to beam_width, or 1 to 10 when they are drawn."""
    max_words: int | None = None
    """Longest caption in words, 1 to 50; None is the captioner's own limit."""
    length_penalty: float = 0.0
    """How much longer captions are favoured, 0 to 5; see `saaa.models.captioner.search`."""
    sampling: Sampling | None = None
    """How to draw captions; None is to search for the most probable ones."""


@dataclass(frozen=True, kw_only=True)
class WorkItem:
    """What is wanted of one image of a batch."""

    targets: tuple[int, ...] = ()
    """EXPLAIN: the class indices to explain, one map each; empty is the most probable class."""
    graph: RoleGraph | None = None
    """Boxes in pixels of the model's input. CAPTION: the graph that guides. EXPLAIN: the regions of region_shapley and
    of `ExplainOptions.effects`; otherwise not needed."""
    text: tuple[str, ...] | None = None
    """CAPTION: the words of a caption to score and explain; None is to make one."""
    words: tuple[int, ...] = ()
    """CAPTION: the words of the best caption to explain, by their place, one map each."""
    every_word: bool = False
    """CAPTION: explain all words of the best caption; `words` is empty then."""
    nodes: tuple[int, ...] = ()
    """CAPTION: the graph's nodes to explain, by their place, one map each, after those of the words."""


@dataclass(frozen=True, kw_only=True)
class WorkBatch:
    """Several images that share model, kind of work and options.

    `pixels` is uint8, (items, size, size, 3), RGB, at the model's input size (`saaa.images.fit` makes it).
    """

    model: str
    version: str
    work: Work
    pixels: NDArray[np.uint8]
    items: tuple[WorkItem, ...]
    explain: ExplainOptions = field(default_factory=ExplainOptions)
    caption: CaptionOptions = field(default_factory=CaptionOptions)


def join_pixels(images: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Put the images of a batch together, uint8 (images, S, S, 3), copied once: into the bytes that
    `saaa.wire.pack_batch` gives.

    Args:
        images: uint8 (S, S, 3) each, at least one.
    """
    if len(images) == 1:
        return images[0][None]
    joined = b"".join([np.ascontiguousarray(image).data for image in images])
    return np.frombuffer(joined, np.uint8).reshape(len(images), *images[0].shape)


@dataclass(frozen=True, kw_only=True)
class AttributionMap:
    """A map for one target at the method's native resolution."""

    target: int
    """Class index, or place of the word in its caption, or of the node in its graph."""
    kind: TargetKind = TargetKind.CLASS
    method: str
    """The method used, never "auto"."""
    values: NDArray[np.float32]
    """(rows, columns), covering the whole model input evenly; larger speaks more for the target."""
    completeness_gap: float | None = None
    """Methods whose map should sum to a known difference: |sum - difference| / |difference|, 0 is exact."""
    deletion_drop: float | None = None
    """With `ExplainOptions.deletion`: the target's probability minus what is left of it once the tenth of the input
    with the largest values is the neutral colour, in [-1, 1]."""
    node_weights: NDArray[np.float32] | None = None
    """WORD and NODE: (nodes,), how much each node of the graph speaks for the target, by the same method."""
    effects: NDArray[np.float32] | None = None
    """With `ExplainOptions.effects`: (nodes,), in units of the target's logit; `saaa.concepts.effect_definition` names
    what each is."""


@dataclass(frozen=True, kw_only=True)
class CaptionResult:
    """One caption; the arrays run over its words, without the end marker."""

    words: tuple[str, ...]
    log_probabilities: NDArray[np.float32]
    """(words,), natural logarithm."""
    node_weights: NDArray[np.float32]
    """(words, nodes of the role graph); rows sum to 1."""
    log_probability: float
    """Of the whole caption, end marker included; at most 0."""


@dataclass(frozen=True, kw_only=True)
class ItemError:
    """Why one item of a batch failed; the others are unaffected."""

    reason: str
    """`SaaaError.reason`, or "INTERNAL" for an unforeseen failure."""
    message: str
    """Safe to show to the caller."""
    field: str = ""


@dataclass(frozen=True, kw_only=True)
class ItemResult:
    """What the model says of one item. Exactly one of `error` and the answers is set."""

    error: ItemError | None = None
    probabilities: NDArray[np.float32] | None = None
    """(classes,), PREDICT and EXPLAIN; sums to 1."""
    maps: tuple[AttributionMap, ...] = ()
    """EXPLAIN, and CAPTION with words or nodes to explain: one a target, in order."""
    captions: tuple[CaptionResult, ...] = ()
    """CAPTION: best first."""
    recomputed: bool = False
    """Whether the runtime's answer was not finite, so that torch computed this one."""


class ModelKind(enum.Enum):
    """What an archive is for."""

    EGDD = "egdd"
    EGA = "ega"


@dataclass(frozen=True, kw_only=True)
class MethodInfo:
    """One attribution method as a model offers it."""

    name: str
    cost_forwards: float
    """For one target, in forward passes of one image."""
    reference: str
    """The paper it comes from."""
    targets: tuple[TargetKind, ...] = (TargetKind.CLASS,)
    """What it can explain in this model."""


@dataclass(frozen=True, kw_only=True)
class Execution:
    """What a worker computes a model with."""

    runtime: str
    """"torch", the reference; "openvino", which leaves to torch what is not in the archive's graph."""
    precision: str
    """Of the runtime's arithmetic: "fp32" or "bf16"."""
    refused: str = ""
    """Why what is faster, or was asked for, is not used; "" where nothing was refused."""


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """What a served model says of itself; made from its archive."""

    name: str
    version: str
    kind: ModelKind
    digest: str
    """SHA-256 of the archive's SHA256SUMS member, 64 hexadecimal digits."""
    input_size: int
    """Width and height of the input in pixels."""
    resize: str = "squash"
    """How an image becomes the input: a mode of `saaa.images.fit`, "squash" or "crop"."""
    crop_fraction: float = 1.0
    """For "crop": input_size / length of the shorter side after resizing, in (0, 1]."""
    decode_scales: tuple[int, ...] = ()
    """Those of `DECODE_SCALES` by which JPEGs may be reduced while they are decoded; see `saaa.fitting`."""
    decode_margin: float = 1.0
    """How many pixels must be left for each of the input's then, at least 1."""
    classes: tuple[str, ...] = ()
    vocabulary_size: int = 0
    max_nodes: int = 0
    """EGA: the most graph nodes that guide a caption."""
    max_words: int = 0
    """EGA: the longest caption."""
    methods: tuple[MethodInfo, ...] = ()
    """The attribution methods that the model supports, its default first."""
    runtime: str = field(default="", compare=False)
    """What computes it: `saaa.runtime.fingerprint`; empty where it only lies in its archive."""
    execution: Execution | None = field(default=None, compare=False)
    """None where `runtime` is empty."""
    card_json: str = "{}"
