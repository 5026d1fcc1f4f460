"""What a caller may do: a scope for each method that is served."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from saaa.errors import NotPermitted


class Scope(StrEnum):
    """One thing that a caller may be allowed to do."""

    ANALYZE = "analyze"
    """Ask for predictions, attributions and captions, and see what is served."""
    FEEDBACK = "feedback"
    """Record ratings."""
    MODELS = "models"
    """See what is served, and the contract by reflection."""
    METRICS = "metrics"
    """Read the metrics."""


_ANALYZE = frozenset({Scope.ANALYZE})
_SEE = frozenset({Scope.ANALYZE, Scope.MODELS})
_ANYBODY: frozenset[Scope] = frozenset()

METHODS: dict[str, frozenset[Scope]] = {
    "/saaa.v1.AnalysisService/Analyze": _ANALYZE,
    "/saaa.v1.AnalysisService/AnalyzeStream": _ANALYZE,
    "/saaa.v1.AnalysisService/AnalyzeUpload": _ANALYZE,
    "/saaa.v1.AnalysisService/ListModels": _SEE,
    "/saaa.v1.AnalysisService/GetModel": _SEE,
    "/saaa.v1.FeedbackService/RecordRating": frozenset({Scope.FEEDBACK}),
    # What orchestrators ask, who have no token: answers are states, and names must be known to be asked for.
    "/grpc.health.v1.Health/Check": _ANYBODY,
    "/grpc.health.v1.Health/Watch": _ANYBODY,
    "/grpc.health.v1.Health/List": _SEE,
    "/inference.GRPCInferenceService/ServerLive": _ANYBODY,
    "/inference.GRPCInferenceService/ServerReady": _ANYBODY,
    "/inference.GRPCInferenceService/ModelReady": _ANYBODY,
    "/inference.GRPCInferenceService/ServerMetadata": _SEE,
    "/inference.GRPCInferenceService/ModelMetadata": _SEE,
    "/inference.GRPCInferenceService/ModelInfer": _ANALYZE,
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo": _SEE,
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": _SEE,
}
"""The scopes of which one suffices; none at all: anybody, without a credential. What has no row is refused to all."""


def is_open(method: str) -> bool:
    """Whether anybody may call it: health and liveness."""
    return METHODS.get(method) == _ANYBODY


def check(method: str, scopes: Iterable[Scope]) -> None:
    """Refuse a call that the scopes do not cover.

    Args:
        method: full name, such as "/saaa.v1.AnalysisService/Analyze".
        scopes: of the caller.

    Raises:
        NotPermitted: none of them suffices.
    """
    wanted = METHODS.get(method)
    if wanted is None:
        raise NotPermitted("This method is not open to callers.")
    if wanted:
        require(wanted, scopes)


def require(wanted: Iterable[Scope], scopes: Iterable[Scope]) -> None:
    """Raises `NotPermitted` unless one of the wanted scopes is among them."""
    if set(wanted).isdisjoint(scopes):
        names = " or ".join(sorted(wanted))
        raise NotPermitted(f"This needs the scope {names}; ask the operator for a token that has it.")


def read_scopes(words: Iterable[str]) -> frozenset[Scope]:
    """The scopes among some words; others mean nothing here."""
    known = {scope.value: scope for scope in Scope}
    return frozenset(known[word] for word in words if word in known)
