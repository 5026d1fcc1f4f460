"""TLS as callers meet it: real certificates, real connections, files replaced while the facade runs."""

from __future__ import annotations

import logging
from pathlib import Path

import grpc
import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from saaa.errors import OptionInvalid, StartFailed
from saaa.v1 import analysis_pb2 as pb
from serving.security.settings import SecuritySettings, is_loopback
from serving.server import Facade
from serving.settings import FacadeSettings
from tests.serving.pixel_backend import PixelBackend
from tests.serving.security.secured import HOST, reached, secured, tls, write_server

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def stranger() -> trustme.CA:
    return trustme.CA()


async def models(facade: Facade, credentials: grpc.ChannelCredentials | None) -> int | grpc.StatusCode:
    """How many models are listed over a new connection, or the code of the failure."""
    async with reached(facade, credentials) as caller:
        try:
            return len((await caller.stub.ListModels(pb.ListModelsRequest(), timeout=5)).models)
        except grpc.aio.AioRpcError as error:
            return error.code()


async def test_only_tls_to_the_right_server_gets_through(
    tmp_path: Path, authority: trustme.CA, stranger: trustme.CA
) -> None:
    certificate, key = write_server(tmp_path, authority)
    async with secured(tls_certificate=certificate, tls_key=key) as facade:
        assert await models(facade, tls(authority)) == 2
        assert await models(facade, tls(stranger)) is UNAVAILABLE
        assert await models(facade, None) is UNAVAILABLE


async def test_mutual_tls_takes_only_certificates_of_its_authority(
    tmp_path: Path, authority: trustme.CA, stranger: trustme.CA
) -> None:
    certificate, key = write_server(tmp_path, authority)
    clients = tmp_path / "clients.pem"
    clients.write_bytes(authority.cert_pem.bytes())
    async with secured(tls_certificate=certificate, tls_key=key, client_ca=clients) as facade:
        assert await models(facade, tls(authority, authority.issue_cert("alice@example.org"))) == 2
        assert await models(facade, tls(authority)) is UNAVAILABLE
        assert await models(facade, tls(authority, stranger.issue_cert("alice@example.org"))) is UNAVAILABLE
        # Its authority is replaced: who was trusted is not, and the other way round.
        clients.write_bytes(stranger.cert_pem.bytes())
        assert await models(facade, tls(authority, stranger.issue_cert("bob@example.org"))) == 2
        assert await models(facade, tls(authority, authority.issue_cert("alice@example.org"))) is UNAVAILABLE


async def test_a_rotated_certificate_serves_new_connections_and_leaves_old_ones(
    tmp_path: Path, authority: trustme.CA, stranger: trustme.CA
) -> None:
    certificate, key = write_server(tmp_path, authority)
    async with (
        secured(tls_certificate=certificate, tls_key=key) as facade,
        reached(facade, tls(authority)) as before,
    ):
        assert (await before.analyze()).predictions
        write_server(tmp_path, stranger)
        assert await models(facade, tls(stranger)) == 2
        assert await models(facade, tls(authority)) is UNAVAILABLE
        assert (await before.analyze()).predictions


async def test_a_broken_rotation_keeps_the_last_good_pair_and_the_next_one_counts(
    tmp_path: Path, authority: trustme.CA, stranger: trustme.CA, caplog: pytest.LogCaptureFixture
) -> None:
    certificate, key = write_server(tmp_path, authority)
    async with secured(tls_certificate=certificate, tls_key=key) as facade:
        good = key.read_bytes()
        key.write_bytes(stranger.issue_cert(HOST).private_key_pem.bytes())
        assert await models(facade, tls(authority)) == 2
        key.unlink()
        assert await models(facade, tls(authority)) == 2
        messages = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
        # Once a change, not once a connection.
        assert len(messages) == 2
        assert all("last ones stay in force" in message for message in messages)
        key.write_bytes(good)
        write_server(tmp_path, stranger)
        assert await models(facade, tls(stranger)) == 2


def encrypted(authority: trustme.CA) -> bytes:
    key = serialization.load_pem_private_key(authority.issue_cert(HOST).private_key_pem.bytes(), None)
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"password"),
    )


@pytest.mark.parametrize("wrong", ["missing", "garbage", "other", "encrypted", "authority"])
async def test_unusable_files_are_one_clear_error_at_the_start(
    tmp_path: Path, authority: trustme.CA, stranger: trustme.CA, wrong: str
) -> None:
    certificate, key = write_server(tmp_path, authority)
    clients = tmp_path / "clients.pem"
    clients.write_bytes(b"\xff nothing" if wrong == "authority" else authority.cert_pem.bytes())
    if wrong == "missing":
        key.unlink()
    elif wrong != "authority":
        key.write_bytes(
            {
                "garbage": b"no key",
                "other": stranger.issue_cert(HOST).private_key_pem.bytes(),
                "encrypted": encrypted(authority),
            }[wrong]
        )
    backend = PixelBackend()
    with pytest.raises(StartFailed, match=r"server\.pem.*(No such file|PEM)"):
        async with secured(backend, tls_certificate=certificate, tls_key=key, client_ca=clients):
            pass
    assert backend.closed


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.7", False),
        ("localhost.example.org", False),
        ("example.org", False),
    ],
)
def test_plain_text_only_where_nobody_else_can_listen_in(tmp_path: Path, host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback
    if loopback:
        FacadeSettings(host=host)
    else:
        with pytest.raises(OptionInvalid, match=r"tls_certificate.*allow_plain_text") as wrong:
            FacadeSettings(host=host)
        assert wrong.value.field == "host"
    FacadeSettings(host=host, security=SecuritySettings(allow_plain_text=True))
    FacadeSettings(host=host, security=SecuritySettings(tls_certificate=tmp_path / "a", tls_key=tmp_path / "b"))


HERE = Path("here")


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"tls_certificate": HERE}, "tls_key"),
        ({"tls_key": HERE}, "tls_key"),
        ({"client_ca": HERE}, "tls_certificate"),
        ({"jwt_keys": HERE, "jwt_issuer": "me"}, "jwt_audience"),
        ({"jwt_keys": HERE, "jwt_audience": "you"}, "jwt_issuer"),
        ({"jwt_issuer": "me"}, "jwt_issuer"),
        ({"calls_per_s": 0.0}, "calls_per_s"),
        ({"burst": 0}, "burst"),
        ({"calls_at_once": 0}, "calls_at_once"),
        ({"max_calls": 0}, "max_calls"),
        ({"poll_s": -1.0}, "poll_s"),
    ],
)
def test_settings_are_checked_when_made(options: dict[str, object], field: str) -> None:
    with pytest.raises(OptionInvalid, match=field) as wrong:
        SecuritySettings(**options)  # type: ignore[arg-type]
    assert wrong.value.field == field
