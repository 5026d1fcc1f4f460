"""The two clients against a real gRPC server on loopback: refusals, deadlines, waiting, what is imported."""

from __future__ import annotations

import ast
import subprocess
import sys
import threading
import time
from pathlib import Path

import grpc
import numpy as np
import pytest
from google.protobuf import duration_pb2
from google.rpc import error_details_pb2

import saaa.client
from saaa.client import AsyncClient, Client, RpcFailed, Violation
from saaa.v1 import analysis_pb2 as pb
from tests.saaa.client.calls import GRAPH, call


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_refusal_carries_code_reason_fields_and_delay(server, kind):
    service = server.service
    service.code, service.message = grpc.StatusCode.RESOURCE_EXHAUSTED, "the lane is full"
    service.details = [
        error_details_pb2.ErrorInfo(reason="LANE_FULL", domain="saaa"),
        error_details_pb2.BadRequest(
            field_violations=[
                error_details_pb2.BadRequest.FieldViolation(field="top_k", description="must be 1 to 1000")
            ]
        ),
        error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=1, nanos=500_000_000)),
    ]
    with pytest.raises(RpcFailed) as caught:
        await call(kind, server.address, "analyze", b"jpeg")
    failure = caught.value
    assert failure.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert failure.reason == "LANE_FULL"
    assert failure.message == "the lane is full"
    assert failure.violations == (Violation("top_k", "must be 1 to 1000"),)
    assert failure.retry_after_s == 1.5
    assert str(failure) == (
        "RESOURCE_EXHAUSTED LANE_FULL: the lane is full (retry after 1.5 s)\n  top_k: must be 1 to 1000"
    )


def test_refusal_without_details_has_the_code_as_reason(server):
    server.service.code, server.service.message = grpc.StatusCode.NOT_FOUND, "no such model"
    with Client(server.address) as client, pytest.raises(RpcFailed) as caught:
        client.model("nobody")
    assert (caught.value.reason, caught.value.violations, caught.value.retry_after_s) == (
        "NOT_FOUND",
        (),
        None,
    )


def test_nobody_listening_is_unavailable():
    with Client("127.0.0.1:1") as client, pytest.raises(RpcFailed) as caught:
        client.models()
    assert caught.value.code is grpc.StatusCode.UNAVAILABLE


def test_every_call_sends_a_deadline(server):
    server.service.listing = [pb.Model(name="scenes", kind=pb.MODEL_KIND_EGDD)]
    with Client(server.address, timeout=20) as client:
        client.models()
        client.model("scenes")
        client.analyze(b"jpeg")
        client.analyze(b"jpeg", timeout=5)
    first, second, third, own = server.service.time_remaining
    assert all(15 < left < 21 for left in (first, second, third))
    assert own < 6


@pytest.mark.parametrize("timeout", [0, -1, float("nan")])
def test_a_timeout_must_be_positive(timeout):
    with pytest.raises(ValueError, match="more than 0"):
        Client("localhost:1", timeout=timeout)


def test_wait_ready_returns_once_serving(server):
    server.set_health("NOT_SERVING")
    timer = threading.Timer(0.3, server.set_health, ["SERVING"])
    started = time.monotonic()
    timer.start()
    with Client(server.address) as client:
        client.wait_ready(10)
    assert 0.25 < time.monotonic() - started < 5
    timer.join()


@pytest.mark.parametrize("address", ["live", "127.0.0.1:1"])
@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_wait_ready_gives_up(server, address, kind):
    server.set_health("NOT_SERVING")
    target = server.address if address == "live" else address
    started = time.monotonic()
    with pytest.raises(RpcFailed, match=r"not ready after 0\.4 s") as caught:
        await call(kind, target, "wait_ready", 0.4)
    assert caught.value.code is grpc.StatusCode.UNAVAILABLE
    assert time.monotonic() - started < 5


async def test_async_client_gives_the_same_answers(server, response):
    server.service.response = response
    server.service.listing = [pb.Model(name="scenes", kind=pb.MODEL_KIND_EGDD)]
    server.set_health("SERVING")
    async with AsyncClient(server.address) as client:
        await client.wait_ready(5)
        analysis = await client.analyze(b"jpeg", GRAPH, top_k=2)
        listing, one = await client.models(), await client.model("scenes")
    with Client(server.address) as client:
        assert analysis.to_json() == client.analyze(b"jpeg", GRAPH, top_k=2).to_json()
        assert listing == client.models() == (one,)


def test_large_answers_and_requests_pass(server, response):
    response.attributions[0].grid.CopyFrom(pb.Grid(height=1200, width=1200, values=np.zeros(1_440_000)))
    server.service.response = response
    with Client(server.address) as client:
        assert client.analyze(bytes(20 * 2**20)).attributions[0].grid.shape == (1200, 1200)


def test_client_imports_nothing_else_of_saaa():
    allowed = ("saaa.client", "saaa.v1", "grpc", "grpc_status", "grpc_health", "google", "numpy")
    for file in Path(saaa.client.__file__).parent.glob("*.py"):
        tree = ast.parse(file.read_text())
        # Drawing needs more, when it is done and not before.
        drawing = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == "overlay"]
        late = {id(node) for function in drawing for node in ast.walk(function)}
        for node in ast.walk(tree):
            if id(node) in late:
                continue
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0
                names = [str(node.module)]
            for name in names:
                known = name.split(".")[0] in sys.stdlib_module_names
                assert known or name.startswith(allowed), f"{file.name} imports {name}"


def test_importing_the_client_loads_no_torch_and_no_other_part():
    program = (
        "import sys, saaa.client; print(sorted(m for m in sys.modules "
        "if m.split('.')[0] in ('torch', 'PIL', 'serving') or m.startswith('saaa.')))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = ast.literal_eval(done.stdout)
    assert loaded
    assert all(name.startswith(("saaa.client", "saaa.v1")) for name in loaded), loaded
