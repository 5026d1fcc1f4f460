"""Log lines that a machine can read, each with the call it belongs to; no library but the standard one.

What callers send is not logged: no image, no metadata, no token. What is logged of a call is who called what, under
which id, how it ended and how long it took.
"""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any

from serving.interceptors.base import current_call
from serving.telemetry.settings import TelemetrySettings

MAX_TEXT = 8192
"""Longest message and longest stack trace of one line, in characters; what is longer is cut."""
FIELDS = "fields"
"""`extra={FIELDS: {...}}` brings fields of its own into a line."""


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (UTC), level, logger, message; of the current call request_id, method and caller;
    the record's own fields; error, the stack trace."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _cut(record.getMessage()),
        }
        entry |= _of_call() | getattr(record, FIELDS, {})
        if record.exc_info:
            entry["error"] = _cut(self.formatException(record.exc_info))
        return json.dumps(entry, ensure_ascii=True, default=str)


class TextFormatter(logging.Formatter):
    """For people: the message, then what is known of the call."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, and the lines of a stack trace."""
        known = _of_call() | getattr(record, FIELDS, {})
        # ascii() keeps a caller's words from starting a line of their own.
        details = "".join(
            f" {name}={value if isinstance(value, int | float) else ascii(value)}" for name, value in known.items()
        )
        line = f"{record.levelname} {record.name}: {_cut(record.getMessage())}{details}"
        return f"{line}\n{_cut(self.formatException(record.exc_info))}" if record.exc_info else line


def set_up_logs(settings: TelemetrySettings) -> None:
    """Send all logs of this process to standard error, as the settings say; replaces what was set up before."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if settings.log_format == "json" else TextFormatter())
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler], force=True)


def _of_call() -> dict[str, Any]:
    call = current_call()
    if call is None:
        return {}
    known = {"request_id": call.request_id, "method": call.method}
    return known | {"caller": call.caller} if call.caller else known


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}... ({len(text)} characters)"
