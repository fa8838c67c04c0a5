"""A hospital's own provider signs people in: a real one, oidc-provider, in a process of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from configs.args import SignIn
from deployments.cell.state import CellError
from deployments.data.accounts import openid, signing
from deployments.data.accounts.administration import Administration, NewUser, administration
from deployments.data.accounts.openid import OpenIdProvider
from deployments.data.accounts.wiring import Accounts, open_accounts
from deployments.data.database import Database
from deployments.data.errors import StoreUnavailable, Unauthenticated
from deployments.data.places import Places
from deployments.data.principal import Principal
from tests.serve_app.auth.conftest import ISSUER, PASSWORD, KeptJournal, bearer, surface_app
from tests.serve_app.auth.oidc.running import AUDIENCE, RunningProvider, free_port, installed


@pytest.fixture(scope="module")
def provider() -> Iterator[RunningProvider]:
    running = RunningProvider(installed())
    running.start()
    try:
        yield running
    finally:
        running.stop()


@dataclass
class Site:
    client: httpx.AsyncClient
    desk: Administration
    accounts: Accounts


@pytest.fixture
async def site(provider: RunningProvider, at: Places, database: Database) -> AsyncIterator[Site]:
    signing.create(at.secrets, demo=False)
    settings = SignIn(openid_issuer=provider.issuer, openid_audience=AUDIENCE)
    journal = KeptJournal()
    accounts = open_accounts(settings, ISSUER, at.secrets, database, journal, demo=False)
    transport = httpx.ASGITransport(surface_app(accounts, journal), client=("127.0.0.1", 5000))
    try:
        async with (
            administration(at, "hospital") as desk,
            httpx.AsyncClient(transport=transport, base_url=ISSUER) as client,
        ):
            yield Site(client, desk, accounts)
    finally:
        await accounts.close()


def linked(sub: str, name: str = "ana") -> NewUser:
    return NewUser(name, "nurse", "hospital", practitioner="practitioner", openid_sub=sub)


async def test_a_linked_person_is_who_the_provider_says(
    provider: RunningProvider, site: Site
) -> None:
    account = await site.desk.add_user(linked("nurse-ana"))
    token = (await asyncio.to_thread(provider.tokens, "nurse-ana"))["access_token"]
    me = (await site.client.get("/v1/auth/me", headers=bearer(token))).json()
    assert (me["id"], me["role"], me["practitioner"]) == (account, "nurse", "practitioner")
    assert "user/Patient.rsu" not in me["scopes"]
    assert "user/Patient.rus" in me["scopes"]
    assert time.time() - me["authenticated_at"] < 60


async def test_nobody_is_let_in_by_the_providers_word_alone(
    provider: RunningProvider, site: Site
) -> None:
    token = (await asyncio.to_thread(provider.tokens, "admin-eve"))["access_token"]
    answer = await site.client.get("/v1/models", headers=bearer(token))
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "account_not_linked")
    # Linked as a nurse, but the provider gives another role today.
    await site.desk.add_user(linked("physician-rui"))
    token = (await asyncio.to_thread(provider.tokens, "physician-rui"))["access_token"]
    answer = await site.client.get("/v1/models", headers=bearer(token))
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "role_not_given")


async def test_the_local_ways_in_are_closed(provider: RunningProvider, site: Site) -> None:
    await site.desk.add_user(
        NewUser("rui", "nurse", "hospital", PASSWORD, practitioner="practitioner")
    )
    form = {"grant_type": "password", "username": "rui", "password": PASSWORD}
    answer = await site.client.post("/v1/auth/token", data=form)
    assert answer.json()["error"] == "unsupported_grant_type"
    answer = await site.client.post("/v1/auth/refresh", data={"refresh_token": "rt_x"})
    assert answer.json()["error"] == "unsupported_grant_type"
    answer = await site.client.post("/v1/auth/passkeys/challenge")
    assert (answer.status_code, answer.json()["code"]) == (403, "sign_in_elsewhere")
    # A token by our own key is worth nothing here.
    who = Principal("x", "account", "admin", "hospital", frozenset(), session="x")
    own = site.accounts.tokens.issue(who, ends_at=time.time() + 600).token
    assert (await site.client.get("/v1/models", headers=bearer(own))).status_code == 401
    document = (await site.client.get("/.well-known/openid-configuration")).json()
    assert document == {"issuer": provider.issuer}


async def test_tokens_for_others_and_forged_ones_are_refused(provider: RunningProvider) -> None:
    verifier = OpenIdProvider(provider.issuer, AUDIENCE, "roles")
    answer = await asyncio.to_thread(provider.tokens, "nurse-ana")
    token = answer["access_token"]
    identity = await verifier.verify(token)
    assert identity.sub == "nurse-ana"
    assert identity.roles == {"nurse", "a role of another system"}
    # An ID token is the client's, not ours.
    for wrong in (answer["id_token"], token[:-6] + "AAAAAA"):
        with pytest.raises(Unauthenticated):
            await verifier.verify(wrong)
    claims = jwt.decode(token, options={"verify_signature": False})
    head = jwt.get_unverified_header(token)
    other = rsa.generate_private_key(65537, 2048)
    secret = str(verifier._keys[head["kid"]]["n"])
    for forged in (
        jwt.encode(claims, other, "RS256", {"kid": head["kid"]}),
        jwt.encode(claims, "", "none", {"kid": head["kid"]}),
        jwt.encode(claims, secret, "HS256", {"kid": head["kid"]}),
        jwt.encode(claims, other, "RS256", {"kid": "unknown"}),
        jwt.encode(claims, other, "RS256"),
    ):
        with pytest.raises(Unauthenticated):
            await verifier.verify(forged)
    for kwargs in (("https://elsewhere.example", AUDIENCE), (provider.issuer, "urn:another")):
        strange = OpenIdProvider(*kwargs, "roles")
        strange._keys, strange._fetched = verifier._keys, verifier._fetched
        with pytest.raises(Unauthenticated):
            await strange.verify(token)
    late = OpenIdProvider(provider.issuer, AUDIENCE, "roles", clock=lambda: time.time() + 3600)
    with pytest.raises(Unauthenticated) as caught:
        await late.verify(token)
    assert caught.value.code == "token_expired"


async def test_new_keys_are_found_and_asked_for_at_most_once_a_minute(
    provider: RunningProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, asked = 1000.0, 0
    fetch = openid._fetched_keys

    async def counted(issuer: str) -> dict[str, dict[str, object]]:
        nonlocal asked
        asked += 1
        return await fetch(issuer)

    monkeypatch.setattr(openid, "_fetched_keys", counted)
    verifier = OpenIdProvider(provider.issuer, AUDIENCE, "roles", monotonic=lambda: now)
    old = (await asyncio.to_thread(provider.tokens, "nurse-ana"))["access_token"]
    await asyncio.gather(*(verifier.verify(old) for _ in range(20)))
    assert asked == 1
    await asyncio.to_thread(provider.stop)
    # While it is away its keys are known.
    await verifier.verify(old)
    now += 4000
    await verifier.verify(old)
    assert asked == 2
    await asyncio.to_thread(provider.start)
    fresh = (await asyncio.to_thread(provider.tokens, "nurse-ana"))["access_token"]
    now += 59
    for _ in range(5):
        with pytest.raises(Unauthenticated):
            await verifier.verify(fresh)
    assert asked == 2
    now += 2
    await verifier.verify(fresh)
    assert asked == 3
    with pytest.raises(Unauthenticated):
        await verifier.verify(old)


async def test_a_provider_that_was_never_reached_is_not_the_callers_fault(
    provider: RunningProvider,
) -> None:
    token = (await asyncio.to_thread(provider.tokens, "nurse-ana"))["access_token"]
    for issuer in (f"http://127.0.0.1:{free_port()}", f"{provider.issuer}/"):
        absent = OpenIdProvider(issuer, AUDIENCE, "roles")
        with pytest.raises(StoreUnavailable) as caught:
            await absent.verify(token)
        assert caught.value.code == "provider_unavailable"


@pytest.mark.parametrize(
    "settings",
    [
        {"openid_issuer": "https://login.example"},
        {"openid_issuer": "http://login.example", "openid_audience": "a"},
        {"openid_issuer": "ftp://127.0.0.1", "openid_audience": "a"},
    ],
)
def test_a_half_or_unsafely_configured_provider_refuses_the_start(
    at: Places, settings: dict[str, str]
) -> None:
    signing.create(at.secrets, demo=False)
    database = Database(at.dsn, connections=2)
    with pytest.raises(CellError, match="openid"):
        open_accounts(
            SignIn.model_validate(settings), ISSUER, at.secrets, database, KeptJournal(), demo=False
        )
