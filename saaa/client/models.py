"""What a caller is told of a served model: frozen dataclasses, no protobuf."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from saaa.client.attributions import TargetKind

ModelKind = Literal["egdd", "ega"]


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
