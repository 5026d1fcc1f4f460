"""Clients with TLS and tokens against a real facade."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
import pytest
import trustme

from saaa.client import AsyncClient, Client, RpcFailed, tls
from saaa.client.credentials import Bearer
from serving.security.scopes import Scope
from serving.security.tokens import create, revoke
from serving.server import Facade
from tests.serving.pixel_backend import photo
from tests.serving.security.secured import secured, write_server


@dataclass
class Service:
    """A facade that asks for a client certificate and a token, and what it takes to call it."""

    address: str
    tokens: Path
    token: str
    ca: Path
    certificate: Path
    key: Path

    def credentials(self) -> grpc.ChannelCredentials:
        return tls(self.ca, certificate=self.certificate, key=self.key)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    authority = trustme.CA()
    certificate, key = write_server(folder, authority)
    ca = folder / "ca.pem"
    ca.write_bytes(authority.cert_pem.bytes())
    client = authority.issue_cert("alice@example.org")
    (folder / "client.pem").write_bytes(client.cert_chain_pems[0].bytes())
    (folder / "client.key").write_bytes(client.private_key_pem.bytes())
    tokens = folder / "tokens.json"
    token, _ = create(tokens, "client", [Scope.ANALYZE], days=None)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    entering = secured(tls_certificate=certificate, tls_key=key, client_ca=ca, tokens=tokens)
    facade: Facade = asyncio.run_coroutine_threadsafe(entering.__aenter__(), loop).result(30)
    yield Service(facade.address, tokens, token, ca, folder / "client.pem", folder / "client.key")
    asyncio.run_coroutine_threadsafe(entering.__aexit__(None, None, None), loop).result(30)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def test_every_call_brings_certificate_and_token(service: Service) -> None:
    with Client(service.address, credentials=service.credentials(), token=service.token) as client:
        client.wait_ready(10)
        assert len(client.models()) == 2
        assert client.model("colours").name == "colours"
        assert client.analyze(photo()).predictions
        assert all(outcome.analysis for outcome in client.analyze_many([photo()] * 3, timeout=20))
        with pytest.raises(RpcFailed, match="NOT_PERMITTED"):
            client.record_rating(client.analyze(photo()), {"objects": [], "relationships": []})


async def test_the_asynchronous_client_too(service: Service) -> None:
    async with AsyncClient(service.address, credentials=service.credentials(), token=service.token) as client:
        await client.wait_ready(10)
        assert len(await client.models()) == 2
        assert (await client.analyze(photo())).predictions
        assert [o async for o in client.analyze_many([photo()] * 3, timeout=20) if o.analysis]


def test_a_refused_client_hears_why_also_with_a_large_picture(service: Service) -> None:
    large = np.random.default_rng(0).bytes(12 * 2**20)
    with Client(service.address, credentials=service.credentials()) as client:
        client.wait_ready(10)
        for image in (photo(), large, large * 2):
            with pytest.raises(RpcFailed) as refused:
                client.analyze(image)
            assert (refused.value.code, refused.value.reason) == (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
        with pytest.raises(RpcFailed, match="UNAUTHENTICATED"):
            list(client.analyze_many([photo()] * 3, timeout=20))


async def test_a_refused_asynchronous_client_hears_why_also_with_a_large_picture(service: Service) -> None:
    large = np.random.default_rng(0).bytes(12 * 2**20)
    async with AsyncClient(service.address, credentials=service.credentials()) as client:
        for image in (photo(), large, large * 2):
            with pytest.raises(RpcFailed, match="UNAUTHENTICATED"):
                await client.analyze(image)
        with pytest.raises(RpcFailed, match="UNAUTHENTICATED"):
            _ = [outcome async for outcome in client.analyze_many([photo()] * 3, timeout=20)]


def test_without_certificate_or_authority_there_is_no_connection(service: Service) -> None:
    for credentials in (tls(service.ca), tls()):
        with (
            Client(service.address, credentials=credentials, token=service.token, timeout=5) as client,
            pytest.raises(RpcFailed, match="UNAVAILABLE"),
        ):
            client.models()


def test_a_token_file_may_be_replaced_between_calls(service: Service, tmp_path: Path) -> None:
    file = tmp_path / "token"
    first, kept = create(service.tokens, "first", [Scope.ANALYZE], days=None)
    file.write_text(first + "\n")
    with Client(service.address, credentials=service.credentials(), token=file) as client:
        assert client.models()
        revoke(service.tokens, kept.id)
        with pytest.raises(RpcFailed, match="UNAUTHENTICATED"):
            client.models()
        file.write_text(service.token)
        assert client.models()
        file.unlink()
        with pytest.raises(FileNotFoundError):
            client.models()


@pytest.mark.parametrize(
    ("address", "here"),
    [
        ("localhost:1", True),
        ("127.0.0.1:1", True),
        ("[::1]:1", True),
        ("dns:///localhost:1", True),
        ("ipv4:127.0.0.1:1", True),
        ("ipv6:[::1]:1", True),
        ("unix:/run/saaa.sock", True),
        ("unix-abstract:saaa", True),
        ("localhost", True),
        ("example.org:1", False),
        ("localhost.example.org:1", False),
        ("dns:///example.org:1", False),
        ("dns://127.0.0.1/example.org:1", False),
        ("10.0.0.1:1", False),
        ("[2001:db8::1]:1", False),
        ("ipv4:10.0.0.1:1", False),
        ("xds:///localhost-looking", False),
        ("", False),
    ],
)
def test_a_token_leaves_the_machine_encrypted_or_not_at_all(address: str, here: bool) -> None:
    options = {"plain_text": True, "allow_plain_text": False}
    if here:
        assert Bearer("word", address, **options).metadata() == (("authorization", "Bearer word"),)
    else:
        with pytest.raises(ValueError, match="in plain text") as wrong:
            Bearer("word", address, **options)
        assert "word" not in str(wrong.value)
    assert Bearer("word", address, plain_text=False, allow_plain_text=False).metadata()
    assert Bearer("word", address, plain_text=True, allow_plain_text=True).metadata()
    assert Bearer(None, address, **options).metadata() == ()


@pytest.mark.parametrize("token", ["", "two words", "line\nbreak", "é"])
def test_what_is_no_token_is_not_sent_and_not_shown(token: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="one word"):
        Client("localhost:1", token=token)
    file = tmp_path / "token"
    file.write_text(token)
    with Client("localhost:1", token=file) as client, pytest.raises(ValueError, match="one word"):
        client.models()


def test_half_a_client_certificate_is_none(service: Service) -> None:
    with pytest.raises(ValueError, match="both"):
        tls(service.ca, certificate=service.certificate)
