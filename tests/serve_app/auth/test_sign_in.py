"""Signing in over HTTP with a password: OAuth's answers, lock-out, limits, what is on record."""

from __future__ import annotations

import asyncio
import time

import jwt
import pytest

from configs.args import SignIn
from deployments.data.accounts.purge import purge
from tests.serve_app.auth.conftest import ISSUER, PASSWORD, Surface, bearer


async def test_a_person_signs_in_asks_who_they_are_and_signs_out(surface: Surface) -> None:
    account = await surface.add("Ana.Souza")
    answer = await surface.sign_in("ana.souza")
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    body = answer.json()
    assert body["token_type"] == "Bearer"
    assert body["expires_in"] == 600
    assert "user/*.cruds" in body["scope"].split()
    headers = bearer(body["access_token"])
    me = (await surface.client.get("/v1/auth/me", headers=headers)).json()
    assert me["id"] == account
    assert me["username"] == "Ana.Souza"
    assert (me["role"], me["practitioner"], me["methods"]) == ("physician", "practitioner", ["pwd"])
    assert (await surface.client.post("/v1/auth/logout", headers=headers)).status_code == 204
    after = await surface.client.get("/v1/auth/me", headers=headers)
    assert after.status_code == 401
    refresh = {"refresh_token": body["refresh_token"]}
    assert (await surface.client.post("/v1/auth/refresh", data=refresh)).status_code == 400
    told = surface.journal.told()
    assert told[:2] == [("sign-in", "success"), ("sign-out", "success")]
    assert surface.journal.entries[0].actor == account
    assert surface.journal.entries[0].address == "10.0.0.1"


async def test_wrong_unknown_and_disabled_look_the_same(surface: Surface) -> None:
    await surface.add("ana")
    await surface.add("rui")
    await surface.desk.disable("rui")
    answers = [
        await surface.sign_in("ana", "not the right password"),
        await surface.sign_in("nobody of this name"),
        await surface.sign_in("rui"),
    ]
    assert {answer.status_code for answer in answers} == {400}
    assert len({answer.content for answer in answers}) == 1
    assert answers[0].json()["error"] == "invalid_grant"
    assert {outcome for _, outcome in surface.journal.told()} == {"denied"}
    assert [entry.details["reason"] for entry in surface.journal.entries] == [
        *("wrong", "wrong", "disabled")
    ]
    # What was typed as a name may be a password, and goes nowhere.
    assert not any("nobody" in str(e.details) + e.actor[6:] for e in surface.journal.entries)


@pytest.mark.parametrize(
    ("form", "error"),
    [
        ({"grant_type": ""}, "invalid_request"),
        ({"grant_type": "password"}, "invalid_request"),
        ({"grant_type": "password", "username": "ana"}, "invalid_request"),
        ({"grant_type": "password", "username": "ana\0", "password": "x"}, "invalid_request"),
        ({"grant_type": "client_credentials"}, "unsupported_grant_type"),
        ({"grant_type": "refresh_token"}, "invalid_request"),
        ({"grant_type": "refresh_token", "refresh_token": "rt_unknown"}, "invalid_grant"),
        ({"grant_type": ["password", "password"], "username": "a"}, "invalid_request"),
        ({f"f{n}": "x" for n in range(40)}, "invalid_request"),
    ],
)
async def test_errors_are_oauths(
    surface: Surface, form: dict[str, str | list[str]], error: str
) -> None:
    answer = await surface.client.post("/v1/auth/token", data=form)
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/json"
    assert set(answer.json()) == {"error", "error_description"}
    assert answer.json()["error"] == error


async def test_bodies_are_bounded_and_forms(surface: Surface) -> None:
    form = {"content-type": "application/x-www-form-urlencoded"}
    post = surface.client.post
    assert (
        await post("/v1/auth/token", content=b"a=" + b"x" * 20_000, headers=form)
    ).status_code == 413
    assert (await post("/v1/auth/token", json={"grant_type": "password"})).status_code == 415
    for body in (b"\xff\xfe=1", b"%ff=%fe", b"noequals", b"&&&"):
        answer = await post("/v1/auth/token", content=body, headers=form)
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b'{"refresh_token":1}', b'{"refresh_token":"a\\u0000"}']
)
async def test_a_refresh_that_is_no_json_object_is_told_as_oauth_does(
    surface: Surface, body: bytes
) -> None:
    headers = {"content-type": "application/json"}
    answer = await surface.client.post("/v1/auth/refresh", content=body, headers=headers)
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["error"] == "invalid_request"


async def test_scopes_are_narrowed_and_never_widened(surface: Surface) -> None:
    await surface.add("ana", "nurse")
    body = (await surface.sign_in("ana", scope="user/Patient.cruds ai admin")).json()
    assert body["scope"].split() == ["ai", "user/Patient.rus"]
    refused = await surface.sign_in("ana", scope="admin")
    assert refused.json()["error"] == "invalid_scope"
    unknown = await surface.sign_in("ana", scope="root")
    assert unknown.json()["error"] == "invalid_scope"
    # A refresh narrows one token, and the session keeps what it had.
    form = {"refresh_token": body["refresh_token"], "scope": "ai user/*.cruds break-glass"}
    refreshed = (await surface.client.post("/v1/auth/refresh", data=form)).json()
    assert refreshed["scope"].split() == ["ai", "user/Patient.rus"]


async def test_a_name_is_locked_for_a_while_and_the_right_password_does_not_help(
    surface: Surface,
) -> None:
    await surface.add("ana")
    for _ in range(5):
        assert (await surface.sign_in("ana", "wrong")).status_code == 400
    locked = await surface.sign_in("ana")
    assert locked.status_code == 429
    assert 890 <= int(locked.headers["retry-after"]) <= 900
    assert locked.json()["error"] == "temporarily_unavailable"
    assert surface.journal.entries[-1].details["reason"] == "locked"
    # Failing on does not lengthen it.
    async with surface.database.transaction(deadline=_soon()) as connection:
        await connection.execute("UPDATE accounts.attempt SET until = until - interval '899 s'")
    await surface.sign_in("ana", "wrong")
    await asyncio.sleep(1.1)
    assert (await surface.sign_in("ana")).status_code == 200


async def test_a_name_that_does_not_exist_locks_just_so(surface: Surface) -> None:
    for _ in range(5):
        assert (await surface.sign_in("Nobody", "wrong")).status_code == 400
    assert (await surface.sign_in("nobody", "wrong")).status_code == 429


async def test_a_stranger_cannot_lock_somebody_out_from_where_they_work(surface: Surface) -> None:
    await surface.add("ana")
    await surface.signed_in("ana", address="10.0.0.7")
    for _ in range(5):
        await surface.sign_in("ana", "wrong", address="203.0.113.9")
    assert (await surface.sign_in("ana", address="203.0.113.9")).status_code == 429
    assert (await surface.sign_in("ana", address="10.0.0.8")).status_code == 429
    assert (await surface.sign_in("ana", address="10.0.0.7")).status_code == 200
    # At the place itself failures count as anywhere.
    for _ in range(5):
        await surface.sign_in("ana", "wrong", address="10.0.0.7")
    assert (await surface.sign_in("ana", address="10.0.0.7")).status_code == 429


async def test_of_many_guesses_at_once_none_beyond_the_limit_learns_anything(
    surface: Surface,
) -> None:
    await surface.add("ana")
    answers = await asyncio.gather(*(surface.sign_in("ana", f"wrong {n}") for n in range(30)))
    assert {answer.status_code for answer in answers} <= {400, 429}
    assert (await surface.sign_in("ana")).status_code == 429


async def test_a_success_forgets_the_failures_before_it(surface: Surface) -> None:
    await surface.add("ana")
    for _ in range(3):
        for _ in range(4):
            await surface.sign_in("ana", "wrong")
        assert (await surface.sign_in("ana")).status_code == 200


class TestAddresses:
    @pytest.fixture
    def settings(self) -> SignIn:
        return SignIn(address_attempts_per_minute=8)

    async def test_an_address_has_so_many_attempts_a_minute(self, surface: Surface) -> None:
        await surface.add("ana")
        for n in range(8):
            assert (await surface.sign_in(f"somebody {n}", "wrong")).status_code == 400
        refused = await surface.sign_in("ana")
        assert refused.status_code == 429
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert (
            await surface.client.post(
                "/v1/auth/passkeys/challenge", headers={"x-forwarded-for": "10.0.0.1"}
            )
        ).status_code == 429
        assert (await surface.sign_in("ana", address="10.0.0.2")).status_code == 200

    async def test_nobody_fills_the_audit_from_outside(self, surface: Surface) -> None:
        for _ in range(30):
            await surface.sign_in("nobody", "wrong")
            await surface.client.post(
                "/v1/auth/refresh",
                data={"refresh_token": "rt_guess"},
                headers={"x-forwarded-for": "10.0.0.1"},
            )
        assert len(surface.journal.entries) <= 10

    async def test_an_ipv6_host_does_not_roam_its_network(self, surface: Surface) -> None:
        for n in range(8):
            await surface.sign_in(f"somebody {n}", "wrong", address=f"2001:db8::{n:x}")
        assert (await surface.sign_in("ana", address="2001:db8::ffff")).status_code == 429
        assert (await surface.sign_in("ana", address="2001:db8:0:1::1")).status_code == 400


class TestOpenTokensEnd:
    @pytest.fixture
    def settings(self) -> SignIn:
        return SignIn(session_idle_s=60, session_absolute_s=300)

    async def test_idle_and_absolute_limits(self, surface: Surface) -> None:
        await surface.add("ana")
        for column, kept in (("idle_until", False), ("ends_at", False), ("started_at", True)):
            body = (await surface.sign_in("ana")).json()
            assert body["expires_in"] <= 300
            await _owner_shifts(surface, column)
            form = {"refresh_token": body["refresh_token"]}
            answer = await surface.client.post("/v1/auth/refresh", data=form)
            assert (answer.status_code == 200) == kept, column

    async def test_the_custodian_purges_what_is_over(self, surface: Surface) -> None:
        await surface.add("ana")
        await surface.sign_in("ana")
        await surface.sign_in("nobody", "wrong")
        begun = await surface.client.post("/v1/auth/passkeys/challenge")
        assert begun.status_code == 200, begun.text
        kept = await purge(surface.database, deadline=_soon())
        assert kept == dict.fromkeys(("attempts", "challenges", "refresh_tokens", "sessions"), 0)
        await _owner_ages(surface)
        gone = await purge(surface.database, deadline=_soon())
        assert gone["attempts"] >= 2
        assert gone == {
            "attempts": gone["attempts"],
            "challenges": 1,
            "refresh_tokens": 1,
            "sessions": 1,
        }


async def test_refresh_tokens_rotate_and_a_second_use_ends_the_session(surface: Surface) -> None:
    await surface.add("ana")
    first = (await surface.sign_in("ana")).json()
    post = surface.client.post
    second = (await post("/v1/auth/refresh", json={"refresh_token": first["refresh_token"]})).json()
    third = (
        await post(
            "/v1/auth/token",
            data={"grant_type": "refresh_token", "refresh_token": second["refresh_token"]},
        )
    ).json()
    assert len({x["refresh_token"] for x in (first, second, third)}) == 3
    # The first was copied by somebody: nobody goes on with this session.
    replay = await post("/v1/auth/refresh", data={"refresh_token": first["refresh_token"]})
    assert (replay.status_code, replay.json()["error"]) == (400, "invalid_grant")
    assert surface.journal.entries[-1].details == {"reason": "token-used-twice"}
    last = await post("/v1/auth/refresh", data={"refresh_token": third["refresh_token"]})
    assert last.json()["error"] == "invalid_grant"
    me = await surface.client.get("/v1/auth/me", headers=bearer(third["access_token"]))
    assert me.status_code == 401


async def test_of_two_refreshes_at_once_one_wins_and_the_session_ends(surface: Surface) -> None:
    await surface.add("ana")
    token = {"refresh_token": (await surface.sign_in("ana")).json()["refresh_token"]}
    answers = await asyncio.gather(
        *(surface.client.post("/v1/auth/refresh", data=token) for _ in range(2))
    )
    assert sorted(answer.status_code for answer in answers) == [200, 400]


async def test_no_stored_row_holds_a_token_or_a_password(surface: Surface) -> None:
    await surface.add("ana")
    body = (await surface.sign_in("ana")).json()
    async with surface.database.transaction(deadline=_soon()) as connection:
        for table in ("account", "session", "refresh_token"):
            cursor = await connection.execute(f"SELECT t::text FROM accounts.{table} t")
            for (row,) in await cursor.fetchall():
                assert PASSWORD not in row
                assert body["refresh_token"] not in row
                assert body["access_token"] not in row


async def test_discovery_leads_to_keys_that_verify(surface: Surface) -> None:
    await surface.add("ana")
    token = (await surface.sign_in("ana")).json()["access_token"]
    document = (await surface.client.get("/.well-known/openid-configuration")).json()
    assert document["issuer"] == ISSUER
    keys = (await surface.client.get(document["jwks_uri"])).json()
    found = jwt.PyJWKSet.from_dict(keys)[jwt.get_unverified_header(token)["kid"]]
    claims = jwt.decode(token, found, ["ES256"], audience=ISSUER, issuer=document["issuer"])
    assert claims["role"] == "physician"
    smart = (await surface.client.get("/.well-known/smart-configuration")).json()
    assert smart == (await surface.client.get("/fhir/.well-known/smart-configuration")).json()
    assert "permission-v2" in smart["capabilities"]


def _soon() -> float:
    return time.monotonic() + 10


async def _owner_shifts(surface: Surface, column: str) -> None:
    async with surface.owner.transaction(deadline=_soon()) as connection:
        await connection.execute(
            f"UPDATE accounts.session SET {column} = now() - interval '1 s' WHERE revoked_at IS NULL"
        )


async def _owner_ages(surface: Surface) -> None:
    async with surface.owner.transaction(deadline=_soon()) as connection:
        await connection.execute("UPDATE accounts.session SET ends_at = now() - interval '31 days'")
        await connection.execute("UPDATE accounts.attempt SET until = now() - interval '1 s'")
        await connection.execute(
            "UPDATE accounts.challenge SET expires_at = now() - interval '1 s'"
        )
