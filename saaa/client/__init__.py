"""The Python client: `Client` and `AsyncClient` for a saaa facade, results as dataclasses and NumPy arrays.

Needs only grpc, NumPy and the generated stubs; nothing else of saaa is imported until an overlay is drawn.
"""

from saaa.client.aio import AsyncClient
from saaa.client.attributions import Attribution, Concept, Faithfulness, Node, Prediction, Region, WordTarget
from saaa.client.client import Client
from saaa.client.credentials import tls
from saaa.client.errors import RequestInvalid, RpcFailed, Violation
from saaa.client.many import Item, Outcome
from saaa.client.models import AttributionMethod, Execution, Limits, Model
from saaa.client.rating import RecordedRating, RelevanceRating
from saaa.client.request import AnalyzeOptions, SamplingOptions
from saaa.client.results import (
    Analysis,
    Caption,
    CaptionWord,
    Graph,
    GraphObject,
    GraphRelationship,
    ModelProvenance,
    Provenance,
)

__all__ = [
    "Analysis",
    "AnalyzeOptions",
    "AsyncClient",
    "Attribution",
    "AttributionMethod",
    "Caption",
    "CaptionWord",
    "Client",
    "Concept",
    "Execution",
    "Faithfulness",
    "Graph",
    "GraphObject",
    "GraphRelationship",
    "Item",
    "Limits",
    "Model",
    "ModelProvenance",
    "Node",
    "Outcome",
    "Prediction",
    "Provenance",
    "RecordedRating",
    "Region",
    "RelevanceRating",
    "RequestInvalid",
    "RpcFailed",
    "SamplingOptions",
    "Violation",
    "WordTarget",
    "tls",
]
