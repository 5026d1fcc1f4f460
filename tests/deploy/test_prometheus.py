"""Debian's real Prometheus, with our rules, scrapes a facade that works: every expression of ours finds something."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import subprocess
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml

from deploy.check.manifests import Object
from deploy.check.tools import tool
from deploy.generate import MONITORING
from saaa.errors import BackendFailed
from saaa.v1 import analysis_pb2 as pb
from saaa.v1 import feedback_pb2_grpc
from saaa.work import Execution, ItemResult, WorkBatch
from serving.settings import FacadeSettings
from serving.telemetry.settings import TelemetrySettings
from tests.deploy.conftest import tools_needed
from tests.serving.contract.test_feedback import request
from tests.serving.pixel_backend import CAPTIONER, CLASSIFIER, QUICK, Caller, PixelBackend, calling, photo, plain

EVERYTHING = [pb.OUTPUT_PREDICTIONS, pb.OUTPUT_ATTRIBUTIONS, pb.OUTPUT_CAPTIONS]
PATIENT = 120.0


class Unsteady(PixelBackend):
    """Fails now and then, as backends do, and has torch compute everything again."""

    def __init__(self) -> None:
        execution = Execution(runtime="torch", precision="fp32", refused="openvino is not usable here")
        super().__init__(*(replace(info, execution=execution) for info in (CLASSIFIER, CAPTIONER)))

    async def run(self, batch: WorkBatch, *, timeout: float) -> list[ItemResult]:
        return [replace(result, recomputed=True) for result in await super().run(batch, timeout=timeout)]

    async def fail_once(self, caller: Caller) -> None:
        self.broken = BackendFailed("no")
        with pytest.raises(grpc.aio.AioRpcError):
            await caller.analyze(photo((7, 7, 7)), outputs=[pb.OUTPUT_PREDICTIONS])
        self.broken = None


async def load(backend: Unsteady, caller: Caller) -> None:
    """A little of everything that is counted, again and again."""
    feedback = feedback_pb2_grpc.FeedbackServiceStub(caller.channel)
    number = 0
    while True:
        number += 1
        colour = [(200, 30, 30 + number % 99), (30, 200, 30 + number % 99)][number % 2]
        # The second of them finds the answer of the first.
        for _ in range(2):
            await caller.analyze(photo(colour), outputs=EVERYTHING)
        rating = request(f"rating {number}")
        rating.relevance.relevance = 1 + number % 5
        await feedback.RecordRating(rating)
        with pytest.raises(grpc.aio.AioRpcError):
            await caller.analyze(plain((255, 255, 255)), outputs=[pb.OUTPUT_PREDICTIONS])
        await backend.fail_once(caller)
        await shed(backend, caller)
        await asyncio.sleep(0.1)


async def shed(backend: PixelBackend, caller: Caller) -> None:
    """Refused for want of time, and given up while it waits."""
    backend.seconds = 0.3
    running = [asyncio.create_task(caller.analyze(photo((9, 9, n)), outputs=EVERYTHING[:1])) for n in range(3)]
    await asyncio.sleep(0.1)
    left = asyncio.create_task(caller.analyze(photo((8, 8, 8)), outputs=EVERYTHING[:1]))
    await asyncio.sleep(0.05)
    left.cancel()
    with pytest.raises(grpc.aio.AioRpcError):
        await caller.analyze(photo((6, 6, 6)), outputs=EVERYTHING[:1], timeout=0.02)
    await asyncio.gather(left, *running, return_exceptions=True)
    backend.seconds = 0.0


class Prometheus:
    """A running one."""

    def __init__(self, address: str) -> None:
        self._address = address

    async def ask(self, path: str, **values: str) -> Any:
        url = f"{self._address}/{path}?{urllib.parse.urlencode(values)}"

        def get() -> Any:
            with urllib.request.urlopen(url, timeout=30) as answer:
                return json.load(answer)

        return await asyncio.to_thread(get)

    async def samples(self, expression: str) -> list[Any]:
        answer = await self.ask("api/v1/query", query=expression)
        found: list[Any] = answer["data"]["result"]
        return found


@contextlib.asynccontextmanager
async def prometheus(folder: Path, target: str) -> AsyncIterator[Prometheus]:
    rules = yaml.safe_load((MONITORING / "rules.yaml").read_text())
    for group in rules["groups"]:
        group["interval"] = "1s"
    (folder / "rules.yaml").write_text(yaml.safe_dump(rules))
    labels = {"namespace": "saaa", "pod": "saaa-facade-0"}
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules.yaml"],
        "scrape_configs": [{"job_name": "saaa", "static_configs": [{"targets": [target], "labels": labels}]}],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                tool("prometheus"),
                f"--config.file={folder}/prometheus.yml",
                f"--storage.tsdb.path={folder}/data",
                f"--web.listen-address={address}",
            ],
            cwd=folder,
            stdout=log,
            stderr=log,
        )
    running = Prometheus(f"http://{address}")
    try:
        await until(lambda: running.ask("-/ready"), ValueError)  # it says so in words, not in JSON
        yield running
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait, 30)


async def until(look: Callable[[], Any], done: type[Exception]) -> None:
    async with asyncio.timeout(PATIENT):
        while True:
            try:
                await look()
            except done:
                return
            except OSError:
                await asyncio.sleep(0.2)


def expressions(variants: dict[str, list[Object]]) -> dict[str, str]:
    """All of ours, by where they are: with `bool` a comparison is 0 or 1 instead of there or not."""
    found = {}
    for group in yaml.safe_load((MONITORING / "rules.yaml").read_text())["groups"]:
        for rule in group["rules"]:
            expression = re.sub(r"^absent\((.*)\)$", r"\1", rule["expr"])
            found[rule.get("alert") or rule["record"]] = compared(expression)
    for path in (MONITORING / "dashboards").glob("*.json"):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel["targets"]:
                expression = target["expr"].replace("$namespace", "saaa").replace("$__rate_interval", "1m")
                found[f"{path.stem}: {panel['title']} {target['refId']}"] = expression
    (scaler,) = [each for each in variants["prod"] if each["kind"] == "ScaledObject"]
    for trigger in scaler["spec"]["triggers"]:
        found[f"scaling: {trigger['name']}"] = trigger["metadata"]["query"]
    return found


def compared(expression: str) -> str:
    """A condition as a number; what guards a division against nothing stays as it is."""
    parts = re.split(r"(?= and )", expression)
    return "".join(re.sub(r" (>|<|==) ([\d.e]+)$", r" \1 bool \2", part) for part in parts)


def test_conditions_become_numbers() -> None:
    assert compared("a / (b > 0) > 0.1 and c > 20") == "a / (b > 0) > bool 0.1 and c > bool 20"
    assert compared("max(x) == 0") == "max(x) == bool 0"


async def test_every_expression_finds_something(tmp_path: Path, variants: dict[str, list[Object]]) -> None:
    with tools_needed():
        tool("prometheus")
    settings: FacadeSettings = replace(
        QUICK,
        telemetry=TelemetrySettings(metrics_port=0, journal=tmp_path / "journal.jsonl"),
        ratings=tmp_path / "ratings.db",
        cache_bytes=2**20,
    )
    backend = Unsteady()
    async with calling(backend, settings) as caller:
        assert caller.facade.metrics_address is not None
        working = asyncio.create_task(load(backend, caller))
        try:
            async with prometheus(tmp_path, caller.facade.metrics_address) as running:
                missing = expressions(variants)
                async with asyncio.timeout(PATIENT):
                    while missing:
                        await asyncio.sleep(2)
                        if working.done():
                            working.result()
                        empty = {where: each for where, each in missing.items() if not await running.samples(each)}
                        if empty.keys() == missing.keys():
                            print("without data:", *empty.items(), sep="\n  ")
                        missing = empty
                health = await running.ask("api/v1/rules")
                for group in health["data"]["groups"]:
                    assert [rule["name"] for rule in group["rules"] if rule["health"] != "ok"] == []
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
