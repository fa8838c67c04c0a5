"""Transaction Bundles over HTTP: all or nothing, links between entries, reads among writes."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from fhir.resources.R4B.bundle import Bundle

from deployments.data.errors import DataError
from deployments.data.records.bundle import MAX_ENTRIES
from serve_app.fhir.transactions import entries_of
from tests.deployments.data.records import people

URN = "urn:uuid:6f1b6c3e-0000-4000-8000-000000000001"


def bundle(*entries: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"resourceType": "Bundle", "type": "transaction", "entry": list(entries), **more}


def post(resource: dict[str, Any], full_url: str | None = None, **more: Any) -> dict[str, Any]:
    entry = {"resource": resource, "request": {"method": "POST", "url": resource["resourceType"]}}
    entry["request"] |= more
    return entry | ({"fullUrl": full_url} if full_url else {})


def observation(patient: str) -> dict[str, Any]:
    return people.observation("x", subject={"reference": patient})


async def test_entries_refer_to_each_other(physician: httpx.AsyncClient) -> None:
    # The observation comes first: the order of entries must not matter.
    sent = bundle(post(observation(URN)), post(people.patient(), URN))
    answer = await physician.post("", json=sent)
    assert answer.status_code == 200, answer.text
    result = answer.json()
    Bundle.model_validate(result)
    first, second = result["entry"]
    assert first["response"]["status"] == second["response"]["status"] == "201 Created"
    assert first["resource"]["subject"]["reference"] == f"Patient/{second['resource']['id']}"
    assert (await physician.get(first["response"]["location"])).json() == first["resource"]


async def test_one_bad_entry_undoes_all(physician: httpx.AsyncClient) -> None:
    bad = post(observation("Patient/unknown"))
    sent = bundle(post(people.patient(cpf=people.CPF), URN), bad)
    assert (await physician.post("", json=sent)).status_code == 422
    found = await physician.get(f"/Patient?identifier={people.CPF}")
    assert "entry" not in found.json()


async def test_reads_searches_updates_and_deletions_go_together(
    physician: httpx.AsyncClient,
) -> None:
    patient = (await physician.post("/Patient", json=people.patient())).json()
    other = (await physician.post("/Patient", json=people.patient())).json()
    place = f"Patient/{patient['id']}"
    sent = bundle(
        {"request": {"method": "GET", "url": place}},
        {"request": {"method": "GET", "url": f"Patient?_id={patient['id']}"}},
        {
            "resource": {**patient, "gender": "other"},
            "request": {"method": "PUT", "url": place, "ifMatch": 'W/"1"'},
        },
        {"request": {"method": "DELETE", "url": f"Patient/{other['id']}"}},
    )
    answer = await physician.post("", json=sent, headers={"prefer": "return=minimal"})
    assert answer.status_code == 200, answer.text
    read, search, update, deletion = answer.json()["entry"]
    assert read["resource"]["gender"] == "other"
    assert search["resource"]["entry"][0]["resource"]["id"] == patient["id"]
    assert update["response"]["etag"] == 'W/"2"'
    assert "resource" not in update
    assert deletion["response"]["status"] == "204 No Content"


async def test_a_repeated_transaction_writes_once(physician: httpx.AsyncClient) -> None:
    headers = {"idempotency-key": "bundle"}
    sent = bundle(post(people.patient(cpf=people.CPF)))
    first = await physician.post("", json=sent, headers=headers)
    again = await physician.post("", json=sent, headers=headers)
    places = [each.json()["entry"][0]["response"]["location"] for each in (first, again)]
    assert places[0] == places[1]


PATIENT = people.patient()
BAD: list[tuple[Any, str]] = [
    ([], "Bundle"),
    ({"resourceType": "Bundle", "type": "batch"}, "Bundle.type"),
    (bundle(), "Bundle.entry"),
    (bundle(entry={}), "Bundle.entry"),
    (bundle(post(PATIENT), implicitRules="http://a"), "Bundle"),
    (bundle({"resource": PATIENT}), "Bundle.entry[0].request"),
    (bundle(post(PATIENT), {"request": 1}), "Bundle.entry[1].request"),
    (bundle({"request": {"method": "PATCH", "url": "Patient/1"}}), "Bundle.entry[0].request"),
    (bundle({"request": {"method": ["GET"], "url": "Patient/1"}}), "Bundle.entry[0].request"),
    (bundle({"request": {"method": "GET", "url": "/Patient/1"}}), "Bundle.entry[0].request.url"),
    (bundle({"request": {"method": "GET", "url": 1}}), "Bundle.entry[0].request.url"),
    (bundle({"request": {"method": "GET", "url": "Nothing/1"}}), "Bundle.entry[0].request.url"),
    (bundle({"request": {"method": "DELETE", "url": "Patient"}}), "Bundle.entry[0].request.url"),
    (
        bundle({"request": {"method": "DELETE", "url": "Patient?name=a"}}),
        "Bundle.entry[0].request.url",
    ),
    (bundle(post(PATIENT, url="Patient/1")), "Bundle.entry[0].request.url"),
    (bundle(post(PATIENT, url="Observation")), "Bundle.entry[0].resource"),
    (bundle({"request": {"method": "POST", "url": "Patient"}}), "Bundle.entry[0].resource"),
    (bundle(post(PATIENT, ifNoneExist="")), "If-None-Exist"),
    (bundle(post(PATIENT, ifMatch='W/"1"')), "Bundle.entry[0].request.ifMatch"),
    (bundle(post(PATIENT, ifNoneMatch="*")), "Bundle.entry[0]"),
    (bundle({**post(PATIENT), "search": {}}), "Bundle.entry[0]"),
    (bundle(post(PATIENT, "mine")), "Bundle.entry[0].fullUrl"),
    (bundle(post(PATIENT, URN), post(PATIENT, URN)), "Bundle.entry.fullUrl"),
    (bundle(*[post(PATIENT)] * (MAX_ENTRIES + 1)), "Bundle.entry"),
    (bundle(post({**PATIENT, "resourceType": "Binary"})), "Bundle.entry[0].request.url"),
]


@pytest.mark.parametrize(("sent", "at"), BAD)
def test_a_bad_entry_is_named(sent: Any, at: str) -> None:
    with pytest.raises(DataError) as refused:
        entries_of(sent)
    assert refused.value.param == at
    assert people.MARK not in refused.value.message
