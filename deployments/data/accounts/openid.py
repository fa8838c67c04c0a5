"""A hospital's own OpenID Connect provider: its tokens verified by its published keys.

Keys are fetched from the issuer alone, without redirects, bounded in size, number and time; again
for a key id that is not known, but at most once a minute, so that nobody can make us ask.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx
import jwt
import orjson

from deployments.data.accounts.tokens import claims_of, header_of, refused
from deployments.data.errors import StoreUnavailable

KEYS_FRESH_S = 3600.0
KEYS_KEPT_S = 86400.0
ASK_AGAIN_S = 60.0
TIMEOUT_S = 3.0
MAX_BYTES = 256 * 1024
MAX_KEYS = 64
_TYPES = (None, "jwt", "at+jwt", "application/at+jwt")
_LEAST_RSA_BITS = 2048
# Which signatures a kind of key may make. A symmetric one is never among them.
_ALGORITHMS: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("RSA", ""): ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    ("EC", "P-256"): ("ES256",),
    ("EC", "P-384"): ("ES384",),
    ("EC", "P-521"): ("ES512",),
    ("OKP", "Ed25519"): ("EdDSA",),
}


@dataclass(frozen=True, slots=True)
class Identity:
    """Who the provider says somebody is, and which role names it gives them."""

    sub: str
    roles: frozenset[str]
    authenticated_at: float
    methods: tuple[str, ...]


class OpenIdProvider:
    """One issuer and its keys. For one event loop."""

    def __init__(
        self,
        issuer: str,
        audience: str,
        role_claim: str,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Raises `ValueError` for an issuer that is neither https nor on this machine."""
        _insist_on_safe(issuer)
        self.issuer = issuer
        self._audience, self._role_claim = audience, role_claim
        self._clock, self._monotonic = clock, monotonic
        self._keys: dict[str, dict[str, Any]] = {}
        self._fetched: float | None = None
        self._asked: float | None = None
        self._asking = asyncio.Lock()

    async def verify(self, token: str) -> Identity:
        """Whom the token names. Raises `Unauthenticated`, or `StoreUnavailable` without keys."""
        header = header_of(token)
        kid, algorithm, kind = header.get("kid"), header.get("alg"), header.get("typ")
        if not isinstance(kid, str) or not isinstance(algorithm, str):
            raise refused()
        if not (kind is None or isinstance(kind, str)) or (kind and kind.lower()) not in _TYPES:
            raise refused()
        jwk = await self._key(kid)
        if jwk is None or algorithm not in _permitted(jwk):
            raise refused()
        try:
            key = jwt.PyJWK(jwk, algorithm=algorithm).key
        except (jwt.PyJWTError, ValueError, TypeError):
            raise refused() from None
        claims = claims_of(
            token,
            key,
            algorithm=algorithm,
            audience=self._audience,
            issuer=self.issuer,
            needed=("iss", "sub", "aud", "exp", "iat"),
            now=self._clock(),
        )
        return self._identity(claims)

    def _identity(self, claims: dict[str, Any]) -> Identity:
        sub, moment, methods = claims["sub"], claims.get("auth_time", 0), claims.get("amr", [])
        if not isinstance(sub, str) or not 0 < len(sub) <= 255:
            raise refused()
        return Identity(
            sub=sub,
            roles=_roles(claims, self._role_claim),
            # Without the claim nobody knows when they signed in, and nothing sensitive is done.
            authenticated_at=float(moment) if isinstance(moment, int) else 0.0,
            methods=tuple(str(m)[:16] for m in methods[:8]) if isinstance(methods, list) else (),
        )

    async def _key(self, kid: str) -> dict[str, Any] | None:
        if kid in self._keys and self._age() < KEYS_FRESH_S:
            return self._keys[kid]
        async with self._asking:
            if (kid not in self._keys or self._age() >= KEYS_FRESH_S) and self._may_ask():
                self._asked = self._monotonic()
                try:
                    async with asyncio.timeout(TIMEOUT_S):
                        self._keys = await _fetched_keys(self.issuer)
                    self._fetched = self._monotonic()
                except (httpx.HTTPError, TimeoutError, ValueError, KeyError, TypeError):
                    pass  # What is known serves for a day; without anything the answer is 503.
        if self._age() >= KEYS_KEPT_S:
            message = "The identity provider's keys cannot be read."
            raise StoreUnavailable(message, code="provider_unavailable", retry_after_s=ASK_AGAIN_S)
        return self._keys.get(kid)

    def _age(self) -> float:
        return float("inf") if self._fetched is None else self._monotonic() - self._fetched

    def _may_ask(self) -> bool:
        return self._asked is None or self._monotonic() - self._asked >= ASK_AGAIN_S


async def _fetched_keys(issuer: str) -> dict[str, dict[str, Any]]:
    async with httpx.AsyncClient(follow_redirects=False, timeout=TIMEOUT_S) as client:
        address = issuer.rstrip("/") + "/.well-known/openid-configuration"
        document = await _json(client, address)
        if document["issuer"] != issuer:
            raise ValueError("another issuer's document")
        _insist_on_safe(document["jwks_uri"])
        found = (await _json(client, document["jwks_uri"]))["keys"]
    keys = {jwk["kid"]: jwk for jwk in found[:MAX_KEYS] if isinstance(jwk.get("kid"), str)}
    usable = {kid: jwk for kid, jwk in keys.items() if _permitted(jwk)}
    if not usable:
        raise ValueError("no key that can be used")
    return usable


async def _json(client: httpx.AsyncClient, address: str) -> dict[str, Any]:
    body = bytearray()
    async with client.stream("GET", address) as response:
        if response.status_code != 200:
            raise ValueError("not an answer")
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > MAX_BYTES:
                raise ValueError("too long an answer")
    values = orjson.loads(bytes(body))
    if not isinstance(values, dict):
        raise ValueError("not an object")
    return values


def _permitted(jwk: Mapping[str, Any]) -> tuple[str, ...]:
    """The algorithms that a key may have signed with."""
    kind, curve = jwk.get("kty"), jwk.get("crv", "")
    if jwk.get("use", "sig") != "sig" or not isinstance(kind, str) or not isinstance(curve, str):
        return ()
    if kind == "RSA" and len(str(jwk.get("n", ""))) * 6 < _LEAST_RSA_BITS:
        return ()
    algorithms = _ALGORITHMS.get((kind, curve), ())
    named = jwk.get("alg")
    return algorithms if named is None else tuple(one for one in algorithms if one == named)


def _roles(claims: Mapping[str, Any], claim: str) -> frozenset[str]:
    """The claim's names; a dotted one (`realm_access.roles`) is also looked for by its parts."""
    value: Any = claims.get(claim)
    if value is None:
        value = claims
        for part in claim.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
    names = [value] if isinstance(value, str) else value if isinstance(value, list) else []
    return frozenset(name for name in names[:256] if isinstance(name, str))


def _insist_on_safe(address: str) -> None:
    parts = urlsplit(address)
    local = parts.hostname in ("localhost", "127.0.0.1", "::1")
    if parts.scheme != "https" and not (parts.scheme == "http" and local):
        raise ValueError("an identity provider is asked by https, or on this machine")
