"""Credentials that are not quite right open nothing, whatever is wrong with them."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import hmac
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from deployments.data.accounts.signing import SigningKey, SigningKeys
from tests.surface.conftest import Patients
from tests.surface.world import ISSUER, World, hold

Claims = dict[str, Any]


def part(value: Any) -> str:
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


@pytest.fixture(scope="module")
def own(world: World) -> SigningKey:
    """The cell's own signing key, which an attacker does not have but these tests do."""
    return SigningKeys(world.places.secrets).current()


@pytest.fixture(scope="module")
def genuine(world: World) -> tuple[Claims, Claims]:
    """Header and claims of a token that is good."""
    token = world.grant("physician")["access_token"]
    claims: Claims = jwt.decode(token, options={"verify_signature": False})
    return dict(jwt.get_unverified_header(token)), claims


def signed(key: ec.EllipticCurvePrivateKey, header: Claims, claims: Claims) -> str:
    return jwt.encode(claims, key, "ES256", {k: v for k, v in header.items() if k != "alg"})


def asked(world: World, token: str, path: str = "/fhir/Patient") -> httpx.Response:
    return world.bare.get(path, headers={"authorization": f"Bearer {token}"})


def assert_refused(answer: httpx.Response, mark: str = "") -> None:
    assert answer.status_code == 401, answer.text
    assert "www-authenticate" in answer.headers
    assert answer.json()["issue"][0]["code"] in ("login", "expired")
    assert not mark or mark not in answer.text


def test_the_genuine_token_works_so_that_the_others_fail_for_their_own_reason(
    world: World, own: SigningKey, genuine: tuple[Claims, Claims]
) -> None:
    header, claims = genuine
    assert asked(world, signed(own.private, header, claims)).status_code == 200


CHANGES: dict[str, Callable[[Claims, Claims], object]] = {
    "expired": lambda h, c: c.update(exp=int(time.time()) - 1),
    "expired long ago": lambda h, c: c.update(exp=0),
    "expiry is text": lambda h, c: c.update(exp="9999999999"),
    "expiry is infinite": lambda h, c: c.update(exp=float("inf")),
    "no expiry": lambda h, c: c.pop("exp"),
    "not yet valid": lambda h, c: c.update(nbf=int(time.time()) + 900),
    "issued tomorrow": lambda h, c: c.update(iat=int(time.time()) + 86400),
    "wrong audience": lambda h, c: c.update(aud="http://elsewhere"),
    "several audiences without ours": lambda h, c: c.update(aud=["http://a", "http://b"]),
    "no audience": lambda h, c: c.pop("aud"),
    "wrong issuer": lambda h, c: c.update(iss="http://elsewhere"),
    "no issuer": lambda h, c: c.pop("iss"),
    "no session": lambda h, c: c.pop("sid"),
    "no role": lambda h, c: c.pop("role"),
    "a role that there is not": lambda h, c: c.update(role="root"),
    "scopes as a list": lambda h, c: c.update(scope=["user/*.cruds"]),
    "a scope that there is not": lambda h, c: c.update(scope="user/*.cruds everything"),
    "subject is a number": lambda h, c: c.update(sub=1),
    "of another type": lambda h, c: h.update(typ="JWT"),
    "without key id": lambda h, c: h.pop("kid"),
    "of an unknown key": lambda h, c: h.update(kid="A" * 43),
    "key id is a path": lambda h, c: h.update(kid="../../../../dev/null"),
    "key id is SQL": lambda h, c: h.update(kid="' OR 1=1 --"),
    "a session that never was": lambda h, c: c.update(sid="00000000-0000-4000-8000-000000000000"),
    "session is no id": lambda h, c: c.update(sid="' OR true --"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_token_signed_by_the_right_key_with_something_wrong_is_refused(
    world: World, own: SigningKey, genuine: tuple[Claims, Claims], change: str
) -> None:
    header, claims = dict(genuine[0]), dict(genuine[1])
    CHANGES[change](header, claims)
    assert_refused(asked(world, signed(own.private, header, claims)))


def test_a_token_of_another_key_under_our_key_id_is_refused(
    world: World, genuine: tuple[Claims, Claims]
) -> None:
    stranger = ec.generate_private_key(ec.SECP256R1())
    assert_refused(asked(world, signed(stranger, *genuine)))


def test_a_token_that_brings_its_own_key_is_refused(
    world: World, genuine: tuple[Claims, Claims]
) -> None:
    stranger = SigningKey.fresh(time.time())
    for brought in ({"jwk": stranger.jwk()}, {"jku": "http://127.0.0.1:9/keys"}, {"x5c": ["AA"]}):
        header = {**genuine[0], **brought, "kid": stranger.kid}
        assert_refused(asked(world, signed(stranger.private, header, genuine[1])))
        assert_refused(
            asked(world, signed(stranger.private, {**genuine[0], **brought}, genuine[1]))
        )


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "nOnE", ""])
def test_a_token_without_signature_is_refused(
    world: World, genuine: tuple[Claims, Claims], algorithm: str
) -> None:
    header = {**genuine[0], "alg": algorithm}
    unsigned = f"{part(header)}.{part(genuine[1])}."
    assert_refused(asked(world, unsigned))
    signature = world.grant("physician")["access_token"].split(".")[2]
    assert_refused(asked(world, unsigned + signature))


@pytest.mark.parametrize("form", ["pem", "der", "point", "jwk"])
def test_a_token_signed_with_the_public_key_as_a_secret_is_refused(
    world: World, own: SigningKey, genuine: tuple[Claims, Claims], form: str
) -> None:
    public = own.private.public_key()
    secret = {
        "pem": public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        "der": public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        "point": public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint),
        "jwk": json.dumps(own.jwk()).encode(),
    }[form]
    said = f"{part({**genuine[0], 'alg': 'HS256'})}.{part(genuine[1])}"
    code = hmac.HMAC(secret, SHA256())
    code.update(said.encode())
    assert_refused(asked(world, f"{said}.{part(code.finalize())}"))


def test_a_token_with_any_character_changed_or_cut_off_is_refused(world: World) -> None:
    token: str = world.grant("physician")["access_token"]
    header, claims, signature = token.split(".")
    raised = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
    raised["role"], raised["scope"] = "admin", "user/*.cruds admin audit:verify"
    forged = [
        f"{header}.{part(raised)}.{signature}",
        f"{header}.{claims}.{'A' * len(signature)}",
        f"{header}.{claims}.",
        f"{header}.{claims}",
        f"{header}..{signature}",
        f"{header}.{claims}.{signature}.{signature}",
        token[: len(token) // 2],
        token[:-4],
        token[1:],
        header,
        ".",
        "..",
        "a.b.c",
        "=" * 3,
        token + "=",
        "A" * 20_000,
    ]
    forged += [token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :]
               for at in range(0, len(token) - 1, 37)]  # fmt: skip
    for each in forged:
        assert asked(world, each).status_code in (401, 431), each[:40]


@pytest.mark.parametrize(
    "header",
    [
        *("", "Bearer", "Basic YTpi", "Token x", "Bearer a b", "null"),
        *("Bearer mr_aaaaaaaaaaaa_" + "a" * 49, "Bearer mr_", "Bearer mr_x_y", "Bearer undefined"),
    ],
)
def test_an_authorization_header_of_another_kind_is_refused(world: World, header: str) -> None:
    answer = world.bare.get("/fhir/Patient", headers={"authorization": header})
    assert_refused(answer)


def test_two_authorization_headers_are_refused_even_if_one_is_good(world: World) -> None:
    good = f"Bearer {world.credentials['api_key']}"
    for pair in ((good, good), (good, "Bearer x"), ("Bearer x", good)):
        headers = [("authorization", each) for each in pair]
        assert_refused(world.bare.get("/fhir/Patient", headers=headers))


def test_credentials_in_the_address_or_a_cookie_are_not_looked_at(world: World) -> None:
    key = world.credentials["api_key"]
    for name in ("access_token", "api_key", "token"):
        assert_refused(world.bare.get("/fhir/Patient", params={name: key}))
    with httpx.Client(base_url=world.base_url, cookies={"access_token": key}) as client:
        assert_refused(client.get("/fhir/Patient"))


def test_a_session_that_was_ended_ends_its_tokens(world: World) -> None:
    grant = world.sign_in("nurse", world.password("nurse"))
    with httpx.Client(
        base_url=world.base_url, headers={"authorization": f"Bearer {grant['access_token']}"}
    ) as client:
        assert client.get("/fhir/Patient").status_code == 200
        assert client.post("/v1/auth/logout").status_code < 300
        # Another replica may remember a session for ten seconds; this one has ended it.
        assert_refused(client.get("/fhir/Patient"))
    form = {"grant_type": "refresh_token", "refresh_token": grant["refresh_token"]}
    answer = world.bare.post("/v1/auth/refresh", data=form)
    assert answer.status_code in (400, 401)
    assert "access_token" not in answer.text


def test_a_refresh_token_serves_once_and_a_second_use_ends_the_session(world: World) -> None:
    grant = world.sign_in("nurse", world.password("nurse"))
    form = {"grant_type": "refresh_token", "refresh_token": grant["refresh_token"]}
    next_grant = world.bare.post("/v1/auth/refresh", data=form).json()
    assert asked(world, next_grant["access_token"]).status_code == 200
    assert world.bare.post("/v1/auth/refresh", data=form).status_code == 400
    form["refresh_token"] = next_grant["refresh_token"]
    assert world.bare.post("/v1/auth/refresh", data=form).status_code == 400


def test_a_key_that_was_revoked_opens_nothing_soon(world: World) -> None:
    key = world.key("system/Patient.rs")
    assert asked(world, key).status_code == 200
    world.revoke(key)
    deadline = time.monotonic() + 15
    while (answer := asked(world, key)).status_code != 401:
        assert time.monotonic() < deadline, "a revoked key went on for more than 15 seconds"
        time.sleep(0.5)
    assert_refused(answer)


def test_a_key_with_one_character_changed_is_refused(world: World) -> None:
    key = world.key("system/Patient.rs")
    for at in range(3, len(key), 5):
        assert_refused(asked(world, key[:at] + ("a" if key[at] != "a" else "b") + key[at + 1 :]))


@pytest.mark.parametrize("role", ["auditor", "analyst", "admin"])
def test_a_role_without_patients_reads_none_of_a_patients_observations(
    world: World, patients: Patients, role: str
) -> None:
    client = world.user(role)
    answer = client.get(f"/fhir/Observation/{patients.cared.ids['Observation']}")
    assert answer.status_code in (403, 404)
    assert patients.cared.mark not in answer.text


def test_a_token_narrowed_to_one_type_opens_no_other(world: World) -> None:
    held = hold(world.demo, "MARCAESTREITA", world.practitioner)
    form = {
        "grant_type": "password",
        "username": "physician",
        "password": world.password("physician"),
        "scope": "user/Patient.r",
    }
    grant = world.bare.post("/v1/auth/token", data=form).json()
    client = world.client(grant["access_token"])
    assert client.get(f"/fhir/Patient/{held.patient}").status_code == 200
    for path in ("/fhir/Patient", f"/fhir/Observation/{held.ids['Observation']}"):
        assert client.get(path).status_code == 403
    everything = client.get(f"/fhir/Patient/{held.patient}/$everything")
    assert everything.status_code == 403 or held.ids["Observation"] not in everything.text
    assert client.delete(f"/fhir/Patient/{held.patient}").status_code == 403


def test_paths_that_do_not_exist_are_not_told_from_those_that_do_without_credentials(
    world: World,
) -> None:
    there = world.bare.get("/fhir/Patient")
    nowhere = world.bare.get("/fhir/Nothing/at/all")
    assert there.status_code == nowhere.status_code == 401
    assert there.json()["issue"] == nowhere.json()["issue"]
    assert ISSUER not in there.text
