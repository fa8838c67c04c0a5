"""The guard: nothing but the open paths answers without credentials, and whose they are is told."""

from __future__ import annotations

import asyncio
import time
from typing import Any, cast

import httpx
import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from deployments.data.accounts import keys
from deployments.data.accounts.authority import Authority
from deployments.data.database import Database
from deployments.data.errors import (
    DeadlineExceeded,
    Forbidden,
    Invalid,
    StoreUnavailable,
    Unauthenticated,
)
from deployments.data.principal import Caller, Principal
from deployments.data.scopes import parse
from serve_app.auth import guard
from tests.serve_app.auth.conftest import Surface, bearer


def scope_of(*headers: tuple[str, str], peer: str | None = "127.0.0.1") -> Scope:
    return {
        "type": "http",
        "path": "/v1/models",
        "client": (peer, 1) if peer else None,
        "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers],
    }


@pytest.mark.parametrize(
    "path",
    [
        *("/v1/models", "/v1/auth/me", "/v1/auth/token/", "/v1/auth/token/x", "/nothing", "/"),
        *("/fhir/Patient", "/fhir", "/v1/auth/logout", "/healthy", "/docs", "//health/live"),
        *("/v1/auth/../models", "/v1/auth/passkeys", "/metrics/x", "/fhir/metadata/x"),
    ],
)
async def test_what_is_not_open_is_401_whether_it_exists_or_not(
    surface: Surface, path: str
) -> None:
    for method in ("GET", "POST", "OPTIONS"):
        answer = await surface.client.request(method, path)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")
    wrong = await surface.client.get(path, headers=bearer("not-a-token"))
    assert wrong.status_code == 401


async def test_probes_and_discovery_are_open(surface: Surface) -> None:
    for path in ("/health/live", "/.well-known/jwks.json", "/.well-known/openid-configuration"):
        assert (await surface.client.get(path)).status_code == 200


@pytest.mark.parametrize(
    "value",
    [
        *("", "Bearer", "Bearer ", "Basic YTpi", "Bearer a b", "Bearer a,b", "bearer \xff"),
        *("Bearer " + "x" * 9000, "Token abc", "mr_abc"),
    ],
)
async def test_what_is_no_bearer_token_is_401(surface: Surface, value: str) -> None:
    headers = {b"authorization": value.encode("latin-1")}
    answer = await surface.client.get("/v1/models", headers=httpx.Headers(headers))
    assert answer.status_code == 401


def test_two_authorization_headers_are_none() -> None:
    with pytest.raises(Unauthenticated):
        guard.bearer_of(scope_of(("authorization", "Bearer a"), ("authorization", "Bearer b")))
    assert guard.bearer_of(scope_of(("authorization", "bearer a.b-c_d~e+f/g="))) == "a.b-c_d~e+f/g="


@pytest.mark.parametrize(
    ("peer", "told", "expected"),
    [
        ("127.0.0.1", ["10.1.2.3"], "10.1.2.3"),
        ("::1", ["2001:db8::1"], "2001:db8::1"),
        ("127.0.0.1", [], "127.0.0.1"),
        ("127.0.0.1", ["not an address"], "127.0.0.1"),
        ("127.0.0.1", ["6.6.6.6, 10.1.2.3"], "10.1.2.3"),
        ("127.0.0.1", ["6.6.6.6", "10.1.2.3"], "10.1.2.3"),
        ("192.0.2.7", ["10.1.2.3"], "192.0.2.7"),
        ("::ffff:192.0.2.7", ["10.1.2.3"], "192.0.2.7"),
        (None, ["10.1.2.3"], "10.1.2.3"),
        (None, [], ""),
    ],
)
def test_only_haproxy_on_this_machine_says_another_address(
    peer: str | None, told: list[str], expected: str
) -> None:
    headers = [("x-forwarded-for", value) for value in told]
    assert guard.address_of(scope_of(*headers, peer=peer)) == expected


@pytest.mark.parametrize(
    ("agent", "expected"),
    [
        ("OpenAI/Python 3.54.0 (maria@hospital)", "OpenAI/Python"),
        ("Mozilla/5.0 (X11; Linux)", "Mozilla/5.0"),
        ("<script>", ""),
        ("", ""),
        ("x" * 500, "x" * 40),
    ],
)
def test_of_the_user_agent_the_product_alone_is_kept(agent: str, expected: str) -> None:
    assert guard.device_of(scope_of(("user-agent", agent))) == expected


@pytest.mark.parametrize(
    ("asked_s_ago", "left_s"),
    [(0.0, 30.0), (12.0, 18.0), (24.0, 6.0), (29.0, 5.0), (60.0, 5.0), (-20.0, 30.0), (3600, 30.0)],
)
def test_a_request_that_the_edge_sends_anew_has_no_deadline_anew(
    asked_s_ago: float, left_s: float
) -> None:
    asked_at = str(int((time.time() - asked_s_ago) * 1000))
    scope = scope_of(("x-medrec-asked-at", asked_at))
    left = guard.origin_of(scope, deadline_s=30.0).deadline - time.monotonic()
    assert left == pytest.approx(left_s, abs=0.5)
    # A short limit stays as it is, whatever a clock says.
    assert guard.origin_of(scope, deadline_s=2.0).deadline - time.monotonic() <= 2.0


@pytest.mark.parametrize("given", [["x"], [""], ["-5"], ["1" * 40], ["1", "2"], ["\xb2"]])
def test_what_is_no_moment_changes_no_deadline(given: list[str]) -> None:
    scope = scope_of(*(("x-medrec-asked-at", value) for value in given))
    assert guard.asked_before_s(scope) == 0.0


async def test_who_asks_is_known_within_the_deadline_or_the_request_ends() -> None:
    class Slow:
        """Knows nobody, for ever."""

        async def verify(self, token: str) -> Principal:
            await asyncio.Event().wait()
            raise AssertionError

    signed_in = guard.SignedIn(
        cast(ASGIApp, None), authority=cast(Authority, Slow()), deadline_s=0.05
    )
    scope = scope_of(("authorization", "Bearer a"))
    with pytest.raises(DeadlineExceeded):
        await signed_in(scope, cast(Receive, None), cast(Send, None))


async def test_the_caller_holds_the_request(surface: Surface) -> None:
    key = await surface.desk.create_key("test", parse("ai"), "hospital")
    headers = bearer(key) | {"x-forwarded-for": "10.9.8.7", "user-agent": "curl/8.1 more"}
    body = (await surface.client.get("/v1/models", headers=headers)).json()
    assert (body["address"], body["device"]) == ("10.9.8.7", "curl/8.1")


@pytest.mark.parametrize("given", [["a b"], ["x" * 256], [""], ["a", "a"]])
def test_an_idempotency_key_is_one_short_word(given: list[str]) -> None:
    with pytest.raises(Invalid):
        guard._idempotency_key(scope_of(*(("idempotency-key", value) for value in given)))
    assert guard._idempotency_key(scope_of(("idempotency-key", '"8e03978e"'))) == '"8e03978e"'


def _caller(kind: Any, ago_s: float) -> Caller:
    who = Principal("x", kind, "admin", "h", frozenset(), authenticated_at=time.time() - ago_s)
    return Caller(who, "r", "127.0.0.1", time.monotonic() + 1)


def test_sensitive_acts_need_a_fresh_sign_in_of_a_person() -> None:
    guard.require_step_up(_caller("account", 299))
    guard.require_step_up(_caller("operator", 9999))
    guard.require_step_up(_caller("account", 500), 600)
    for caller in (_caller("account", 301), _caller("key", 0)):
        with pytest.raises(Forbidden) as caught:
            guard.require_step_up(caller)
        assert caught.value.code == "step_up_required"


async def test_a_websocket_needs_credentials_as_a_request_does_and_may_offer_them(
    surface: Surface,
) -> None:
    let_through: list[Scope] = []

    async def app(scope: Scope, *_: Any) -> None:
        let_through.append(scope)

    async def send(message: Any) -> None:
        raise AssertionError(message)

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    guarded = guard.SignedIn(app, authority=surface.accounts.authority, deadline_s=10)
    bare = {**scope_of(), "type": "websocket"}
    for offered in (
        [],
        ["bearer."],
        ["bearer.nobody"],
        ["medrec.alerts"],
        ["bearer.a", "bearer.b"],
    ):
        with pytest.raises(Unauthenticated):
            await guarded({**bare, "subprotocols": offered}, receive, send)
    assert let_through == []
    key = await surface.desk.create_key("test", parse("ai"), "hospital")
    await guarded({**bare, "subprotocols": ["medrec.alerts", f"bearer.{key}"]}, receive, send)
    assert guard.caller_of(let_through[0]).principal.kind == "key"
    # A request is not a browser's WebSocket: what it offers there is no credential.
    with pytest.raises(Unauthenticated):
        guard.bearer_of({**scope_of(), "subprotocols": [f"bearer.{key}"]})


async def test_keys_open_what_they_are_for_until_they_are_revoked(surface: Surface) -> None:
    text = await surface.desk.create_key("analytics", parse("system/Observation.rs ai"), "hospital")
    me = (await surface.client.get("/v1/auth/me", headers=bearer(text))).json()
    assert (me["kind"], me["role"], me["username"]) == ("key", "service", None)
    assert me["scopes"] == ["ai", "system/Observation.rs"]
    (line,) = await surface.desk.keys()
    assert line.state == "active"
    assert line.last_used != "never"
    for path in ("/v1/auth/logout", "/v1/auth/step-up", "/v1/auth/passkeys/registration"):
        answer = await surface.client.post(path, headers=bearer(text), json={})
        assert (answer.status_code, answer.json()["code"]) == (403, "not_a_person")
    await surface.desk.revoke_key(line.id)
    # This replica asks again within ten seconds; another one asks at once.
    another = Authority(surface.accounts.tokens, surface.database, demo=False)
    with pytest.raises(Unauthenticated):
        await another.verify(text)


async def test_unknown_mistyped_expired_and_demo_keys_are_refused(surface: Surface) -> None:
    expired = await surface.desk.create_key("old", parse("ai"), "hospital", expires_days=1)
    demo = await surface.desk.create_key("demo", parse("ai"), "hospital", demo=True)
    async with surface.owner.transaction(deadline=time.monotonic() + 10) as connection:
        await connection.execute("UPDATE accounts.api_key SET expires_at = now() WHERE NOT demo")
    for text in (expired, demo, keys.mint().text, demo[:-1], "mr_", "mr_\u00e9"):
        with pytest.raises(Unauthenticated):
            await surface.accounts.authority.verify(text)
    permitted = Authority(surface.accounts.tokens, surface.database, demo=True)
    assert (await permitted.verify(demo)).demo


async def test_while_the_database_is_away_tokens_pass_and_keys_on_what_was_known(
    surface: Surface,
) -> None:
    now = 100.0
    away = Database("host=/nonexistent dbname=none", connections=2)
    await surface.add("ana")
    token = (await surface.sign_in("ana")).json()["access_token"]
    key = await surface.desk.create_key("k", parse("ai"), "hospital")
    authority = Authority(surface.accounts.tokens, surface.database, demo=False, clock=lambda: now)
    known = await authority.verify(key)
    authority._database = away
    # Never seen by this replica: the signature is enough.
    assert (await authority.verify(token)).role == "physician"
    now += 60
    assert await authority.verify(key) == known
    now += 600
    with pytest.raises(StoreUnavailable):
        await authority.verify(key)


async def test_a_disabled_persons_token_ends_within_the_cache(surface: Surface) -> None:
    await surface.add("ana")
    token = (await surface.sign_in("ana")).json()["access_token"]
    await surface.accounts.authority.verify(token)
    await surface.desk.disable("ana")
    another = Authority(surface.accounts.tokens, surface.database, demo=False)
    with pytest.raises(Unauthenticated):
        await another.verify(token)
