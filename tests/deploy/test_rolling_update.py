"""Pods behind a real Envoy are replaced one after the other, as the Deployment does it, and no caller notices.

They leave as the manifests say. Half a second would not do: Envoy hears at once that a pod leaves, and may act on
it a second later (`update_merge_window`).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import socket
import subprocess
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import yaml

from deploy.check.manifests import Manifests, Object
from deploy.check.tools import tool
from saaa.v1 import analysis_pb2 as pb
from saaa.v1.analysis_pb2_grpc import AnalysisServiceStub
from serving.server import Facade
from tests.deploy.conftest import tools_needed
from tests.serving.pixel_backend import QUICK, PixelBackend, photo

PODS = 2
PATIENT = 60.0
TYPES = "type.googleapis.com/envoy.extensions"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def envoy_config(listen: int, pods: list[int]) -> dict[str, Any]:
    """One gRPC listener over pods that are asked for their health; nothing is ever sent twice."""
    http2 = {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": f"{TYPES}.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}},
        }
    }
    cluster = {
        "name": "saaa",
        "type": "STATIC",
        "typed_extension_protocol_options": http2,
        "load_assignment": {
            "cluster_name": "saaa",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(port)}} for port in pods]}],
        },
        # Never send to who says that it leaves, even if nobody else is left.
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}},
        "health_checks": [
            {
                "timeout": "1s",
                "interval": "0.1s",
                "no_traffic_interval": "0.1s",
                "unhealthy_threshold": 1,
                "healthy_threshold": 1,
                "grpc_health_check": {"service_name": "saaa.v1.AnalysisService"},
            }
        ],
    }
    router = {"@type": f"{TYPES}.filters.http.router.v3.Router"}
    manager = {
        "@type": f"{TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "saaa",
        "codec_type": "HTTP2",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "saaa",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "saaa", "timeout": "0s"}}],
                }
            ]
        },
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": router}],
    }
    listener = {
        "address": address(listen),
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


@contextlib.asynccontextmanager
async def envoy(folder: Path, pods: list[int]) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to a running one."""
    port = free_port()
    (folder / "envoy.json").write_text(json.dumps(envoy_config(port, pods)))
    with (folder / "envoy.log").open("wb") as log:
        process = subprocess.Popen(
            [tool("envoy"), "-c", folder / "envoy.json", "--concurrency", "1", "--use-dynamic-base-id"],
            stdout=log,
            stderr=log,
        )
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            try:
                async with asyncio.timeout(PATIENT):
                    await channel.channel_ready()
            except TimeoutError:
                raise AssertionError((folder / "envoy.log").read_text()[-2000:]) from None
            yield channel
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait, 30)


class Pods:
    """Facades at fixed ports, each with a backend of its own; a leaving one is on for `leave_s` seconds."""

    def __init__(self, ports: list[int], leave_s: float) -> None:
        self.ports = ports
        self._leave_s = leave_s
        self._running: dict[int, tuple[asyncio.Event, asyncio.Task[None]]] = {}
        self.backends: list[PixelBackend] = []

    async def start(self, place: int) -> None:
        up, leave = asyncio.Event(), asyncio.Event()
        backend = PixelBackend()
        backend.seconds = 0.02
        self.backends.append(backend)

        async def live() -> None:
            settings = replace(QUICK, port=self.ports[place], leave_s=self._leave_s, drain_s=10.0)
            async with Facade(backend, settings):
                up.set()
                await leave.wait()

        self._running[place] = (leave, asyncio.create_task(live()))
        await asyncio.wait_for(up.wait(), PATIENT)

    async def stop(self, place: int) -> None:
        leave, task = self._running.pop(place)
        leave.set()
        await task

    async def close(self) -> None:
        for place in tuple(self._running):
            await self.stop(place)


async def test_no_request_fails_while_all_pods_are_replaced_under_load(
    variants: dict[str, list[Object]], tmp_path: Path
) -> None:
    with tools_needed():
        tool("envoy")
    (told,) = [each["data"] for each in Manifests(variants["prod"]).of("ConfigMap") if "facade.yaml" in each["data"]]
    pods = Pods([free_port() for _ in range(PODS)], yaml.safe_load(told["facade.yaml"])["leave_s"])
    outcomes: Counter[str] = Counter()
    numbers = itertools.count()
    try:
        for place in range(PODS):
            await pods.start(place)
        async with envoy(tmp_path, pods.ports) as channel:
            analyze = AnalysisServiceStub(channel).Analyze  # type: ignore[no-untyped-call]

            async def call() -> str:
                number = next(numbers)
                image = photo((200, number % 256, number // 256 % 256))
                try:
                    await analyze(pb.AnalyzeRequest(image=image, outputs=[pb.OUTPUT_PREDICTIONS]), timeout=30)
                except grpc.aio.AioRpcError as error:
                    return f"{error.code().name}: {error.details()}"
                return "OK"

            async with asyncio.timeout(PATIENT):
                while await call() != "OK":  # until Envoy has seen the pods' health
                    await asyncio.sleep(0.05)

            async def caller() -> None:
                while True:
                    outcomes[await call()] += 1

            callers = [asyncio.create_task(caller()) for _ in range(4)]
            await asyncio.sleep(1)
            for place in range(PODS):
                await pods.stop(place)
                await pods.start(place)
                # The next one goes only when callers are sent to this one, as with maxUnavailable: 0.
                async with asyncio.timeout(PATIENT):
                    while not pods.backends[-1].batches:
                        await asyncio.sleep(0.1)
            for task in callers:
                task.cancel()
            await asyncio.gather(*callers, return_exceptions=True)
    finally:
        await pods.close()
    assert set(outcomes) == {"OK"}, outcomes
    assert len(pods.backends) == 2 * PODS
