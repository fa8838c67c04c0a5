"""Passkeys: registered freshly, used with the owner verified, never replayed, copied or borrowed."""

from __future__ import annotations

import time
from typing import Any

import httpx
import pytest

from tests.serve_app.auth.authenticator import PRESENT, VERIFIED, Authenticator
from tests.serve_app.auth.conftest import PASSWORD, Surface, bearer

REGISTRATION = "/v1/auth/passkeys/registration"
CHALLENGE = "/v1/auth/passkeys/challenge"
SIGN_IN = "/v1/auth/passkeys/sign-in"


async def register(
    surface: Surface, headers: dict[str, str], device: Authenticator, name: str = "laptop"
) -> httpx.Response:
    """Begin and complete."""
    begun = await surface.client.post(REGISTRATION, headers=headers)
    assert begun.status_code == 200, begun.text
    body = begun.json()
    completed = {
        "challenge_id": body["challenge_id"],
        "credential": device.register(body["options"]),
        "name": name,
    }
    return await surface.client.post("/v1/auth/passkeys", json=completed, headers=headers)


async def sign_in(surface: Surface, device: Authenticator, **more: Any) -> httpx.Response:
    """Begin and complete, without credentials."""
    body = (await surface.client.post(CHALLENGE)).json()
    answer = {"challenge_id": body["challenge_id"], "credential": device.sign_in(body["options"])}
    return await surface.client.post(SIGN_IN, json=answer | more)


async def enrolled(surface: Surface, name: str = "ana") -> tuple[dict[str, str], Authenticator]:
    """A person with a passkey, and their headers."""
    await surface.add(name)
    headers = await surface.signed_in(name)
    device = Authenticator()
    answer = await register(surface, headers, device)
    assert answer.status_code == 201, answer.text
    return headers, device


async def test_a_passkey_signs_in_without_a_name(surface: Surface) -> None:
    headers, device = await enrolled(surface)
    answer = await sign_in(surface, device, scope="user/Patient.rs ai")
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["scope"].split() == ["ai", "user/Patient.rs"]
    me = (await surface.client.get("/v1/auth/me", headers=bearer(body["access_token"]))).json()
    assert me["username"] == "ana"
    assert me["methods"] == ["hwk", "user"]
    form = {"refresh_token": body["refresh_token"]}
    assert (await surface.client.post("/v1/auth/refresh", data=form)).status_code == 200
    assert surface.journal.told() == [
        *(("sign-in", "success"), ("passkey-registered", "success"), ("sign-in", "success")),
        ("refresh", "success"),
    ]
    listed = (await surface.client.get("/v1/auth/passkeys", headers=headers)).json()["passkeys"]
    assert [key["name"] for key in listed] == ["laptop"]
    assert listed[0]["last_used_at"] is not None


async def test_a_passkey_works_while_the_name_is_locked(surface: Surface) -> None:
    _, device = await enrolled(surface)
    for _ in range(5):
        await surface.sign_in("ana", "wrong")
    assert (await surface.sign_in("ana")).status_code == 429
    assert (await sign_in(surface, device)).status_code == 200


async def test_registering_and_removing_need_a_fresh_sign_in(surface: Surface) -> None:
    await surface.add("ana")
    body = (await surface.sign_in("ana")).json()
    old = await surface.age_sign_in(body["access_token"], 301)
    for method, path in (
        *(("POST", REGISTRATION), ("POST", "/v1/auth/passkeys")),
        *(("DELETE", "/v1/auth/passkeys/abc"), ("POST", "/v1/auth/password")),
    ):
        answer = await surface.client.request(method, path, headers=old, json={})
        assert (answer.status_code, answer.json()["code"]) == (403, "step_up_required")
    stepped = await surface.client.post(
        "/v1/auth/step-up", json={"password": PASSWORD}, headers=old
    )
    assert stepped.status_code == 200
    assert "refresh_token" not in stepped.json()
    fresh = bearer(stepped.json()["access_token"])
    assert (await register(surface, fresh, Authenticator())).status_code == 201
    assert ("step-up", "success") in surface.journal.told()
    # The session itself is fresh now: what it refreshes to is too.
    form = {"refresh_token": body["refresh_token"]}
    token = (await surface.client.post("/v1/auth/refresh", data=form)).json()["access_token"]
    who = await surface.accounts.authority.verify(token)
    assert time.time() - who.authenticated_at < 60


async def test_stepping_up_with_a_passkey(surface: Surface) -> None:
    headers, device = await enrolled(surface)
    begun = (await surface.client.post(CHALLENGE)).json()
    proof = {"challenge_id": begun["challenge_id"], "credential": device.sign_in(begun["options"])}
    answer = await surface.client.post("/v1/auth/step-up", json={"passkey": proof}, headers=headers)
    assert answer.status_code == 200, answer.text
    who = await surface.accounts.authority.verify(answer.json()["access_token"])
    assert who.methods == ("hwk", "user")
    # Another person's passkey proves another person.
    other, _ = await enrolled(surface, "rui")
    begun = (await surface.client.post(CHALLENGE)).json()
    proof = {"challenge_id": begun["challenge_id"], "credential": device.sign_in(begun["options"])}
    answer = await surface.client.post("/v1/auth/step-up", json={"passkey": proof}, headers=other)
    assert (answer.status_code, answer.json()["code"]) == (403, "wrong_passkey")
    assert surface.journal.entries[-2].details == {"reason": "another-account"}


async def test_a_wrong_password_does_not_step_up_and_counts(surface: Surface) -> None:
    await surface.add("ana")
    headers = await surface.signed_in("ana")
    post = surface.client.post
    for _ in range(5):
        answer = await post("/v1/auth/step-up", json={"password": "wrong"}, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (403, "wrong_password")
    answer = await post("/v1/auth/step-up", json={"password": PASSWORD}, headers=headers)
    assert answer.status_code == 429
    both = {"password": PASSWORD, "passkey": {"challenge_id": "x", "credential": {}}}
    for body in ({}, both, {"password": 7}, {"password": PASSWORD, "more": 1}):
        answer = await post("/v1/auth/step-up", json=body, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_body")


@pytest.mark.parametrize(
    ("change", "value"),
    [
        ("flags", PRESENT),  # nobody was verified
        ("flags", VERIFIED),  # nobody was there
        ("origin", "https://elsewhere.example"),
        ("site", "elsewhere.example"),
        ("sign_count", -1),  # a copy that lags behind
        ("user_handle", b"somebody else"),
        ("id", b"another credential"),
    ],
)
async def test_an_answer_with_one_wrong_thing_is_refused(
    surface: Surface, change: str, value: Any
) -> None:
    _, device = await enrolled(surface)
    assert (await sign_in(surface, device)).status_code == 200
    setattr(device, change, value)
    answer = await sign_in(surface, device)
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_passkey")
    assert surface.journal.told()[-1] == ("sign-in", "denied")


async def test_another_key_does_not_sign(surface: Surface) -> None:
    _, device = await enrolled(surface)
    device.key = Authenticator().key
    assert (await sign_in(surface, device)).json()["code"] == "bad_passkey"


async def test_a_challenge_is_used_once_for_one_purpose_and_five_minutes(surface: Surface) -> None:
    headers, device = await enrolled(surface)
    post = surface.client.post
    begun = (await post(CHALLENGE)).json()
    proof = {"challenge_id": begun["challenge_id"], "credential": device.sign_in(begun["options"])}
    assert (await post(SIGN_IN, json=proof)).status_code == 200
    assert (await post(SIGN_IN, json=proof)).json()["code"] == "bad_challenge"
    # One for registering does not sign in.
    begun = (await post(REGISTRATION, headers=headers)).json()
    options = begun["options"]
    proof = {"challenge_id": begun["challenge_id"], "credential": device.sign_in(options)}
    assert (await post(SIGN_IN, json=proof)).json()["code"] == "bad_challenge"
    # Nor does one of another person register.
    await surface.add("rui")
    other = await surface.signed_in("rui")
    body = {"challenge_id": begun["challenge_id"], "name": "x"}
    body |= {"credential": Authenticator().register(options)}
    answer = await post("/v1/auth/passkeys", json=body, headers=other)
    assert answer.json()["code"] == "bad_challenge"
    begun = (await post(CHALLENGE)).json()
    async with surface.owner.transaction(deadline=time.monotonic() + 10) as connection:
        await connection.execute("UPDATE accounts.challenge SET expires_at = now()")
    proof = {"challenge_id": begun["challenge_id"], "credential": device.sign_in(begun["options"])}
    assert (await post(SIGN_IN, json=proof)).json()["code"] == "bad_challenge"


@pytest.mark.parametrize(
    "credential",
    [
        *({}, {"id": 1}, {"id": "a", "rawId": "b", "type": "public-key", "response": {}}),
        {"id": "YQ", "rawId": "YQ", "type": "public-key", "response": {"clientDataJSON": "e30"}},
        {
            "id": "YQ",
            "rawId": "YQ",
            "type": "public-key",
            "response": {
                **{"clientDataJSON": "////", "authenticatorData": "AA", "signature": "!"},
                "attestationObject": "oA",
            },
        },
    ],
)
async def test_what_is_no_credential_is_refused(
    surface: Surface, credential: dict[str, Any]
) -> None:
    await surface.add("ana")
    headers = await surface.signed_in("ana")
    post = surface.client.post
    begun = (await post(CHALLENGE)).json()
    proof: dict[str, Any] = {"challenge_id": begun["challenge_id"], "credential": credential}
    answer = await post(SIGN_IN, json=proof)
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_passkey")
    begun = (await post(REGISTRATION, headers=headers)).json()
    proof = {"challenge_id": begun["challenge_id"], "credential": credential, "name": "x"}
    answer = await post("/v1/auth/passkeys", json=proof, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_passkey")


async def test_one_passkey_belongs_to_one_person_and_is_removed_by_its_owner(
    surface: Surface,
) -> None:
    headers, device = await enrolled(surface)
    assert (await register(surface, headers, device)).status_code == 409
    await surface.add("rui")
    other = await surface.signed_in("rui")
    (key,) = (await surface.client.get("/v1/auth/passkeys", headers=headers)).json()["passkeys"]
    path = f"/v1/auth/passkeys/{key['id']}"
    assert (await surface.client.delete(path, headers=other)).status_code == 404
    assert (await surface.client.delete(path, headers=headers)).status_code == 204
    assert (await sign_in(surface, device)).json()["code"] == "bad_passkey"


async def test_a_disabled_persons_passkey_is_worth_nothing(surface: Surface) -> None:
    _, device = await enrolled(surface)
    await surface.desk.disable("ana")
    assert (await sign_in(surface, device)).json()["code"] == "bad_passkey"
    assert surface.journal.entries[-1].details == {"reason": "disabled"}


async def test_a_new_password_ends_the_other_sessions(surface: Surface) -> None:
    await surface.add("ana")
    here, there = await surface.signed_in("ana"), (await surface.sign_in("ana")).json()
    post = surface.client.post
    weak = await post("/v1/auth/password", json={"new_password": "ana12345ana12345"}, headers=here)
    assert (weak.status_code, weak.json()["code"]) == (400, "weak_password")
    new = "another correct horse battery"
    changed = await post("/v1/auth/password", json={"new_password": new}, headers=here)
    assert changed.status_code == 204
    form = {"refresh_token": there["refresh_token"]}
    assert (await post("/v1/auth/refresh", data=form)).status_code == 400
    assert (await surface.client.get("/v1/auth/me", headers=here)).status_code == 200
    assert (await surface.sign_in("ana")).status_code == 400
    assert (await surface.sign_in("ana", new)).status_code == 200
    assert ("password-changed", "success") in surface.journal.told()
