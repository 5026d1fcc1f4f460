"""JSON Web Tokens, signed by real keys; every way in which one can be wrong."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from saaa.errors import StartFailed, Unauthenticated
from serving.security.scopes import Scope
from serving.security.settings import SecuritySettings
from serving.security.web_tokens import WebTokens

ISSUER, AUDIENCE = "https://issuer.example.org/", "saaa"
RSA = rsa.generate_private_key(65537, 2048)
KEYS: dict[str, Any] = {
    "RS256": RSA,
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}
FORMS: dict[str, Any] = {"RS256": RSAAlgorithm, "ES256": ECAlgorithm, "EdDSA": OKPAlgorithm}


def public(algorithm: str, key: Any = None, kid: str | None = None) -> dict[str, Any]:
    entry: dict[str, Any] = FORMS[algorithm].to_jwk((key or KEYS[algorithm]).public_key(), as_dict=True)
    return {**entry, "kid": kid or algorithm}


def write_keys(path: Path, *entries: dict[str, Any]) -> Path:
    path.write_text(json.dumps({"keys": entries}))
    return path


def checker(path: Path, **options: Any) -> WebTokens:
    settings = SecuritySettings(jwt_keys=path, jwt_issuer=ISSUER, jwt_audience=AUDIENCE, poll_s=0, **options)
    return WebTokens(path, settings)


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    return write_keys(tmp_path / "keys.json", *(public(algorithm) for algorithm in KEYS))


def claims(**changes: Any) -> dict[str, Any]:
    said = {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "exp": time.time() + 60, "scope": "analyze", **changes}
    return {name: value for name, value in said.items() if value is not None}


def signed(algorithm: str = "RS256", kid: str | None = None, key: Any = None, **changes: Any) -> str:
    header = {"kid": algorithm if kid is None else kid}
    return jwt.encode(claims(**changes), key or KEYS[algorithm], algorithm, headers=header if kid != "" else None)


@pytest.mark.parametrize("algorithm", list(KEYS))
def test_every_signature_that_counts(keys: Path, algorithm: str) -> None:
    said = checker(keys).check(signed(algorithm, scope="analyze feedback cook"))
    assert (said.subject, said.scopes) == ("alice", {Scope.ANALYZE, Scope.FEEDBACK})


@pytest.mark.parametrize(
    ("claim", "scopes"),
    [
        ({"scope": ["analyze", "models", 3]}, {Scope.ANALYZE, Scope.MODELS}),
        ({"scope": None}, set()),
        ({"scope": 5}, set()),
        ({"scope": {"analyze": True}}, set()),
    ],
)
def test_scopes_in_other_forms(keys: Path, claim: dict[str, Any], scopes: set[Scope]) -> None:
    assert checker(keys).check(signed(**claim)).scopes == scopes


def test_scopes_of_another_claim(keys: Path) -> None:
    token = signed(scope="analyze", scp="feedback")
    assert checker(keys, jwt_scopes="scp").check(token).scopes == {Scope.FEEDBACK}


def test_several_audiences_are_fine(keys: Path) -> None:
    assert checker(keys).check(signed(aud=["other", AUDIENCE])).subject == "alice"


@pytest.mark.parametrize(
    "wrong",
    [
        {"iss": "https://else.example.org/"},
        {"iss": None},
        {"aud": "other"},
        {"aud": None},
        {"sub": None},
        {"sub": ""},
        {"sub": "two\nlines"},
        {"sub": "x" * 129},
        {"exp": None},
        {"exp": "soon"},
        {"nbf": 4_102_444_800},  # in the year 2100
        {"kid": "unknown"},
        {"kid": ""},
    ],
    ids=str,
)
def test_whatever_is_wrong_gets_one_answer(keys: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(Unauthenticated, match="not good, or no longer"):
        checker(keys).check(signed(**wrong))


def test_an_expired_token_is_told_so_once_its_signature_is_good(keys: Path) -> None:
    old = {"exp": time.time() - 3600}
    with pytest.raises(Unauthenticated, match="expired"):
        checker(keys).check(signed(**old))
    forged = signed(key=rsa.generate_private_key(65537, 2048), **old)
    with pytest.raises(Unauthenticated, match="not good"):
        checker(keys).check(forged)
    # Clocks differ a little.
    assert checker(keys).check(signed(exp=time.time() - 5)).subject == "alice"


def part(value: dict[str, Any]) -> bytes:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")


def unsigned(kid: str) -> str:
    return (part({"alg": "none", "kid": kid}) + b"." + part(claims()) + b".").decode()


def by_public_key() -> str:
    """The old trick: the public key, which all know, as the secret of a symmetric signature."""
    head = part({"alg": "HS256", "kid": "RS256"}) + b"." + part(claims())
    secret = json.dumps(public("RS256")).encode()
    mark = jwt.get_algorithm_by_name("HS256").sign(head, secret)
    return (head + b"." + base64.urlsafe_b64encode(mark).rstrip(b"=")).decode()


@pytest.mark.parametrize(
    "forge",
    [
        lambda: unsigned("RS256"),
        by_public_key,
        lambda: signed("ES256", kid="RS256"),
        lambda: signed("RS256", key=rsa.generate_private_key(65537, 2048)),
        lambda: signed()[:-4] + "AAAA",
        lambda: "a.b.c",
        lambda: "..",
        lambda: "nonsense",
        lambda: "é" * 10,
    ],
)
def test_forged_tokens_are_refused(keys: Path, forge: Callable[[], str]) -> None:
    with pytest.raises(Unauthenticated, match="not good, or no longer"):
        checker(keys).check(forge())


def test_a_token_without_a_key_id_needs_a_single_key(tmp_path: Path, keys: Path) -> None:
    assert checker(write_keys(tmp_path / "one.json", public("RS256"))).check(signed(kid="")).subject == "alice"


def test_replaced_keys_count_at_once(keys: Path) -> None:
    tokens = checker(keys)
    fresh = ed25519.Ed25519PrivateKey.generate()
    write_keys(keys, public("EdDSA", fresh, kid="fresh"))
    assert tokens.check(signed("EdDSA", kid="fresh", key=fresh)).subject == "alice"
    with pytest.raises(Unauthenticated):
        tokens.check(signed("RS256"))


def private() -> dict[str, Any]:
    entry: dict[str, Any] = RSAAlgorithm.to_jwk(RSA, as_dict=True)
    return entry


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("not json", "no JWKS"),
        ("[]", "no JWKS"),
        ('{"keys": [{"kty": "RSA", "n": "AQAB", "kid": "x"}]}', "no JWKS"),
        ('{"keys": []}', "no key of RS256"),
        ('{"keys": [{"kty": "oct", "k": "c2VjcmV0", "kid": "x"}]}', "no key of RS256"),
        (json.dumps({"keys": [{**public("RS256"), "use": "enc"}]}), "no key of RS256"),
        (json.dumps({"keys": [public("RS256", rsa.generate_private_key(65537, 1024))]}), "1024 bits"),
        (json.dumps({"keys": [private()]}), "private"),
    ],
    ids=lambda value: value[:20],
)
def test_unusable_keys_are_one_clear_error(tmp_path: Path, content: str, why: str) -> None:
    path = tmp_path / "keys.json"
    path.write_text(content)
    with pytest.raises(StartFailed, match=rf"keys\.json.*{why}"):
        checker(path)
