"""`saaa tokens`, and commands that bring a token over TLS, against a real facade."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from serving.commands.cli import main
from serving.security.scopes import Scope
from serving.security.tokens import TokenTable, listed, read_tokens
from tests.serving.commands.test_cli import one_line, run
from tests.serving.pixel_backend import photo
from tests.serving.security.secured import secured, write_server
from tests.serving.security.test_tokens import NOW


def test_a_token_is_made_listed_and_revoked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "tokens.json"
    assert run("tokens", "create", path, "--name", "kiosk", "--scopes", "analyze", "feedback", "--days", 30) == 0
    made = capsys.readouterr()
    text = made.out.strip()
    kept = TokenTable(read_tokens(path)).find(text, NOW)
    assert kept is not None
    assert kept.scopes == (Scope.ANALYZE, Scope.FEEDBACK)
    assert kept.expires is not None
    assert (kept.expires - kept.created).days in (29, 30)
    assert text not in made.err
    assert run("tokens", "create", path, "--name", "batch", "--days", "None") == 0
    capsys.readouterr()
    assert run("tokens", "list", path) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{kept.id}  kiosk  analyze/feedback  expires 20")
    assert second.endswith("batch  analyze  until revoked")
    assert run("tokens", "revoke", path, "--id", kept.id) == 0
    assert f"revoked {kept.id}  kiosk" in capsys.readouterr().out
    assert [token.name for token in listed(path)] == ["batch"]


@pytest.mark.parametrize(
    "words",
    [
        ("create", "FILE"),
        ("create", "FILE", "--name", ""),
        ("create", "FILE", "--name", "x", "--days", "0"),
        ("create", "FILE", "--name", "x", "--scopes"),
        ("list", "FILE", "--name", "x"),
        ("list", "FILE"),
        ("revoke", "FILE"),
        ("revoke", "FILE", "--id", "1"),
    ],
)
def test_wrong_use_is_one_line_and_makes_no_file(
    words: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "tokens.json"
    assert main(["tokens", *(word.replace("FILE", str(path)) for word in words)]) == 2
    one_line(capsys)
    assert not path.exists()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Address and files of a facade that wants certificates and tokens."""
    folder = tmp_path_factory.mktemp("service")
    authority = trustme.CA()
    certificate, key = write_server(folder, authority)
    (folder / "ca.pem").write_bytes(authority.cert_pem.bytes())
    client = authority.issue_cert("alice@example.org")
    (folder / "client.pem").write_bytes(client.cert_chain_pems[0].bytes())
    (folder / "client.key").write_bytes(client.private_key_pem.bytes())
    assert run("tokens", "create", folder / "tokens.json", "--name", "x") == 0
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    entering = secured(
        tls_certificate=certificate, tls_key=key, client_ca=folder / "ca.pem", tokens=folder / "tokens.json"
    )
    facade = asyncio.run_coroutine_threadsafe(entering.__aenter__(), loop).result(30)
    yield facade.address, folder
    asyncio.run_coroutine_threadsafe(entering.__aexit__(None, None, None), loop).result(30)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def test_commands_bring_certificate_and_token(
    service: tuple[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    address, folder = service
    token, picture = tmp_path / "token", tmp_path / "red.png"
    picture.write_bytes(photo())
    assert run("tokens", "create", folder / "tokens.json", "--name", "cli") == 0
    token.write_text(capsys.readouterr().out)
    tls = ("--ca", folder / "ca.pem", "--certificate", folder / "client.pem", "--key", folder / "client.key")
    there = ("--address", address, *tls, "--token_file", token)
    assert run("models", *there) == 0
    assert capsys.readouterr().out.startswith("colours")
    assert run("analyze", picture, *there) == 0
    assert "red.png" in capsys.readouterr().out
    assert run("compare", picture, "--out", tmp_path / "compare.html", *there) == 0
    capsys.readouterr()
    assert run("models", "--address", address, *tls) == 2
    assert "needs a token" in one_line(capsys)
    token.write_text("saaa_000000000000_wrong")
    assert run("models", *there) == 2
    assert "not good" in one_line(capsys)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--token_file", "MISSING"), "MISSING"),
        (("--ca", "MISSING"), "MISSING"),
        (("--certificate", "HERE", "--key", "HERE"), "--ca or --tls"),
        (("--tls", "--certificate", "HERE"), "both certificate and key"),
        (("--address", "example.org:1", "--token_file", "HERE"), "plain text"),
    ],
)
def test_options_that_cannot_be_used_are_one_line(
    tmp_path: Path, words: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    here = tmp_path / "here"
    here.write_text("saaa_0_0")
    assert run("models", *(str(here) if word == "HERE" else word for word in words)) == 2
    assert told in one_line(capsys)
