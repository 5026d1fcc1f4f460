"""What goes wrong with a call, as the caller sees it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import grpc
from google.protobuf.any_pb2 import Any
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]
from grpc_status import rpc_status


class RequestInvalid(ValueError):
    """A request that cannot even be put into a message; nothing was sent.

    Args:
        field: the argument or the path inside the graph, such as "graph.objects[2].w".
        message: what is wrong.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message


@dataclass(frozen=True)
class Violation:
    """One field of a request that the service refused, and what to do about it."""

    field: str
    description: str


class RpcFailed(Exception):
    """The service refused or failed a call, or could not be reached.

    Args:
        code: the gRPC status code.
        reason: the situation as an UPPER_SNAKE_CASE word to branch on, such as "IMAGE_REJECTED"; the code's
            name when the service gave none.
        message: a sentence for people.
        violations: the fields at fault, for INVALID_ARGUMENT.
        retry_after_s: seconds after which another attempt is sensible; None when the service did not say.
    """

    def __init__(
        self,
        code: grpc.StatusCode,
        reason: str,
        message: str,
        violations: tuple[Violation, ...] = (),
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(code, reason, message, violations, retry_after_s)
        self.code = code
        self.reason = reason
        self.message = message
        self.violations = violations
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        fields = "".join(f"\n  {violation.field}: {violation.description}" for violation in self.violations)
        retry = "" if self.retry_after_s is None else f" (retry after {self.retry_after_s:g} s)"
        return f"{self.code.name} {self.reason}: {self.message}{retry}{fields}"

    @classmethod
    def from_error(cls, error: grpc.RpcError) -> RpcFailed:
        """Read what gRPC raised, `google.rpc` details included."""
        code = error.code()
        return cls._read(code, error.details() or code.value[1], _details(error))

    @classmethod
    def from_status(cls, status: status_pb2.Status) -> RpcFailed:
        """Read a `google.rpc.Status`, as a stream gives it for an item."""
        code = _CODES.get(status.code, grpc.StatusCode.UNKNOWN)
        return cls._read(code, status.message or code.value[1], status.details)

    @classmethod
    def _read(cls, code: grpc.StatusCode, message: str, details: Iterable[Any]) -> RpcFailed:
        reason, violations, retry_after_s = code.name, [], None
        for detail in details:
            info, bad, retry = (
                error_details_pb2.ErrorInfo(),
                error_details_pb2.BadRequest(),
                error_details_pb2.RetryInfo(),
            )
            if detail.Unpack(info):
                reason = info.reason or reason
            elif detail.Unpack(bad):
                violations += [Violation(entry.field, entry.description) for entry in bad.field_violations]
            elif detail.Unpack(retry):
                retry_after_s = retry.retry_delay.ToTimedelta().total_seconds()
        return cls(code, reason, message, tuple(violations), retry_after_s)


_CODES = {code.value[0]: code for code in grpc.StatusCode}


def _details(error: grpc.RpcError) -> list[Any]:
    try:
        status = rpc_status.from_call(error)  # type: ignore[arg-type]
    except ValueError:  # The details contradict the status; the status counts.
        return []
    return list(status.details) if status else []
