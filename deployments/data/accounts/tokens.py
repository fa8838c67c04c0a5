"""Access tokens: JWTs (RFC 9068) signed with ES256, made and verified without a database."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import isfinite
from typing import Any

import jwt

from deployments.data import scopes
from deployments.data.accounts.signing import SigningKeys
from deployments.data.errors import Invalid, Unauthenticated
from deployments.data.principal import ROLES, Principal

ALGORITHM = "ES256"
TYPE = "at+jwt"
# Clocks of two machines may differ by this much.
LEEWAY_S = 5.0
MAX_TOKEN = 8192
_NEEDED = ("iss", "sub", "aud", "exp", "iat", "jti", "sid", "role", "org", "scope", "auth_time")


@dataclass(frozen=True, slots=True)
class Issued:
    """An access token and the seconds that it lasts."""

    token: str
    lifetime_s: int


class Tokens:
    """Makes and reads the cell's own access tokens."""

    def __init__(
        self,
        keys: SigningKeys,
        issuer: str,
        lifetime_s: int,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`issuer` is the tokens' `iss` and `aud` both."""
        self.issuer = issuer
        self._keys, self._lifetime_s, self._clock = keys, lifetime_s, clock

    def issue(self, principal: Principal, *, ends_at: float) -> Issued:
        """A token for a signed-in person; it never outlives the session's `ends_at`."""
        now = int(self._clock())
        lifetime_s = max(0, min(self._lifetime_s, int(ends_at) - now))
        claims: dict[str, Any] = {
            "iss": self.issuer,
            "aud": self.issuer,
            "sub": principal.id,
            "iat": now,
            "exp": now + lifetime_s,
            "jti": uuid.uuid4().hex,
            "sid": principal.session,
            "role": principal.role,
            "org": principal.organization,
            "scope": scopes.text_of(principal.scopes),
            "amr": list(principal.methods),
            "auth_time": int(principal.authenticated_at),
        }
        if principal.practitioner is not None:
            claims["practitioner"] = principal.practitioner
        if principal.demo:
            claims["demo"] = True
        key = self._keys.current()
        headers = {"kid": key.kid, "typ": TYPE}
        return Issued(jwt.encode(claims, key.private, ALGORITHM, headers), lifetime_s)

    def verify(self, token: str) -> Principal:
        """Who the token says its bearer is. Raises `Unauthenticated` for anything not quite right."""
        header = header_of(token)
        kid = header.get("kid")
        # The algorithm is ours to choose, never the token's.
        if header.get("alg") != ALGORITHM or header.get("typ") != TYPE or not isinstance(kid, str):
            raise refused()
        key = self._keys.find(kid)
        if key is None:
            raise refused()
        claims = claims_of(
            token,
            key.private.public_key(),
            algorithm=ALGORITHM,
            audience=self.issuer,
            issuer=self.issuer,
            needed=_NEEDED,
            now=self._clock(),
        )
        return _principal(claims)


def header_of(token: str) -> dict[str, Any]:
    """The token's header, before anything in it is believed. Raises `Unauthenticated`."""
    if len(token) > MAX_TOKEN:
        raise refused()
    try:
        return jwt.get_unverified_header(token)
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
        raise refused() from None


def claims_of(
    token: str,
    key: Any,
    *,
    algorithm: str,
    audience: str,
    issuer: str,
    needed: Iterable[str],
    now: float,
) -> dict[str, Any]:
    """The claims of a token that `key` signed by `algorithm`. Raises `Unauthenticated`.

    `needed` are the claims it must have; its times are held to `now`, Unix time in seconds.
    """
    try:
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=[algorithm],
            audience=audience,
            issuer=issuer,
            # Times are checked below, against the caller's clock.
            options={
                "require": list(needed),
                "verify_exp": False,
                "verify_iat": False,
                "verify_nbf": False,
            },
        )
    except (jwt.PyJWTError, ValueError, TypeError):
        raise refused() from None
    _check_times(claims, now)
    return claims


def _check_times(claims: dict[str, Any], now: float) -> None:
    """Raise `Unauthenticated` unless `exp`, `iat` and `nbf` are numbers on their sides of now."""
    for name in ("exp", "iat", "nbf"):
        value = claims.get(name)
        if value is None and name == "nbf":
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
            raise refused()
    if claims["exp"] <= now:
        message = "The access token has expired: refresh it or sign in again."
        raise Unauthenticated(message, code="token_expired")
    if max(claims["iat"], claims.get("nbf", 0)) > now + LEEWAY_S:
        raise refused()


def _principal(claims: dict[str, Any]) -> Principal:
    texts = [claims[name] for name in ("sub", "sid", "role", "org", "scope")]
    practitioner, methods = claims.get("practitioner"), claims.get("amr", [])
    if not isinstance(methods, list) or not isinstance(claims["auth_time"], int):
        raise refused()
    if not all(isinstance(text, str) for text in texts) or claims["role"] not in ROLES:
        raise refused()
    try:
        granted = scopes.parse(claims["scope"])
    except Invalid:
        raise refused() from None
    return Principal(
        id=claims["sub"],
        kind="account",
        role=claims["role"],
        organization=claims["org"],
        scopes=granted,
        practitioner=practitioner if isinstance(practitioner, str) else None,
        session=claims["sid"],
        methods=tuple(map(str, methods)),
        authenticated_at=float(claims["auth_time"]),
        demo=claims.get("demo") is True,
    )


def refused() -> Unauthenticated:
    """One answer for every token that is not valid: what is wrong with it helps a forger alone."""
    return Unauthenticated("These credentials are not valid, or not any more.")
