"""The one place where errors become gRPC statuses with `google.rpc` details."""

from __future__ import annotations

import logging
import secrets

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

from saaa import errors
from saaa.errors import RetryLater, SaaaError
from serving.requests import RequestInvalid

log = logging.getLogger(__name__)

DOMAIN = "saaa"
"""`google.rpc.ErrorInfo.domain` of every error of this service."""
INTERNAL_REASON = "INTERNAL"
"""`ErrorInfo.reason` of a failure that nobody foresaw."""

CODES: dict[type[SaaaError], grpc.StatusCode] = {
    errors.InvalidInput: grpc.StatusCode.INVALID_ARGUMENT,
    errors.AttributionFailed: grpc.StatusCode.INTERNAL,
    errors.ModelNotFound: grpc.StatusCode.NOT_FOUND,
    errors.RetryLater: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    errors.NotPermitted: grpc.StatusCode.PERMISSION_DENIED,
    errors.DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.BackendUnavailable: grpc.StatusCode.UNAVAILABLE,
    errors.BackendFailed: grpc.StatusCode.INTERNAL,
    # Faults of what is served, not of the request; a caller cannot mend them.
    errors.ArchiveError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.DataError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.CheckpointError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.TrainingDiverged: grpc.StatusCode.FAILED_PRECONDITION,
    errors.GeneratorFailed: grpc.StatusCode.UNAVAILABLE,
    errors.StartFailed: grpc.StatusCode.UNAVAILABLE,
    errors.NotEnabled: grpc.StatusCode.UNIMPLEMENTED,
    errors.RatingConflict: grpc.StatusCode.ALREADY_EXISTS,
    errors.RatingsUnavailable: grpc.StatusCode.UNAVAILABLE,
}
"""The code of each situation; a class without its own row takes that of its nearest ancestor."""


def code_of(kind: type[SaaaError]) -> grpc.StatusCode:
    """The gRPC code of an error class.

    Raises:
        KeyError: the class has no row in `CODES`; the tests see to it that there is none.
    """
    for ancestor in kind.__mro__:
        if ancestor in CODES:
            return CODES[ancestor]
    raise KeyError(kind)


def to_status(error: SaaaError) -> status_pb2.Status:
    """The error as `google.rpc.Status`: ErrorInfo always, BadRequest when fields are at fault, RetryInfo when it helps
    to come back."""
    parts = error.violations if isinstance(error, RequestInvalid) else (error,)
    details: list[Message] = [error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN)]
    violations = [
        error_details_pb2.BadRequest.FieldViolation(field=part.field, description=part.message, reason=part.reason)
        for part in parts
        if part.field
    ]
    if violations:
        details.append(error_details_pb2.BadRequest(field_violations=violations))
    if isinstance(error, RetryLater):
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(max(0, round(error.retry_after_s * 1000)))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    return _status(code_of(type(error)), error.message, details)


def unforeseen(error: Exception) -> status_pb2.Status:
    """An opaque status for a failure that nobody foresaw; the log has the whole story under the same id."""
    incident = secrets.token_hex(8)
    log.error("incident %s", incident, exc_info=error)
    info = error_details_pb2.ErrorInfo(reason=INTERNAL_REASON, domain=DOMAIN, metadata={"incident": incident})
    return _status(
        grpc.StatusCode.INTERNAL,
        f"Something went wrong inside the service; the operator's log has it as {incident}.",
        [info],
    )


def _status(code: grpc.StatusCode, message: str, details: list[Message]) -> status_pb2.Status:
    packed = []
    for detail in details:
        packed.append(any_pb2.Any())
        packed[-1].Pack(detail)
    return status_pb2.Status(code=code.value[0], message=message, details=packed)
