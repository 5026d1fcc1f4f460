"""Log lines of a facade that works, read as a log collector reads them."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from saaa.errors import OptionInvalid
from saaa.v1 import analysis_pb2 as pb
from serving.telemetry.logs import MAX_TEXT, JsonFormatter, TextFormatter, set_up_logs
from serving.telemetry.settings import TelemetrySettings
from tests.serving.pixel_backend import QUICK, PixelBackend, calling, photo

INFO = TelemetrySettings(log_format="json", log_level="info")


class Lines:
    """What was logged."""

    def __init__(self, formatter: logging.Formatter) -> None:
        self.stream = io.StringIO()
        self.handler = logging.StreamHandler(self.stream)
        self.handler.setFormatter(formatter)

    @property
    def text(self) -> str:
        return self.stream.getvalue()

    @property
    def entries(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.text.splitlines()]


@pytest.fixture
def lines() -> Iterator[Lines]:
    """All of the root logger's, as JSON, from level info."""
    lines, root = Lines(JsonFormatter()), logging.getLogger()
    level = root.level
    root.addHandler(lines.handler)
    root.setLevel(logging.INFO)
    yield lines
    root.removeHandler(lines.handler)
    root.setLevel(level)


async def test_each_call_is_one_line_with_its_id_and_end_and_nothing_that_was_sent(lines: Lines) -> None:
    async with calling(PixelBackend(), replace(QUICK, telemetry=INFO)) as caller:
        metadata = (("x-request-id", "call-1"), ("authorization", "Bearer secret-token"))
        request = pb.AnalyzeRequest(image=photo(), outputs=[pb.OUTPUT_PREDICTIONS])
        await caller.stub.Analyze(request, metadata=metadata, timeout=20)
        with pytest.raises(grpc.aio.AioRpcError):
            await caller.analyze(image=b"no picture at all")
        await health_pb2_grpc.HealthStub(caller.channel).Check(health_pb2.HealthCheckRequest())
    calls = [entry for entry in lines.entries if entry["logger"] == "serving.calls"]
    assert [entry["code"] for entry in calls] == ["OK", "INVALID_ARGUMENT"]
    good = calls[0]
    assert good["request_id"] == "call-1"
    assert good["method"] == "/saaa.v1.AnalysisService/Analyze"
    assert good["level"] == "info"
    assert (good["received"], good["sent"]) == (1, 1)
    assert isinstance(good["seconds"], float)
    assert 0 < good["seconds"] < 60
    assert datetime.fromisoformat(str(good["time"])).tzinfo is not None
    assert "secret" not in lines.text
    assert "no picture at all" not in lines.text
    assert "PNG" not in lines.text


async def test_what_goes_wrong_inside_is_logged_with_the_call_and_its_stack(lines: Lines) -> None:
    backend = PixelBackend()
    backend.broken = ZeroDivisionError("secret")
    async with calling(backend) as caller:
        request = pb.AnalyzeRequest(image=photo(), outputs=[pb.OUTPUT_PREDICTIONS])
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await caller.stub.Analyze(request, metadata=(("x-request-id", "call-2"),), timeout=20)
    assert "secret" not in (failure.value.details() or "")
    (entry,) = [entry for entry in lines.entries if str(entry["message"]).startswith("incident")]
    assert entry["request_id"] == "call-2"
    assert "ZeroDivisionError: secret" in str(entry["error"])
    # The batch belongs to no one call.
    (batch,) = [entry for entry in lines.entries if "a batch of 1" in str(entry["message"])]
    assert "request_id" not in batch


async def test_no_line_for_a_call_unless_asked_for(lines: Lines) -> None:
    async with calling(PixelBackend()) as caller:
        await caller.analyze(outputs=[pb.OUTPUT_PREDICTIONS])
    assert not [entry for entry in lines.entries if entry["logger"] == "serving.calls"]


@pytest.mark.parametrize("formatter", [JsonFormatter(), TextFormatter()])
def test_a_message_is_one_line_of_bounded_length_whatever_it_holds(formatter: logging.Formatter) -> None:
    lines, logger = Lines(formatter), logging.Logger("some")
    logger.addHandler(lines.handler)
    logger.warning("two\nlines and %s", b"\x00\xff" * MAX_TEXT, extra={"fields": {"name": "a\nb"}})
    assert len(lines.text) < 2 * MAX_TEXT
    if isinstance(formatter, JsonFormatter):
        (entry,) = lines.entries
        assert entry["name"] == "a\nb"
        assert str(entry["message"]).startswith("two\nlines and b'")
    else:
        assert lines.text.startswith("WARNING some: two")
        assert "name='a\\nb'" in lines.text


def test_setting_up_replaces_what_was_there(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    try:
        set_up_logs(INFO)
        logging.getLogger("a.b").info("hello %d", 3)
        set_up_logs(TelemetrySettings())
        logging.getLogger("a.b").info("not said")
        logging.getLogger("a.b").warning("plain")
    finally:
        logging.basicConfig(handlers=before, level=level, force=True)
    first, second = capsys.readouterr().err.splitlines()
    entry = json.loads(first)
    assert (entry["level"], entry["logger"], entry["message"]) == ("info", "a.b", "hello 3")
    assert second == "WARNING a.b: plain"


def test_settings_are_checked() -> None:
    with pytest.raises(OptionInvalid, match="log_format must be text or json"):
        TelemetrySettings(log_format="xml")  # type: ignore[arg-type]
    with pytest.raises(OptionInvalid, match="log_level"):
        TelemetrySettings(log_level="loud")  # type: ignore[arg-type]
