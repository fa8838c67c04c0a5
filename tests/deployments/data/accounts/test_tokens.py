"""Access tokens: what was signed comes back, and everything that a forger tries is refused."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from deployments.data.accounts import signing
from deployments.data.accounts.signing import SigningKeys
from deployments.data.accounts.tokens import TYPE, Tokens
from deployments.data.errors import Unauthenticated
from deployments.data.principal import Principal

ISSUER = "https://medrec.example"
NOW = 1_800_000_000.0
WHO = Principal(
    id="7e1a6f9c-0000-4000-8000-000000000001",
    kind="account",
    role="nurse",
    organization="hospital",
    scopes=frozenset({"user/Patient.rs", "ai"}),
    practitioner="practitioner",
    session="7e1a6f9c-0000-4000-8000-000000000002",
    methods=("pwd",),
    authenticated_at=NOW - 60,
)


class Clock:
    now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keys(tmp_path: Path) -> SigningKeys:
    signing.create(tmp_path, demo=False)
    return SigningKeys(tmp_path)


@pytest.fixture
def tokens(keys: SigningKeys, clock: Clock) -> Tokens:
    return Tokens(keys, ISSUER, 600, clock=clock)


def claims_of(token: str) -> dict[str, Any]:
    found: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return found


def signed(keys: SigningKeys, claims: dict[str, Any], **headers: Any) -> str:
    key = keys.current()
    return jwt.encode(claims, key.private, "ES256", {"kid": key.kid, "typ": TYPE} | headers)


def test_what_was_issued_comes_back(tokens: Tokens) -> None:
    issued = tokens.issue(WHO, ends_at=NOW + 3600)
    assert issued.lifetime_s == 600
    assert tokens.verify(issued.token) == WHO
    assert set(claims_of(issued.token)) == {
        *("iss", "aud", "sub", "iat", "exp", "jti", "sid", "role", "org", "scope", "amr"),
        *("auth_time", "practitioner"),
    }


def test_a_token_never_outlives_its_session(tokens: Tokens, clock: Clock) -> None:
    issued = tokens.issue(WHO, ends_at=NOW + 30.5)
    assert issued.lifetime_s == 30
    clock.now = NOW + 29
    tokens.verify(issued.token)
    clock.now = NOW + 30
    with pytest.raises(Unauthenticated) as caught:
        tokens.verify(issued.token)
    assert caught.value.code == "token_expired"


def _encoded(values: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(values).encode()).rstrip(b"=").decode()


def test_alg_none_is_refused(tokens: Tokens, keys: SigningKeys) -> None:
    claims = claims_of(tokens.issue(WHO, ends_at=NOW + 600).token)
    for algorithm in ("none", "None", "NONE", ""):
        header = {"alg": algorithm, "kid": keys.current().kid, "typ": TYPE}
        with pytest.raises(Unauthenticated):
            tokens.verify(f"{_encoded(header)}.{_encoded(claims)}.")


def test_the_public_key_as_a_shared_secret_is_refused(tokens: Tokens, keys: SigningKeys) -> None:
    claims = claims_of(tokens.issue(WHO, ends_at=NOW + 600).token)
    public = keys.current().private.public_key()
    for secret in (
        public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        json.dumps(keys.jwks()["keys"][0]).encode(),
    ):
        head = _encoded({"alg": "HS256", "kid": keys.current().kid, "typ": TYPE})
        signing_input = f"{head}.{_encoded(claims)}"
        mac = hmac.new(secret, signing_input.encode(), hashlib.sha256).digest()
        forged = base64.urlsafe_b64encode(mac).rstrip(b"=").decode()
        with pytest.raises(Unauthenticated):
            tokens.verify(f"{signing_input}.{forged}")


def test_another_key_is_refused_whatever_it_calls_itself(tokens: Tokens, keys: SigningKeys) -> None:
    claims = claims_of(tokens.issue(WHO, ends_at=NOW + 600).token)
    other = ec.generate_private_key(ec.SECP256R1())
    big = rsa.generate_private_key(65537, 2048)
    own_jwk = {"jwk": json.loads(jwt.algorithms.ECAlgorithm.to_jwk(other.public_key()))}
    for key, algorithm, headers in (
        (other, "ES256", {"kid": keys.current().kid}),
        (other, "ES256", {"kid": "another"}),
        (other, "ES256", {}),
        (other, "ES256", {"kid": keys.current().kid, **own_jwk}),
        (big, "RS256", {"kid": keys.current().kid}),
    ):
        forged = jwt.encode(claims, key, algorithm, {"typ": TYPE} | headers)
        with pytest.raises(Unauthenticated):
            tokens.verify(forged)


@pytest.mark.parametrize(
    "change",
    [
        {"iss": "https://elsewhere.example"},
        {"aud": "https://elsewhere.example"},
        {"aud": [ISSUER + "/"]},
        {"exp": int(NOW) - 1},
        {"exp": None},
        {"exp": "tomorrow"},
        {"exp": float("nan")},
        {"exp": float("inf")},
        {"exp": True},
        {"iat": int(NOW) + 3600},
        {"nbf": int(NOW) + 3600},
        {"nbf": "later"},
        {"role": "root"},
        {"role": ["admin"]},
        {"scope": "user/*.cruds everything"},
        {"scope": ["user/*.cruds"]},
        {"sub": 7},
        {"sid": None},
        {"org": None},
        {"auth_time": "now"},
        {"amr": "pwd"},
    ],
)
def test_a_token_of_ours_with_one_wrong_claim_is_refused(
    tokens: Tokens, keys: SigningKeys, change: dict[str, Any]
) -> None:
    claims = claims_of(tokens.issue(WHO, ends_at=NOW + 600).token)
    tokens.verify(signed(keys, claims))
    with pytest.raises(Unauthenticated):
        tokens.verify(signed(keys, claims | change))


@pytest.mark.parametrize(
    "name", ["iss", "sub", "aud", "exp", "iat", "jti", "sid", "role", "org", "scope", "auth_time"]
)
def test_a_token_of_ours_without_a_claim_is_refused(
    tokens: Tokens, keys: SigningKeys, name: str
) -> None:
    claims = claims_of(tokens.issue(WHO, ends_at=NOW + 600).token)
    del claims[name]
    with pytest.raises(Unauthenticated):
        tokens.verify(signed(keys, claims))


def test_another_kind_of_token_by_the_same_key_is_refused(
    tokens: Tokens, keys: SigningKeys
) -> None:
    claims = claims_of(tokens.issue(WHO, ends_at=NOW + 600).token)
    for kind in ("JWT", "logout+jwt", None):
        with pytest.raises(Unauthenticated):
            tokens.verify(signed(keys, claims, typ=kind))
    with pytest.raises(Unauthenticated):
        tokens.verify(signed(keys, claims, crit=["b64"], b64=False))


def test_a_changed_token_is_refused(tokens: Tokens) -> None:
    token = tokens.issue(WHO, ends_at=NOW + 600).token
    head, body, mac = token.split(".")
    claims = claims_of(token) | {"role": "admin", "scope": "admin"}
    for forged in (
        f"{head}.{_encoded(claims)}.{mac}",
        f"{head}.{body}.",
        f"{head}.{body}",
        token[:-8],
    ):
        with pytest.raises(Unauthenticated):
            tokens.verify(forged)


@given(st.text(max_size=200))
def test_no_text_makes_it_fail_otherwise(text: str) -> None:
    tokens = Tokens.__new__(Tokens)
    with pytest.raises(Unauthenticated):
        tokens.verify(text)


@given(st.lists(st.binary(max_size=80), min_size=3, max_size=3))
def test_no_three_parts_make_it_fail_otherwise(parts: list[bytes]) -> None:
    text = ".".join(base64.urlsafe_b64encode(part).decode() for part in parts)
    with pytest.raises(Unauthenticated):
        Tokens.__new__(Tokens).verify(text)
