"""Who reads the metrics."""

from __future__ import annotations

import asyncio
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest

from serving.security.scopes import Scope
from serving.security.settings import SecuritySettings
from serving.security.tokens import create, revoke
from serving.server import Facade
from serving.telemetry.settings import TelemetrySettings
from tests.serving.pixel_backend import QUICK, PixelBackend


def read(address: str | None, authorization: str | None = None) -> int:
    """The status of the answer."""
    headers = {} if authorization is None else {"Authorization": authorization}
    try:
        with urllib.request.urlopen(urllib.request.Request(f"http://{address}/metrics", headers=headers)) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.parametrize("tokens", [False, True])
async def test_metrics_ask_for_a_token_where_tokens_are_set_up(tmp_path: Path, tokens: bool) -> None:
    path = tmp_path / "tokens.json"
    scraper, kept = create(path, "prometheus", [Scope.METRICS], days=None)
    other, _ = create(path, "kiosk", [Scope.ANALYZE, Scope.MODELS, Scope.FEEDBACK], days=None)
    security = SecuritySettings(tokens=path if tokens else None, poll_s=0)
    settings = replace(QUICK, security=security, telemetry=TelemetrySettings(metrics_port=0))
    async with Facade(PixelBackend(), settings) as facade:
        address = facade.metrics_address
        assert await asyncio.to_thread(read, address, f"Bearer {scraper}") == 200
        assert await asyncio.to_thread(read, address) == (401 if tokens else 200)
        assert await asyncio.to_thread(read, address, f"Bearer {other}") == (403 if tokens else 200)
        assert await asyncio.to_thread(read, address, "Bearer \xe9") == (401 if tokens else 200)
        revoke(path, kept.id)
        assert await asyncio.to_thread(read, address, f"Bearer {scraper}") == (401 if tokens else 200)
