"""What the facade can be told: frozen, checked when made, every figure with its unit."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from saaa.errors import OptionInvalid
from saaa.images import MAX_IMAGE_BYTES, MAX_IMAGE_PIXELS
from serving.backends.care import CareSettings
from serving.security.settings import SecuritySettings
from serving.telemetry.settings import TelemetrySettings


def _require(condition: bool, name: str, rule: str) -> None:
    if not condition:
        raise OptionInvalid(f"The setting {name} must be {rule}.", field=name)


@dataclass(frozen=True, kw_only=True)
class LaneSettings:
    """One lane: how it gathers batches, and how much work it lets wait."""

    max_batch: int = 8
    """Most items in one batch, at least 1."""
    max_in_flight: int = 1
    """Most batches at the backend at once, at least 1."""
    max_batch_s: float = 1.0
    """A batch stops growing where its estimated time passes this, in seconds; it bounds how long others wait for it."""
    max_wait_s: float = 60.0
    """Work that would wait longer than this is refused whatever the caller's deadline, in seconds."""
    max_waiting: int = 512
    """Most items waiting: bounds memory where the estimate is tiny, at least 1."""
    ageing: float = 0.1
    """Work of batch priority gets so many seconds for each second of interactive work that goes before it while it
    waits, above 0; besides it gets all that is left."""
    first_estimate_s: float = 0.1
    """Assumed time of one forward pass before the first measurement, in seconds."""
    batch_timeout_s: float = 120.0
    """A batch that the backend has not answered after this is given up, in seconds."""
    overdue_s: float = 30.0
    """Where a batch's time is known, it is given up after `overdue_factor` times as long, but not before this, in
    seconds: a worker that hangs is noticed soon."""
    overdue_factor: float = 20.0
    """See `overdue_s`; at least 1."""

    def __post_init__(self) -> None:
        for name in ("max_batch", "max_in_flight", "max_waiting"):
            _require(getattr(self, name) >= 1, name, "at least 1")
        for name in ("max_batch_s", "max_wait_s", "first_estimate_s", "batch_timeout_s", "overdue_s"):
            _require(getattr(self, name) > 0, name, "above 0 seconds")
        _require(self.ageing > 0, "ageing", "above 0")
        _require(self.overdue_factor >= 1, "overdue_factor", "at least 1")


@dataclass(frozen=True, kw_only=True)
class RequestLimits:
    """The bounds of one request; GetModel publishes them."""

    max_image_bytes: int = MAX_IMAGE_BYTES
    """Largest encoded image of one message, in bytes."""
    max_upload_bytes: int = 64 * 2**20
    """Largest encoded image of an upload, in bytes."""
    max_stream_in_flight: int = 16
    """Most items of one stream, and images of one inference request, at work at once."""
    max_image_pixels: int = MAX_IMAGE_PIXELS
    """Largest decoded image in pixels, width x height."""
    max_graph_nodes: int = 100
    """Most objects, attributes and relationships of a graph together."""
    max_targets: int = 16
    """Most classes, words and nodes listed for explanation in one request."""
    max_cost_forwards: int = 1200
    """Most attribution work of one request, in forward passes of one image."""
    max_top_k: int = 1000
    """Most classes returned."""
    max_steps: int = 64
    """Most integration steps."""
    max_masks: int = 8000
    """Most random masks or coalitions."""
    max_beam_width: int = 10
    """Widest beam."""
    max_words: int = 50
    """Longest caption that may be asked for."""
    max_request_id: int = 128
    """Longest request id in characters."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            _require(value >= 1, name, "at least 1")


def _explain_lane() -> LaneSettings:
    return LaneSettings(max_batch=4, first_estimate_s=0.2)


@dataclass(frozen=True, kw_only=True)
class FacadeSettings:
    """The facade as a whole."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = 50051
    """Port to listen on; 0 picks a free one."""
    predict: LaneSettings = field(default_factory=lambda: LaneSettings(max_in_flight=2))
    """The lane of class predictions."""
    explain: LaneSettings = field(default_factory=_explain_lane)
    """The lane of attributions. One short batch at a time, so that predictions never wait for more than that."""
    caption: LaneSettings = field(default_factory=_explain_lane)
    """The lane of captions."""
    limits: RequestLimits = field(default_factory=RequestLimits)
    """The bounds of one request."""
    care: CareSettings = field(default_factory=CareSettings)
    """How the models are watched."""
    security: Annotated[SecuritySettings, tyro.conf.arg(name="")] = field(default_factory=SecuritySettings)
    """Transport, credentials and limits of one caller."""
    telemetry: Annotated[TelemetrySettings, tyro.conf.arg(name="")] = field(default_factory=TelemetrySettings)
    """Metrics, traces, logs and the journal."""
    cache_bytes: int = 0
    """Most memory for answers that are kept for the same question of the same caller, in bytes; 0 keeps none."""
    decode_threads: int = 2
    """Threads that decode images, at least 1."""
    default_deadline_s: float = 60.0
    """Time for a call that brings no deadline, in seconds; a stream without one has no end. The message of any other
    call must be there within it."""
    max_deadline_s: float = 600.0
    """Longest time for any answer, in seconds."""
    max_uploads: int = 4
    """Uploads taken in at once; others wait before their first chunk is read. It bounds the memory for uploads."""
    probe_interval_s: float = 2.0
    """Seconds between two looks at the backend."""
    probe_timeout_s: float = 10.0
    """Seconds after which a silent backend counts as down."""
    describe_timeout_s: float = 30.0
    """Seconds that the backend gets to describe its models; a busy worker answers after its batch."""
    leave_s: float = 1.0
    """Seconds between saying NOT_SERVING and refusing new calls when the facade stops; enough for balancers that watch
    its health. Those that ask now and then need their own period."""
    drain_s: float = 20.0
    """Seconds that running calls then get to finish."""
    max_message_bytes: int = 32 * 1024 * 1024
    """Largest gRPC message taken or sent, in bytes. Above the image limit, so that a slightly too large image gets
    a clear answer instead of gRPC's own."""
    health_port: int | None = None
    """Port on which health, and nothing else, is answered in plain text, for probes that speak no TLS; 0 picks a free
    one, None has none. The service "alive" there, and on the main port, is the process's alone."""
    health_host: str = "127.0.0.1"
    """Address of that port. It tells states of names that one must know, as the main port does to anybody."""
    reflection: bool = True
    """Whether gRPC server reflection answers."""
    ratings: str | Path | None = field(default=None, repr=False)
    """What keeps people's ratings of explanations: an SQLite file, made when absent, or a URL of PostgreSQL
    (postgresql://USER@HOST/DATABASE; the password better in PGPASSWORD); None keeps none."""

    def __post_init__(self) -> None:
        _require(bool(self.host), "host", "an address such as 127.0.0.1")
        self.security.check_host(self.host)
        _require(0 <= self.port <= 65535, "port", "0 to 65535")
        _require(self.health_port is None or 0 <= self.health_port <= 65535, "health_port", "0 to 65535")
        _require(bool(self.health_host), "health_host", "an address such as 127.0.0.1")
        _require(self.cache_bytes >= 0, "cache_bytes", "at least 0 bytes")
        _require(self.decode_threads >= 1, "decode_threads", "at least 1")
        _require(self.max_uploads >= 1, "max_uploads", "at least 1")
        for name in (
            "default_deadline_s",
            "max_deadline_s",
            "probe_interval_s",
            "probe_timeout_s",
            "describe_timeout_s",
        ):
            _require(getattr(self, name) > 0, name, "above 0 seconds")
        for name in ("leave_s", "drain_s"):
            _require(getattr(self, name) >= 0, name, "at least 0 seconds")
        _require(
            self.max_message_bytes > self.limits.max_image_bytes,
            "max_message_bytes",
            f"above max_image_bytes ({self.limits.max_image_bytes})",
        )

    def timeout(self, remaining: float | None, *, unset: float | None = None) -> float:
        """Seconds that an answer may take.

        Args:
            remaining: of the caller's deadline; None when there is none.
            unset: what a call without a deadline gets; None is `default_deadline_s`.
        """
        if remaining is None:
            remaining = self.default_deadline_s if unset is None else unset
        return min(remaining, self.max_deadline_s)
