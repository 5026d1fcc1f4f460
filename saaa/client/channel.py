"""How both clients talk: message sizes, retries, deadlines, health."""

from __future__ import annotations

import json

import grpc
from grpc_health.v1 import health_pb2

from saaa.client.convert import MAX_RESPONSE_BYTES
from saaa.client.errors import RpcFailed
from saaa.client.request import MAX_REQUEST_BYTES

SERVICE = "saaa.v1.AnalysisService"
DEFAULT_TIMEOUT_S = 60.0
POLL_S = 0.1

_RETRIED = {SERVICE: ("Analyze", "ListModels", "GetModel"), "saaa.v1.FeedbackService": ("RecordRating",)}
"""Methods that may be sent again: one message each, and asking twice does no harm (a rating carries its id)."""
_SERVICE_CONFIG = {
    "methodConfig": [
        {
            "name": [
                {"service": service, "method": method} for service, methods in _RETRIED.items() for method in methods
            ],
            # UNAVAILABLE alone: whatever else comes back would come back again. When the server names a delay, or
            # forbids another attempt (grpc-retry-pushback-ms), gRPC follows it.
            "retryPolicy": {
                "maxAttempts": 3,
                "initialBackoff": "0.2s",
                "maxBackoff": "2s",
                "backoffMultiplier": 3,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
    # A service that fails most calls is not asked thrice as often: a failure costs a token, ten answers earn one, and
    # below half of them nothing is sent again.
    "retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1},
}
CHANNEL_OPTIONS = (
    ("grpc.max_send_message_length", MAX_REQUEST_BYTES),
    ("grpc.max_receive_message_length", MAX_RESPONSE_BYTES),
    ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
    # By default a request above 256 KiB, so most photographs, would not be kept for another attempt.
    ("grpc.per_rpc_retry_buffer_size", MAX_REQUEST_BYTES),
)
_NOT_YET = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.DEADLINE_EXCEEDED)
"""Codes of a health check that mean "ask again": not listening, not registered, too slow."""


def positive(seconds: float) -> float:
    """The timeout itself; raises ValueError unless it is more than 0."""
    if not seconds > 0:
        raise ValueError(f"a timeout must be more than 0 seconds, not {seconds}")
    return seconds


def health_state(response: health_pb2.HealthCheckResponse) -> str:
    """The answer to a health check as a word, such as "SERVING"."""
    return health_pb2.HealthCheckResponse.ServingStatus.Name(response.status)


def still_waiting(failure: RpcFailed) -> str:
    """What a failed health check says of the state; raises it when waiting cannot help."""
    if failure.code not in _NOT_YET:
        raise failure
    return f"{failure.code.name}: {failure.message}"


def not_ready(service: str, timeout: float, state: str) -> RpcFailed:
    """The error of a wait that was in vain."""
    message = f"{service or 'the server'} is not ready after {timeout:g} s ({state})"
    return RpcFailed(grpc.StatusCode.UNAVAILABLE, "NOT_READY", message)
