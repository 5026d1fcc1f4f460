"""Who gets in, over real gRPC."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import jwt
import pytest
import trustme
from cryptography.hazmat.primitives.asymmetric import ed25519
from grpc_health.v1 import health_pb2, health_pb2_grpc
from jwt.algorithms import OKPAlgorithm

from saaa.v1 import analysis_pb2 as pb
from serving.contract.service import AnalysisService
from serving.interceptors.base import current_call
from serving.security.gate import by_connection
from serving.security.scopes import Scope
from serving.security.tokens import create, revoke
from tests.serving.pixel_backend import Caller, PixelBackend, photo, refusal
from tests.serving.security.secured import bearer, reached, secured, tls, write_server

UNAUTHENTICATED, DENIED = grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED
LIST = pb.ListModelsRequest()


def analyze(caller: Caller, metadata: tuple[tuple[str, str], ...] = ()) -> Any:
    request = pb.AnalyzeRequest(image=photo(), outputs=[pb.OUTPUT_PREDICTIONS])
    return caller.stub.Analyze(request, timeout=20, metadata=metadata)


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    return tmp_path / "tokens.json"


@pytest.fixture
def token(tokens: Path) -> str:
    return create(tokens, "kiosk", [Scope.ANALYZE], days=1)[0]


async def test_a_good_token_gets_what_its_scopes_say_and_no_more(tokens: Path, token: str) -> None:
    viewer, _ = create(tokens, "viewer", [Scope.MODELS], days=None)
    async with secured(tokens=tokens) as facade, reached(facade) as caller:
        assert (await analyze(caller, bearer(token))).predictions
        assert len((await caller.stub.ListModels(LIST, timeout=5, metadata=bearer(token))).models) == 2
        assert len((await caller.stub.ListModels(LIST, timeout=5, metadata=bearer(viewer))).models) == 2
        denied = await refusal(analyze(caller, bearer(viewer)))
        assert (denied.code, denied.reason) == (DENIED, "NOT_PERMITTED")
        assert "analyze" in denied.text


@pytest.mark.parametrize(
    "metadata",
    [
        (),
        (("authorization", ""),),
        (("authorization", "Bearer "),),
        (("authorization", "Basic dXNlcjpwYXNz"),),
        (("authorization", "Bearer saaa_000000000000_nothing"),),
        (("authorization", "Bearer a.b.c"),),
        (("token", "TOKEN"),),
        (("authorization", "TOKEN"),),
        (("authorization", "Bearer TOKENx"),),
        (("authorization", "Bearer TOKEN"), ("authorization", "Bearer TOKEN")),
    ],
)
async def test_whatever_else_is_sent_is_refused_and_not_repeated(
    tokens: Path, token: str, metadata: tuple[tuple[str, str], ...], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    sent = tuple((key, value.replace("TOKEN", token)) for key, value in metadata)
    backend = PixelBackend()
    async with secured(backend, tokens=tokens) as facade, reached(facade) as caller:
        refused = await refusal(analyze(caller, sent))
        assert (refused.code, refused.reason) == (UNAUTHENTICATED, "UNAUTHENTICATED")
        assert not backend.batches
    secret = token.split("_", 2)[2]
    assert secret not in refused.text + caplog.text
    assert any("refused /saaa.v1.AnalysisService/Analyze by address:127.0.0.1" in line for line in caplog.messages)


async def test_the_word_bearer_is_read_in_any_case(tokens: Path, token: str) -> None:
    async with secured(tokens=tokens) as facade, reached(facade) as caller:
        assert (await analyze(caller, (("authorization", f"bearer {token}"),))).predictions


async def test_new_and_revoked_tokens_count_without_a_restart(tokens: Path, token: str) -> None:
    async with secured(tokens=tokens) as facade, reached(facade) as caller:
        fresh, kept = create(tokens, "fresh", [Scope.ANALYZE], days=None)
        assert (await analyze(caller, bearer(fresh))).predictions
        revoke(tokens, kept.id)
        assert (await refusal(analyze(caller, bearer(fresh)))).code is UNAUTHENTICATED
        # A file that was spoiled, or lost, lets the known ones in and nobody else.
        good = tokens.read_text()
        tokens.write_text("spoiled")
        assert (await analyze(caller, bearer(token))).predictions
        assert (await refusal(analyze(caller, bearer(fresh)))).code is UNAUTHENTICATED
        tokens.unlink()
        assert (await analyze(caller, bearer(token))).predictions
        tokens.write_text(good)
        assert (await analyze(caller, bearer(token))).predictions


async def test_health_and_liveness_need_no_token_and_the_rest_does(tokens: Path, token: str) -> None:
    async with secured(tokens=tokens) as facade, reached(facade) as caller:
        health = health_pb2_grpc.HealthStub(caller.channel)
        answer = await health.Check(health_pb2.HealthCheckRequest(service=""), timeout=5)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        watch = health.Watch(health_pb2.HealthCheckRequest(service=""), timeout=5)
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        watch.cancel()
        assert await caller.channel.unary_unary("/inference.GRPCInferenceService/ServerLive")(b"", timeout=5)
        for method in ("/inference.GRPCInferenceService/ServerMetadata", "/grpc.health.v1.Health/List"):
            assert (await refusal(caller.channel.unary_unary(method)(b"", timeout=5))).code is UNAUTHENTICATED
        reflection = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
        listing = b"\x3a\x01*"  # list_services = "*"
        talk = caller.channel.stream_stream(reflection)
        assert (await refusal(talk(iter([listing]), timeout=5).read())).code is UNAUTHENTICATED
        assert b"AnalysisService" in await talk(iter([listing]), timeout=5, metadata=bearer(token)).read()


def upload_without_end(address: str) -> grpc.StatusCode:
    """The code with which an upload is refused that would never end. The synchronous client: the other one forgets what
    the service said when a message can no longer be sent."""
    with grpc.insecure_channel(address) as channel:
        upload = channel.stream_unary("/saaa.v1.AnalysisService/AnalyzeUpload")
        with pytest.raises(grpc.RpcError) as failure:
            upload(itertools.repeat(bytes(2**16)), timeout=10)
    code = failure.value.code()
    assert isinstance(code, grpc.StatusCode)
    return code


async def test_no_message_of_a_refused_call_is_read(tokens: Path, token: str) -> None:
    """The refusal comes before the message, which here never does."""
    silent = asyncio.Event()

    async def nothing() -> AsyncIterator[bytes]:
        await silent.wait()
        yield b""

    async with secured(tokens=tokens) as facade, reached(facade) as caller:
        for method in ("Analyze", "ListModels", "AnalyzeUpload"):
            call = caller.channel.stream_unary(f"/saaa.v1.AnalysisService/{method}")(nothing(), timeout=10)
            started = time.monotonic()
            assert (await refusal(call)).code is UNAUTHENTICATED
            assert time.monotonic() - started < 5
        assert await asyncio.to_thread(upload_without_end, facade.address) is UNAUTHENTICATED


async def test_callers_are_named_and_credentials_are_nobody_elses_business(
    tokens: Path, token: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, str]] = []
    list_models = AnalysisService.ListModels

    async def noting(self: AnalysisService, request: Any, context: Any) -> Any:
        call = current_call()
        assert call is not None
        seen.append((call.caller, repr(call)))
        return await list_models(self, request, context)

    monkeypatch.setattr(AnalysisService, "ListModels", noting)
    authority = trustme.CA()
    certificate, key = write_server(tmp_path, authority)
    clients = tmp_path / "clients.pem"
    clients.write_bytes(authority.cert_pem.bytes())
    mutual = {"tls_certificate": certificate, "tls_key": key, "client_ca": clients}
    alice = tls(authority, authority.issue_cert("alice@example.org", common_name="Alice"))
    async with secured() as facade, reached(facade) as caller:
        await caller.stub.ListModels(LIST, timeout=5)
    async with secured(tokens=tokens) as facade, reached(facade) as caller:
        await caller.stub.ListModels(LIST, timeout=5, metadata=bearer(token))
    async with secured(**mutual) as facade, reached(facade, alice) as caller:
        await caller.stub.ListModels(LIST, timeout=5)
    async with secured(**mutual, tokens=tokens) as facade, reached(facade, alice) as caller:
        # The certificate opens the connection; a token is needed all the same.
        assert (await refusal(caller.stub.ListModels(LIST, timeout=5))).code is UNAUTHENTICATED
        await caller.stub.ListModels(LIST, timeout=5, metadata=bearer(token))
    number = f"token:{token.split('_')[1]}"
    assert [name for name, _ in seen] == ["address:127.0.0.1", number, "certificate:alice@example.org", number]
    assert not any(token in text for _, text in seen)


async def test_web_tokens_and_api_tokens_side_by_side(tokens: Path, token: str, tmp_path: Path) -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps({"keys": [OKPAlgorithm.to_jwk(key.public_key(), as_dict=True)]}))
    said = {"iss": "me", "aud": "saaa", "sub": "alice", "exp": time.time() + 60, "scope": "feedback models"}
    web = jwt.encode(said, key, "EdDSA")
    options = {"jwt_keys": keys, "jwt_issuer": "me", "jwt_audience": "saaa"}
    async with secured(**options, tokens=tokens) as facade, reached(facade) as caller:
        assert (await analyze(caller, bearer(token))).predictions
        assert len((await caller.stub.ListModels(LIST, timeout=5, metadata=bearer(web))).models) == 2
        assert (await refusal(analyze(caller, bearer(web)))).code is DENIED
        assert (await refusal(analyze(caller, bearer(web + "x")))).code is UNAUTHENTICATED
    async with secured(**options) as facade, reached(facade) as caller:
        assert (await refusal(analyze(caller, bearer(token)))).code is UNAUTHENTICATED


async def test_messages_that_are_none_are_the_callers_fault_whoever_sends_them() -> None:
    async with secured() as facade, reached(facade) as caller:
        method = "/saaa.v1.AnalysisService/Analyze"
        for call in (
            caller.channel.unary_unary(method)(b"\xff\xfe", timeout=5),
            caller.channel.stream_unary(method)(iter([]), timeout=5),
            caller.channel.stream_unary("/saaa.v1.AnalysisService/AnalyzeUpload")(iter([b"\xff\xfe"]), timeout=5),
            caller.channel.stream_stream("/saaa.v1.AnalysisService/AnalyzeStream")(iter([b"\xff"]), timeout=5).read(),
        ):
            refused = await refusal(call)
            assert refused.code is grpc.StatusCode.INVALID_ARGUMENT
            assert "message" in refused.text


@pytest.mark.parametrize(
    ("peer", "facts", "name"),
    [
        ("ipv4:10.1.2.3:999", {}, "address:10.1.2.3"),
        ("ipv6:%5B::1%5D:999", {}, "address:::1"),
        ("ipv6:[2001:db8:1:2:3:4:5:6]:999", {}, "address:2001:db8:1:2::/64"),
        ("ipv6:%5B2001:db8:1:2:ffff::1%5D:80", {}, "address:2001:db8:1:2::/64"),
        ("ipv6:[fe80::1%25eth0]:80", {}, "address:fe80::/64"),
        ("ipv6:[::ffff:10.1.2.3]:80", {}, "address:10.1.2.3"),
        ("unix:/run/saaa.sock", {}, "address:unix"),
        ("", {}, "address:unknown"),
        ("ipv4:1.2.3.4:1", {"x509_common_name": [b"Bob"]}, "certificate:Bob"),
        ("ipv4:1.2.3.4:1", {"x509_common_name": [b"Bob\nx"]}, "certificate:'Bob\\nx'"),
        ("ipv4:1.2.3.4:1", {"x509_common_name": [b""], "x509_subject_alternative_name": []}, "address:1.2.3.4"),
    ],
)
def test_names_of_connections(peer: str, facts: dict[str, list[bytes]], name: str) -> None:
    assert by_connection(peer, facts).name == name
