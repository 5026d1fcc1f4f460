"""JSON Web Tokens: signed by somebody else, whose public keys are in a JWKS file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saaa.errors import StartFailed, Unauthenticated
from serving.security.scopes import Scope, read_scopes
from serving.security.settings import SecuritySettings
from serving.security.watched import Watched

ALGORITHMS = ("RS256", "ES256", "EdDSA")
"""Signatures that count; all are of private keys, so that whoever checks them cannot make them."""
_LEAST_RSA_BITS = 2048
_LEEWAY_S = 30.0
"""How far the issuer's clock may be off, in seconds."""
_MAX_SUBJECT = 128


@dataclass(frozen=True, kw_only=True)
class Claims:
    """What a good token says."""

    subject: str
    """Who it was given to, 1 to 128 printable characters."""
    scopes: frozenset[Scope]


class WebTokens:
    """Checks JSON Web Tokens.

    Args:
        keys: the JWKS file.
        settings: issuer, audience and the claim of the scopes.

    Raises:
        StartFailed: the file cannot be used, or PyJWT is not installed.
    """

    def __init__(self, keys: Path, settings: SecuritySettings) -> None:
        try:
            import jwt
            import jwt.algorithms

            if not jwt.algorithms.has_crypto:
                raise ImportError("cryptography is missing")
        except ImportError as error:
            raise StartFailed(f"JSON Web Tokens need PyJWT ({error}): pip install 'saaa[jwt]'.") from None
        self._settings = settings
        self._keys = Watched("keys of web tokens", [keys], lambda: _read_keys(keys), every_s=settings.poll_s)

    def check(self, text: str) -> Claims:
        """Read a token.

        Raises:
            Unauthenticated: it is not one, of another issuer or audience, expired, or signed by none of the keys.
        """
        import jwt

        try:
            key = self._key(jwt.get_unverified_header(text).get("kid"))
            claims = jwt.decode(
                text,
                key,
                algorithms=[key.algorithm_name],
                audience=self._settings.jwt_audience,
                issuer=self._settings.jwt_issuer,
                leeway=_LEEWAY_S,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except jwt.ExpiredSignatureError:
            # Known only once the signature was found good.
            raise Unauthenticated("The token has expired; get another.") from None
        except (jwt.PyJWTError, ValueError, TypeError):
            raise refused() from None
        subject = claims["sub"]
        if not 0 < len(subject) <= _MAX_SUBJECT or not subject.isprintable():
            raise refused()
        return Claims(subject=subject, scopes=_scopes(claims.get(self._settings.jwt_scopes)))

    def _key(self, number: object) -> Any:
        keys = self._keys.value()
        if number is None and len(keys) == 1:
            return next(iter(keys.values()))
        key = keys.get(number) if isinstance(number, str) else None
        if key is None:
            raise refused()
        return key


def refused() -> Unauthenticated:
    """The one answer to every token that is not good: it does not tell why."""
    return Unauthenticated("The token is not good, or no longer; ask the operator for another.")


def _scopes(claim: object) -> frozenset[Scope]:
    if isinstance(claim, str):
        return read_scopes(claim.split())
    return read_scopes(word for word in claim if isinstance(word, str)) if isinstance(claim, list) else frozenset()


def _read_keys(path: Path) -> Mapping[str | None, Any]:
    """The keys by their `kid`.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no JWKS, or holds no usable key.
    """
    import jwt

    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        entries = document["keys"]
        keys = {}
        for entry in entries:
            # A set may hold keys for other uses, and secrets of algorithms that do not count here.
            if entry.get("use", "sig") != "sig" or entry.get("kty") not in ("RSA", "EC", "OKP"):
                continue
            key = jwt.PyJWK(entry)
            if key.algorithm_name not in ALGORITHMS:
                continue
            if key.algorithm_name == "RS256" and key.key.key_size < _LEAST_RSA_BITS:
                raise ValueError(f"an RSA key has {key.key.key_size} bits; the least is {_LEAST_RSA_BITS}")
            if "d" in entry:
                raise ValueError("it holds a private key; give the public ones only")
            keys[entry.get("kid")] = key
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError, UnicodeDecodeError, jwt.PyJWTError) as error:
        raise ValueError(f"it is no JWKS with usable keys ({type(error).__name__})") from None
    if not keys:
        raise ValueError(f"it holds no key of {', '.join(ALGORITHMS)}")
    return keys
