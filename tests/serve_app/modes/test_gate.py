"""Proves that one gate enforces the mode on every route, and whom an emergency lets in."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from configs.args import EmergencyArgs, Limits
from deployments.data.accounts.enrolment import enrolment
from deployments.data.emergency.activation import Activations
from deployments.data.errors import Conflict
from deployments.edge.modes import UNLISTED, capability_of
from serve_app.surface import create_app
from tests.serve_app.fake_language import FakeLanguage
from tests.serve_app.fake_security import services_of
from tests.serve_app.modes.conftest import EDGE, PASSWORD, Cloud

ID = "0f8fad5b-d9cb-469f-a165-70867728950e"


def routes_of(candidates: Any) -> Iterator[tuple[str, str]]:
    """Method and declared path of every route, included routers' too."""
    for route in candidates:
        if hasattr(route, "effective_candidates"):
            yield from routes_of(route.effective_candidates())
        else:
            found = getattr(route, "original_route", route)  # a WebSocket's, which has no methods
            for method in getattr(found, "methods", None) or ("GET",):
                yield method, route.path or found.path


def test_every_route_of_the_application_stands_in_the_table(cloud: Cloud) -> None:
    routes = set(routes_of(cloud.app.routes))
    assert len(routes) > 60
    declared = {path.replace(":path}", "}") for _, path in routes}
    assert declared >= set(cloud.app.openapi()["paths"])
    unlisted = [
        (method, path)
        for method, path in sorted(routes)
        if capability_of(method, path.replace("{type}", "Patient")) is UNLISTED
    ]
    assert unlisted == []


async def test_until_an_edge_activates_it_nothing_but_probes_and_the_mode_is_answered(
    cloud: Cloud,
) -> None:
    for path in ("/health/live", "/openapi.json", "/v1/mode"):
        answer = await cloud.client.get(path)
        assert answer.status_code == 200, path
        assert answer.headers["x-medrec-mode"] == "emergency"
    assert (await cloud.client.get("/v1/mode")).json()["state"] == "standby"
    for path in ("/v1/models", "/fhir/Patient", "/v1/emergency/notes", "/nothing"):
        answer = await cloud.client.get(path)
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "30"
        assert "emergency_not_active" in answer.text
        assert answer.headers["x-medrec-mode"] == "emergency"
    assert (await cloud.sign_in("ana")).status_code == 503


async def test_probes_do_not_wait_for_the_database(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(_: Activations, *, deadline: float) -> None:
        await asyncio.sleep(3600)

    monkeypatch.setattr(Activations, "last", never)
    async with asyncio.timeout(5):
        for path in ("/health/live", "/health/ready", "/internal/condition"):
            assert (await cloud.client.get(path, headers=EDGE)).status_code == 200


async def test_an_activation_is_on_record_says_what_may_be_missing_and_happens_once(
    cloud: Cloud,
) -> None:
    cloud.owner.rows("UPDATE emergency.heartbeat SET at = now() - interval '12 s'")
    since = time.time() - 3
    first, again = await cloud.activate(since), await cloud.activate(since)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json()["activation"] == again.json()["activation"]
    copied = first.json()["copied"]
    assert 12 <= copied["age_s"] < 60
    assert copied["within_limit"]
    assert copied["may_miss"].startswith("What was written on site in the last ")
    [entry] = cloud.owner.entries("emergency")
    assert (entry["actor"], entry["actor_kind"]) == ("edge-1", "host")
    assert entry["details"]["copy_age_s"] == copied["age_s"]
    mode = (await cloud.client.get("/v1/mode")).json()
    assert (mode["mode"], mode["phase"], mode["state"]) == ("emergency", "production", "active")
    assert mode["copied"] == copied
    assert mode["users"] == 50
    assert mode["since"] == first.json()["activated_at"]
    works = {each["name"]: each["works"] for each in mode["capabilities"]}
    assert (works["chat"], works["records"], works["emergency-notes"]) == ("limited", "no", "yes")
    assert (await cloud.end()).json()["ended_at"] is not None
    assert (await cloud.end()).json()["activation"] is None
    assert (await cloud.client.get("/v1/models")).status_code == 503
    assert [entry["details"]["act"] for entry in cloud.owner.entries("emergency")] == [
        *("activate", "end")
    ]


async def test_nobody_but_a_host_of_the_site_activates(cloud: Cloud) -> None:
    body = {"reason": "because", "since": time.time()}
    for headers in ({}, {"x-medrec-host": "stranger"}):
        answer = await cloud.client.post("/internal/emergency/activate", json=body, headers=headers)
        assert answer.status_code == 404
    assert cloud.owner.rows("SELECT 1 FROM emergency.activation") == []


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"reason": "", "since": 1.0},
        {"reason": "r", "since": "now"},
        {"reason": "r", "since": -1},
    ],
)
async def test_a_wrong_activation_is_a_clear_error(cloud: Cloud, body: dict[str, Any]) -> None:
    answer = await cloud.client.post("/internal/emergency/activate", json=body, headers=EDGE)
    assert answer.status_code == 400
    assert answer.json()["code"] == "invalid_body"


@pytest.mark.parametrize(
    ("method", "path", "name", "where"),
    [
        ("POST", "/fhir/Patient", "records", "diagnostics"),
        ("GET", f"/fhir/Encounter/{ID}", "records", "diagnostics"),
        ("POST", "/v1/break-glass", "break-glass", "detail"),
        ("POST", "/v1/auth/passkeys/sign-in", "accounts", "detail"),
        ("POST", "/v1/embeddings", "embeddings", "message"),
        ("POST", "/v1/audio/speech", "speech", "message"),
    ],
)
async def test_what_is_not_in_it_is_refused_by_name_in_the_surfaces_own_shape(
    cloud: Cloud, method: str, path: str, name: str, where: str
) -> None:
    await cloud.activate()
    answer = await cloud.client.request(method, path, json={})
    assert answer.status_code == 403
    found = answer.json()
    text = found["issue"][0][where] if where == "diagnostics" else found.get("error", found)[where]
    assert f"not available: {name} (" in text
    assert "expected back at 20" in text
    assert "not_in_emergency" in answer.text


async def test_enrolled_people_come_in_with_their_password_on_their_own_device(
    cloud: Cloud,
) -> None:
    await cloud.add("ana")
    await cloud.add("rui", enrolled=False)
    await cloud.activate()
    assert (await cloud.sign_in("ana")).status_code == 200
    for name, device, code in (
        ("ana", "", "device_required"),
        ("ana", "rui", "wrong_device"),
        ("rui", "rui", "not_enrolled"),
        ("nobody", "nobody", "not_enrolled"),
        ("nobody", "ana", "wrong_device"),
    ):
        answer = await cloud.sign_in(name, device=device)
        assert answer.status_code == 403, (name, device)
        assert answer.json()["error"] == code
    answer = await cloud.sign_in("ana", password="too-short")
    assert answer.status_code == 400
    answer = await cloud.sign_in("ana", password=PASSWORD + "x")
    assert answer.json()["error"] == "invalid_grant"
    wanted = {"device_required", "wrong_device", "not_enrolled", "weak_password", "wrong"}
    for _ in range(100):
        entries = cloud.owner.entries("sign-in")
        if wanted <= {entry["details"].get("reason") for entry in entries}:
            return
        await asyncio.sleep(0.05)
    raise AssertionError("refusals are missing in the chain")


async def test_a_token_serves_on_the_device_of_its_bearer_alone(cloud: Cloud) -> None:
    await cloud.add("ana")
    await cloud.activate()
    headers = await cloud.headers("ana")
    assert (await cloud.client.get("/v1/auth/me", headers=headers)).json()["username"] == "ana"
    for device in ({"x-medrec-device": "rui"}, {"x-medrec-device": ""}):
        answer = await cloud.client.get("/v1/auth/me", headers=headers | device)
        assert answer.status_code == 403
    del headers["x-medrec-device"]
    answer = await cloud.client.get("/v1/auth/me", headers=headers)
    assert answer.json()["code"] == "device_required"


async def test_a_token_of_the_site_is_taken_until_the_user_is_taken_off_the_list(
    cloud: Cloud,
) -> None:
    """The session is the site's, so nothing of it is known here."""
    await cloud.add("ana")
    await cloud.activate()
    headers = await cloud.headers("ana")
    cloud.owner.rows("DELETE FROM accounts.session")
    assert (await cloud.client.get("/v1/auth/me", headers=headers)).status_code == 200


class TestTwoPlaces:
    """With two places instead of fifty."""

    @pytest.fixture
    def emergency_args(self) -> EmergencyArgs:
        return EmergencyArgs(users=2)

    async def test_one_more_than_the_places_is_told_so(self, cloud: Cloud) -> None:
        for name in ("ana", "rui", "eva"):
            await cloud.add(name)
        await cloud.activate()
        assert (await cloud.sign_in("ana")).status_code == 200
        assert (await cloud.sign_in("rui")).status_code == 200
        assert (await cloud.sign_in("rui")).status_code == 200
        answer = await cloud.sign_in("eva")
        assert answer.status_code == 429
        assert answer.json()["error"] == "emergency_full"
        assert answer.json()["error_description"].startswith("2 users are signed in")
        headers = await cloud.headers("ana")
        await cloud.client.post("/v1/auth/logout", headers=headers)
        cloud.owner.rows("UPDATE accounts.session SET revoked_at = now()")
        assert (await cloud.sign_in("eva")).status_code == 200

    async def test_no_more_are_enrolled_than_there_are_places(self, cloud: Cloud) -> None:
        for name in ("ana", "rui", "eva"):
            await cloud.add(name, enrolled=False)
        async with enrolment(cloud.places, "hospital", 2) as desk:
            assert [await desk.enrol(name) for name in ("ana", "rui")] == [1, 2]
            with pytest.raises(Conflict, match="All 2 places are taken"):
                await desk.enrol("eva")
            with pytest.raises(Conflict, match="enrolled already"):
                await desk.enrol("ana")
            await desk.unenrol("ana")
            assert await desk.enrol("eva") == 1
            assert [each.username for each in await desk.enrolled()] == ["eva", "rui"]
        changes = [e["details"]["change"] for e in cloud.owner.entries("account-change")]
        assert changes[-4:] == ["enrolled", "enrolled", "unenrolled", "enrolled"]


class TestExpiry:
    """An activation that has run out."""

    async def test_it_ends_by_itself_is_not_begun_again_by_the_same_call_and_is_extended(
        self, cloud: Cloud
    ) -> None:
        since = time.time()
        assert (await cloud.activate(since)).status_code == 201
        cloud.owner.rows("UPDATE emergency.activation SET expires_at = now()")
        await _seen(cloud, "expired")
        answer = await cloud.client.get("/v1/models")
        assert answer.status_code == 503
        assert "is over" in answer.text
        again = await cloud.activate(since)
        assert (again.status_code, again.json()["code"]) == (409, "emergency_expired")
        assert (await cloud.activate(since + 60)).status_code == 201


async def _seen(cloud: Cloud, state: str) -> None:
    for _ in range(100):
        if (await cloud.client.get("/v1/mode")).json()["state"] == state:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(state)


async def test_chats_are_short_and_bounded_where_they_do_not_say(cloud: Cloud) -> None:
    await cloud.add("ana")
    await cloud.activate()
    headers = await cloud.headers("ana")
    chat = {"model": "fake", "messages": [{"role": "user", "content": "hello"}]}
    card = cloud.language.state().models[0].id
    chat["model"] = card
    answer = await cloud.client.post("/v1/chat/completions", json=chat, headers=headers)
    assert answer.status_code == 200, answer.text
    assert cloud.language.requests[-1].max_tokens == 256
    answer = await cloud.client.post(
        "/v1/chat/completions", json=chat | {"max_tokens": 4000}, headers=headers
    )
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "not_in_emergency"
    assert answer.json()["error"]["param"] == "max_tokens"


async def test_a_cell_of_the_site_says_that_it_is_normal(cloud: Cloud) -> None:
    app = create_app(services_of(FakeLanguage()), Limits())
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://cell") as client:
        answer = await client.get("/v1/emergency/notes")
        assert (answer.status_code, answer.json()["code"]) == (403, "only_in_emergency")
        assert answer.headers["x-medrec-mode"] == "normal"
        assert (await client.get("/health/live")).headers["x-medrec-mode"] == "normal"
