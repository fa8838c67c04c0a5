"""Patients of others stay closed on every path: unknown where they may not be known, never shown."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from deployments.data.accounts.administration import NewUser
from tests.surface.conftest import Patients
from tests.surface.world import ELSEWHERE, FHIR, Held, World, created, hold, observation, post

TYPES = (
    *("Patient", "Observation", "Encounter", "Condition", "AllergyIntolerance"),
    *("MedicationRequest", "MedicationStatement", "DiagnosticReport", "DocumentReference"),
    *("Consent", "Provenance", "Binary"),
)


@pytest.fixture(scope="module")
def colleague(world: World) -> httpx.Client:
    """A physician of the other organisation."""
    password = "muitas-palavras-diferentes-3"
    world.add_user(
        NewUser(
            username="colega",
            role="physician",
            organization=ELSEWHERE,
            password=password,
            practitioner="colega",
        )
    )
    return world.client(world.sign_in("colega", password)["access_token"])


@pytest.fixture(params=["no care", "other organisation", "other organisation's physician", "swap"])
def pair(
    request: pytest.FixtureRequest, world: World, patients: Patients
) -> tuple[httpx.Client, Held]:
    """Somebody, and a patient whom they may not see."""
    if request.param == "no care":
        return request.getfixturevalue("physician"), patients.stranger
    if request.param == "other organisation":
        return world.elsewhere, patients.cared
    if request.param == "swap":
        return world.demo, patients.foreign
    return request.getfixturevalue("colleague"), patients.cared


def assert_closed(answer: httpx.Response, held: Held) -> None:
    assert answer.status_code in (403, 404), (answer.status_code, answer.text)
    assert held.mark not in answer.text


def test_what_is_closed_here_is_open_to_those_who_care(
    physician: httpx.Client, patients: Patients
) -> None:
    cared = patients.cared
    for kind in TYPES:
        answer = physician.get(f"/fhir/{kind}/{cared.ids[kind]}")
        assert answer.status_code == 200, (kind, answer.text)
        assert cared.mark in answer.text, kind


@pytest.mark.parametrize("kind", TYPES)
def test_read_vread_history_update_and_delete_are_closed(
    pair: tuple[httpx.Client, Held], kind: str
) -> None:
    client, held = pair
    at = f"/fhir/{kind}/{held.ids[kind]}"
    for path in (at, f"{at}/_history", f"{at}/_history/1"):
        assert_closed(client.get(path), held)
    if kind != "Binary":
        subject = {"reference": f"Patient/{held.patient}"}
        resource: dict[str, Any] = (
            {"resourceType": "Patient", "id": held.patient, "birthDate": "1980-01-01"}
            if kind == "Patient"
            else {**observation(subject), "id": held.ids[kind]}
        )
        if kind in ("Patient", "Observation"):
            for headers in ({}, {"if-match": 'W/"1"'}):
                answer = client.put(at, json=resource, headers={"content-type": FHIR, **headers})
                assert_closed(answer, held)
    assert_closed(client.delete(at), held)


def test_nothing_of_it_has_changed(world: World, patients: Patients) -> None:
    for client, held in ((world.demo, patients.stranger), (world.elsewhere, patients.foreign)):
        for kind in TYPES:
            answer = client.get(f"/fhir/{kind}/{held.ids[kind]}")
            assert answer.status_code == 200
            assert answer.headers["etag"] == 'W/"1"'


@pytest.mark.parametrize("kind", [kind for kind in TYPES if kind != "Binary"])
def test_no_search_finds_it(pair: tuple[httpx.Client, Held], kind: str) -> None:
    client, held = pair
    queries = [{"_id": held.ids[kind]}, {"_lastUpdated": "ge2020-01-01", "_count": "100"}]
    if kind == "Patient":
        queries += [{"name": held.mark}, {"family": held.mark}, {"birthdate": "1970-01-02"}]
    else:
        queries += [{"patient": held.patient}, {"patient": f"Patient/{held.patient}"}]
    if kind == "Encounter":
        queries += [{"patient": held.patient, "_include": "Encounter:patient"}]
    for query in queries:
        for answer in (
            client.get(f"/fhir/{kind}", params=query),
            client.post(f"/fhir/{kind}/_search", data=query),
        ):
            assert answer.status_code in (200, 403, 404), answer.text
            assert held.ids[kind] not in _ids(answer)
            # The link to itself repeats the question; nothing else may hold the name.
            entries = answer.json().get("entry", []) if answer.status_code == 200 else answer.text
            assert held.mark not in json.dumps(entries)


def _ids(answer: httpx.Response) -> Iterator[str]:
    if answer.status_code == 200:
        for entry in answer.json().get("entry", []):
            yield entry["resource"].get("id", "")


def test_everything_and_includes_do_not_open_it(pair: tuple[httpx.Client, Held]) -> None:
    client, held = pair
    assert_closed(client.get(f"/fhir/Patient/{held.patient}/$everything"), held)
    answer = client.get("/fhir/Observation", params={"_include": "Observation:patient"})
    assert held.mark not in answer.text


def test_nothing_is_written_into_its_chart(pair: tuple[httpx.Client, Held]) -> None:
    client, held = pair
    reference = f"Patient/{held.patient}"
    answer = post(client, observation({"reference": reference}))
    assert answer.status_code in (403, 404, 422), answer.text
    assert held.mark not in answer.text
    upload = client.post(
        "/fhir/Binary",
        content=b"x",
        headers={"content-type": "text/plain", "x-security-context": reference},
    )
    assert upload.status_code in (403, 404, 422), upload.text


def test_no_entry_of_a_transaction_reaches_it_and_the_rest_of_it_does_not_happen(
    pair: tuple[httpx.Client, Held], world: World
) -> None:
    client, held = pair
    subject = {"reference": f"Patient/{held.patient}"}
    observed = f"Observation/{held.ids['Observation']}"
    mark = uuid.uuid4().hex
    entries: list[dict[str, Any]] = [
        {"request": {"method": "POST", "url": "Observation"}, "resource": observation(subject)},
        {"request": {"method": "DELETE", "url": observed}},
        {
            "request": {"method": "PUT", "url": observed},
            "resource": {**observation(subject), "id": held.ids["Observation"]},
        },
    ]
    beside = {
        "fullUrl": f"urn:uuid:{uuid.uuid4()}",
        "request": {"method": "POST", "url": "Patient"},
        "resource": {
            "resourceType": "Patient",
            "identifier": [{"system": "urn:test:beside", "value": mark}],
        },
    }
    for entry in entries:
        bundle = {"resourceType": "Bundle", "type": "transaction", "entry": [beside, entry]}
        answer = client.post("/fhir", json=bundle, headers={"content-type": FHIR})
        assert answer.status_code in (403, 404, 422), answer.text
        assert held.mark not in answer.text
    for everyone in (world.demo, world.elsewhere):
        found = everyone.get("/fhir/Patient", params={"identifier": f"urn:test:beside|{mark}"})
        assert not list(_ids(found))


def test_a_search_inside_a_transaction_does_not_find_it(pair: tuple[httpx.Client, Held]) -> None:
    client, held = pair
    bundle = {
        "resourceType": "Bundle",
        "type": "transaction",
        "entry": [
            {"request": {"method": "GET", "url": f"Patient?_id={held.patient}"}},
        ],
    }
    answer = client.post("/fhir", json=bundle, headers={"content-type": FHIR})
    assert held.mark not in answer.text


def test_a_resource_is_not_moved_between_patients(
    physician: httpx.Client, patients: Patients, world: World
) -> None:
    mine = hold(world.demo, "MARCAPROPRIA", world.practitioner)
    moved = observation({"reference": f"Patient/{patients.stranger.patient}"})
    at = f"/fhir/Observation/{mine.ids['Observation']}"
    answer = physician.put(
        at, json={**moved, "id": mine.ids["Observation"]}, headers={"content-type": FHIR}
    )
    assert answer.status_code in (403, 404, 409, 422), answer.text
    # Nor by the machine, which may see both.
    answer = world.demo.put(
        at, json={**moved, "id": mine.ids["Observation"]}, headers={"content-type": FHIR}
    )
    assert answer.status_code in (403, 404, 409, 422), answer.text


def test_conditional_create_neither_finds_nor_tells_of_it(pair: tuple[httpx.Client, Held]) -> None:
    client, held = pair
    answer = client.post(
        "/fhir/Patient",
        json={"resourceType": "Patient", "birthDate": "1999-01-01"},
        headers={"content-type": FHIR, "if-none-exist": f"_id={held.patient}"},
    )
    assert answer.status_code in (201, 400, 403), answer.text
    assert held.patient not in answer.headers.get("location", "")
    assert held.mark not in answer.text


def test_a_chat_about_it_is_refused_before_the_model_sees_a_word(
    world: World, pair: tuple[httpx.Client, Held]
) -> None:
    client, held = pair
    before = len(world.language.requests)
    for reference in (f"Patient/{held.patient}", held.patient):
        answer = client.post(
            "/v1/chat/completions",
            json={
                "model": "gemma3-demo",
                "messages": [{"role": "user", "content": "olá"}],
                "metadata": {"patient": reference},
            },
        )
        assert answer.status_code in (400, 403, 404), answer.text
        assert held.mark not in answer.text
    assert len(world.language.requests) == before


def test_interactions_of_others_are_not_listed_or_judged(
    world: World, physician: httpx.Client, patients: Patients, colleague: httpx.Client
) -> None:
    answer = physician.post(
        "/v1/chat/completions",
        json={
            "model": "gemma3-demo",
            "messages": [{"role": "user", "content": "resuma"}],
            "metadata": {"patient": f"Patient/{patients.cared.patient}"},
        },
    )
    assert answer.status_code == 200, answer.text
    interaction = answer.headers["x-interaction-id"]
    own = physician.get(f"/v1/ai/interactions/{interaction}")
    assert own.status_code == 200
    assert_closed(colleague.get(f"/v1/ai/interactions/{interaction}"), patients.cared)
    listed = colleague.get("/v1/ai/interactions", params={"patient": patients.cared.patient})
    assert interaction not in listed.text
    decided = colleague.post(
        "/v1/ai/decisions", json={"interaction": interaction, "decision": "accepted"}
    )
    assert decided.status_code in (403, 404), decided.text


def test_alerts_about_it_are_neither_raised_nor_shown_nor_taken_on(
    world: World, pair: tuple[httpx.Client, Held]
) -> None:
    client, held = pair
    asked = {"severity": "high", "kind": "fall", "to": {"care": True}, "text": held.mark}
    about = {**asked, "patient": f"Patient/{held.patient}"}
    assert_closed(client.post("/v1/alerts", json=about), held)
    organization = ELSEWHERE if held.mark == "MARCAALHEIO" else None
    raiser = world.client(world.key("system/*.cruds alerts alerts:raise", organization))
    raised = raiser.post("/v1/alerts", json=about)
    assert raised.status_code == 201, raised.text
    at = f"/v1/alerts/{raised.json()['id']}"
    assert raiser.get(at).json()["text"] == held.mark
    for answer in (client.get(at), client.post(f"{at}/acknowledge"), client.post(f"{at}/resolve")):
        assert_closed(answer, held)
    assert held.mark not in client.get("/v1/alerts", params={"state": "all"}).text


def test_break_glass_opens_it_for_the_one_who_asked_and_for_no_other_organisation(
    world: World, physician: httpx.Client, patients: Patients, colleague: httpx.Client
) -> None:
    held = hold(world.demo, "MARCAVIDRO")
    assert_closed(physician.get(f"/fhir/Patient/{held.patient}"), held)
    reason = {"patient": f"Patient/{held.patient}", "reason": "Parada cardíaca no corredor"}
    assert_closed(colleague.post("/v1/break-glass", json=reason), held)
    opened = physician.post("/v1/break-glass", json=reason)
    assert opened.status_code == 201, opened.text
    assert physician.get(f"/fhir/Patient/{held.patient}").status_code == 200
    assert_closed(colleague.get(f"/fhir/Patient/{held.patient}"), held)
    assert_closed(world.user("nurse").get(f"/fhir/Patient/{held.patient}"), held)


def test_an_audit_is_read_by_auditors_of_the_own_organisation_only(
    world: World, physician: httpx.Client
) -> None:
    unasked = hold(world.elsewhere, "MARCADELONGE")
    for client in (physician, world.demo, world.elsewhere, world.user("analyst")):
        assert client.get("/fhir/AuditEvent").status_code == 403
    seen = world.user("auditor").get("/fhir/AuditEvent", params={"_count": "100"})
    assert seen.status_code == 200
    assert unasked.patient not in seen.text
    assert seen.json()["entry"]


def test_another_organisations_idempotency_key_is_another_key(world: World) -> None:
    key = uuid.uuid4().hex
    resource = {"resourceType": "Organization", "name": "Um"}
    ids = [
        created(
            client.post(
                "/fhir/Organization",
                json=resource,
                headers={"content-type": FHIR, "idempotency-key": key},
            )
        )
        for client in (world.demo, world.elsewhere)
    ]
    assert ids[0] != ids[1]
