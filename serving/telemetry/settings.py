"""What is told to operators, and where."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from saaa.errors import OptionInvalid

_LEVELS = ("debug", "info", "warning", "error")


def _require(condition: bool, name: str, rule: str) -> None:
    if not condition:
        raise OptionInvalid(f"The setting {name} must be {rule}.", field=name)


@dataclass(frozen=True, kw_only=True)
class TelemetrySettings:
    """All of it; the defaults tell nobody anything."""

    metrics_port: int | None = None
    """Port on which Prometheus reads metrics over HTTP, under /metrics; 0 picks a free one, None has none."""
    metrics_host: str = "127.0.0.1"
    """Address of that port. Where tokens are set up it asks for one, else it answers whoever asks, and it has no TLS:
    keep it where only the operator's machines reach it."""
    log_format: Literal["text", "json"] = "text"
    """How log lines look: for people, or one JSON object each."""
    log_level: Literal["debug", "info", "warning", "error"] = "warning"
    """The least that is logged; "info" has a line for each call."""
    journal: Path | None = None
    """File of what was asked and answered, without pixels (`.journal`), of this facade alone; None has none."""
    journal_max_bytes: int = 256 * 2**20
    """The file is put aside before it grows beyond this, in bytes."""
    journal_files: int = 16
    """Most files put aside, at least 1; the oldest is deleted."""
    traces: str | None = None
    """URL of an OpenTelemetry collector that takes OTLP over gRPC, such as http://127.0.0.1:4317; None traces nothing.
    Needs the extra `traces`."""
    traces_share: float = 1.0
    """Share of the calls that are traced, 0 to 1; a caller that brings a trace of its own decides itself."""

    def __post_init__(self) -> None:
        _require(self.metrics_port is None or 0 <= self.metrics_port <= 65535, "metrics_port", "0 to 65535")
        _require(bool(self.metrics_host), "metrics_host", "an address such as 127.0.0.1")
        _require(self.journal_max_bytes >= 1, "journal_max_bytes", "at least 1")
        _require(self.journal_files >= 1, "journal_files", "at least 1")
        _require(
            self.traces is None or self.traces.startswith(("http://", "https://")),
            "traces",
            "a URL such as http://127.0.0.1:4317",
        )
        _require(0 <= self.traces_share <= 1, "traces_share", "0 to 1")
        _require(self.log_format in ("text", "json"), "log_format", "text or json")
        _require(self.log_level in _LEVELS, "log_level", f"one of {', '.join(_LEVELS)}")
