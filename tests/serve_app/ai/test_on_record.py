"""Chats on the real audit: what stands in the chain at each moment of an answer."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from configs.args import RecordsArgs
from deployments.data.audit.chain import Audit
from deployments.data.database import Database
from deployments.data.records.store import Records
from deployments.data.scopes import ROLE_SCOPES
from deployments.data.seal import keys
from deployments.data.seal.sealer import Sealer
from tests.deployments.data.audit.conftest import MortalServer
from tests.deployments.data.interactions.conftest import again, chained, eventually
from tests.deployments.data.records import people
from tests.deployments.data.records.conftest import House, Owner
from tests.serve_app.ai.hospital import Hospital
from tests.serve_app.fake_language import ASK, HELLO, FakeLanguage, RawConnection, http_client

CHAT = "/v1/chat/completions"
TEXT_SHA256 = hashlib.sha256(b"Pressure is 120/80").hexdigest()


def about(patient: str, *, stream: bool = False) -> dict[str, Any]:
    return {**ASK, "stream": stream, "metadata": {"patient": f"Patient/{patient}"}}


async def for_ever() -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize("stream", [False, True])
async def test_the_question_is_chained_before_the_engine_and_the_outcome_before_the_end(
    hospital: Hospital, house: House, owner: Owner, stream: bool
) -> None:
    patient = await house.patient()
    at_the_engine: list[list[str]] = []
    at_the_end: list[list[str]] = []

    def told() -> list[str]:
        return [entry["action"] for entry in owner.entries() if entry["action"].startswith("ai-")]

    async def look() -> None:
        at_the_engine.append(told())

    connection = RawConnection().give(json.dumps(about(patient, stream=stream)).encode())
    send = connection.send

    async def watched(message: MutableMapping[str, Any]) -> None:
        body = message.get("body", b"")
        if body.endswith((b"[DONE]\n\n", b"}")):
            at_the_end.append(told())
        await send(message)

    connection.send = watched  # type: ignore[method-assign]
    service = FakeLanguage(look, *HELLO)
    async with hospital.surface(service, house.physician.principal) as app:
        await connection.run(app)
    assert connection.status == 200
    assert at_the_engine == [["ai-request"]]
    assert at_the_end == [["ai-request", "ai-answer"]]
    answer = owner.entries("ai-answer")[0]
    assert answer["patient"] == patient
    assert answer["details"]["output_sha256"] == TEXT_SHA256
    assert answer["details"]["finish_reasons"] == ["stop"]


async def test_a_client_that_leaves_is_chained_as_interrupted(
    hospital: Hospital, house: House, owner: Owner
) -> None:
    patient = await house.patient()
    service = FakeLanguage(HELLO[0], for_ever)
    connection = RawConnection().give(json.dumps(about(patient, stream=True)).encode())
    async with hospital.surface(service, house.physician.principal) as app:
        running = asyncio.create_task(connection.run(app))
        await asyncio.wait_for(connection.first_body.wait(), 10)
        connection.leave()
        await asyncio.wait_for(asyncio.wait({running}), 10)
    (answer,) = owner.entries("ai-answer")
    assert (answer["outcome"], answer["details"]["code"]) == ("interrupted", "client_gone")
    assert answer["details"]["output_sha256"] == hashlib.sha256(b"Pressure ").hexdigest()


async def test_a_patient_who_refuses_ai_is_not_talked_about_and_that_is_on_record(
    hospital: Hospital, house: House, owner: Owner
) -> None:
    patient = await house.patient()
    refusal = await house.records.create(again(house.physician), "Consent", people.consent(patient))
    service = FakeLanguage()
    async with (
        hospital.surface(service, house.physician.principal) as app,
        http_client(app) as client,
    ):
        refused = await client.post(CHAT, json=about(patient))
        without = await client.post(CHAT, json=ASK)
        withdrawn = people.consent(patient, status="inactive")
        stored = refusal.stored
        await house.records.update(
            again(house.physician),
            "Consent",
            stored.id,
            {**withdrawn, "id": stored.id},
            if_match=stored.version,
        )
        agreed = await client.post(CHAT, json=about(patient))
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "consent_refused")
    assert refused.json()["error"]["param"] == "metadata.patient"
    assert (without.status_code, agreed.status_code) == (200, 200)
    assert len(service.requests) == 2
    await eventually(lambda: len(owner.entries("consent-refusal")) == 1)
    (entry,) = owner.entries("consent-refusal")
    assert (entry["patient"], entry["outcome"]) == (patient, "denied")
    assert entry["resource"] == f"Consent/{stored.id}"


async def test_somebody_elses_patient_is_not_found_and_the_attempt_is_on_record(
    hospital: Hospital, house: House, owner: Owner
) -> None:
    patient = await house.patient()
    service = FakeLanguage()
    async with (
        hospital.surface(service, house.colleague.principal) as app,
        http_client(app) as client,
    ):
        strangers = await client.post(CHAT, json=about(patient))
        nobodys = await client.post(CHAT, json=about("nobody"))
    assert (strangers.status_code, nobodys.status_code) == (404, 404)
    assert strangers.json() == nobodys.json()
    assert service.requests == []
    await eventually(lambda: len(owner.entries("ai-request")) == 2)
    told = [(entry["outcome"], entry["patient"]) for entry in owner.entries("ai-request")]
    assert told == [("denied", patient), ("denied", "nobody")]


@pytest.mark.parametrize(
    ("role", "scopes", "headers", "status"),
    [
        ("auditor", None, {}, 403),
        ("admin", None, {}, 403),
        ("analyst", None, {}, 200),
        ("analyst", None, {"x-priority": "emergency"}, 403),
        ("nurse", None, {"x-priority": "emergency"}, 200),
        ("service", frozenset({"ai"}), {}, 200),
        ("service", frozenset({"system/*.cruds"}), {}, 403),
    ],
)
async def test_a_chat_needs_the_scope_for_it(
    hospital: Hospital, role: Any, scopes: Any, headers: dict[str, str], status: int
) -> None:
    grants = ROLE_SCOPES[role] if scopes is None else scopes
    who = people.caller(role, grants=grants).principal
    async with hospital.surface(FakeLanguage(), who) as app, http_client(app) as client:
        answer = await client.post(CHAT, json=ASK, headers=headers)
    assert answer.status_code == status


async def test_an_interaction_is_listed_shown_and_decided_over_http(
    hospital: Hospital, house: House
) -> None:
    patient = await house.patient()
    async with (
        hospital.surface(FakeLanguage(), house.physician.principal) as app,
        http_client(app) as client,
    ):
        chat = await client.post(CHAT, json=about(patient))
        name = chat.headers["x-interaction-id"]
        edited = {
            "interaction": name,
            "decision": "edited",
            "output_sha256": "c" * 64,
            "reason": "dose",
        }
        decided = await client.post("/v1/ai/decisions", json=edited)
        listed = await client.get("/v1/ai/interactions", params={"patient": f"Patient/{patient}"})
        shown = await client.get(f"/v1/ai/interactions/{name}")
    assert decided.status_code == 201
    (row,) = listed.json()["interactions"]
    assert (row["id"], row["patient"]) == (name, f"Patient/{patient}")
    assert row["decision"] == decided.json()
    assert "Pressure" not in listed.text
    assert shown.json()["input"] == ASK["messages"]
    assert shown.json()["output"] == [{"content": "Pressure is 120/80"}]


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/v1/ai/decisions", {"interaction": "none", "decision": "accepted"}, 404),
        ("POST", "/v1/ai/decisions", {"interaction": "x", "decision": "perhaps"}, 400),
        ("POST", "/v1/ai/decisions", {"interaction": "'; --", "decision": "accepted"}, 400),
        ("POST", "/v1/ai/decisions", {"decision": "accepted"}, 400),
        ("POST", "/v1/ai/decisions", [], 400),
        ("GET", "/v1/ai/interactions", None, 400),
        ("GET", "/v1/ai/interactions?patient=Patient/x%27--", None, 400),
        ("GET", "/v1/ai/interactions?patient=Patient/x", None, 404),
        ("GET", "/v1/ai/interactions?patient=Patient/x&limit=0", None, 400),
        ("GET", "/v1/ai/interactions?patient=Patient/x&limit=1&limit=2", None, 400),
        ("GET", "/v1/ai/interactions?patient=Patient/x&before=%00", None, 400),
        ("GET", "/v1/ai/interactions?patient=Patient/x&sort=a", None, 400),
        ("GET", "/v1/ai/interactions/none", None, 404),
        ("GET", "/v1/ai/interactions/%00", None, 400),
        ("GET", "/v1/ai/switches", None, 403),
        ("PUT", "/v1/ai/switches/chat", {"enabled": False, "reason": "x"}, 403),
    ],
)
async def test_what_is_refused_is_a_problem_that_quotes_nothing(
    hospital: Hospital, house: House, method: str, path: str, body: Any, status: int
) -> None:
    async with (
        hospital.surface(FakeLanguage(), house.physician.principal) as app,
        http_client(app) as client,
    ):
        answer = await client.request(method, path, json=body)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert "'--" not in answer.text


async def test_the_switch_stops_chats_and_needs_a_fresh_sign_in(
    hospital: Hospital, house: House
) -> None:
    admin = people.caller("admin").principal
    fresh = replace(admin, authenticated_at=time.time())
    off = {"enabled": False, "reason": "drift"}
    async with hospital.surface(FakeLanguage(), admin) as app, http_client(app) as client:
        stale = await client.put("/v1/ai/switches/site", json=off)
    assert (stale.status_code, stale.json()["code"]) == (403, "step_up_required")
    async with hospital.surface(FakeLanguage(), fresh) as app, http_client(app) as client:
        moved = await client.put("/v1/ai/switches/site", json=off)
        unknown = await client.put("/v1/ai/switches/vision", json=off)
        every = await client.get("/v1/ai/switches")
    assert (moved.status_code, unknown.status_code) == (200, 400)
    assert [each["enabled"] for each in every.json()["switches"]] == [False, True]
    service = FakeLanguage()
    async with (
        hospital.surface(service, house.physician.principal) as app,
        http_client(app) as client,
    ):
        refused = await client.post(CHAT, json=ASK)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "ai_switched_off")
    assert service.requests == []


@asynccontextmanager
async def opened(mortal: MortalServer, folder: Path) -> AsyncIterator[Hospital]:
    """A replica on a server of the test's own."""
    keys.create(folder / "secrets")
    sealer = Sealer.load(folder / "secrets")
    database = Database(mortal.dsn, connections=4)
    await database.open()
    audit = Audit(database, folder / "journal")
    await audit.start()
    records = Records(database, sealer, audit, RecordsArgs())
    try:
        yield Hospital(database, sealer, audit, records, folder, wait_s=1.5)
    finally:
        await audit.close()
        await database.close()


async def test_with_the_database_frozen_only_chats_without_a_patient_are_answered(
    mortal: MortalServer, tmp_path: Path
) -> None:
    machine = people.caller("service", grants=frozenset({"ai", "system/*.cruds"}))
    owner = Owner(mortal.owner_dsn)
    async with opened(mortal, tmp_path) as hospital:
        written = await hospital.records.create(again(machine), "Patient", people.patient())
        service = FakeLanguage()
        async with hospital.surface(service, machine.principal) as app, http_client(app) as client:
            mortal.freeze()
            try:
                async with asyncio.timeout(5):
                    without = await client.post(CHAT, json={**ASK, "stream": True})
                loop = asyncio.get_running_loop()
                began = loop.time()
                about_one = await client.post(CHAT, json=about(written.stored.id))
                lasted_s = loop.time() - began
            finally:
                mortal.thaw()
            assert without.text.endswith("data: [DONE]\n\n")
            assert about_one.status_code == 503
            assert lasted_s < 4
            assert len(service.requests) == 1
            name = without.headers["x-interaction-id"]
            await eventually(lambda: len(chained(owner, name)) == 2, timeout_s=30)
    assert chained(owner, name) == [("ai-request", "success"), ("ai-answer", "success")]


async def test_a_database_that_freezes_in_mid_stream_lets_no_done_out(
    mortal: MortalServer, tmp_path: Path
) -> None:
    machine = people.caller("service", grants=frozenset({"ai", "system/*.cruds"}))
    async with opened(mortal, tmp_path) as hospital:
        written = await hospital.records.create(again(machine), "Patient", people.patient())

        async def freeze() -> None:
            mortal.freeze()

        service = FakeLanguage(HELLO[0], freeze, *HELLO[1:])
        async with hospital.surface(service, machine.principal) as app, http_client(app) as client:
            try:
                answer = await client.post(CHAT, json=about(written.stored.id, stream=True))
            finally:
                mortal.thaw()
    assert answer.status_code == 200
    assert "[DONE]" not in answer.text
    last = json.loads(answer.text.split("\n\n")[-2].removeprefix("data: "))
    assert last["error"]["type"] == "server_error"
