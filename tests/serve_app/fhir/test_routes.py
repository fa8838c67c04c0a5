"""FHIR's interactions over HTTP: statuses, headers, versions, and one error shape everywhere."""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import pytest
from fhir.resources.R4B.bundle import Bundle
from fhir.resources.R4B.operationoutcome import OperationOutcome

from tests.deployments.data.records import people
from tests.serve_app.fhir.conftest import MAX_BODY_BYTES, Site


async def _created(client: httpx.AsyncClient, resource: dict[str, Any], **headers: str) -> Any:
    answer = await client.post(f"/{resource['resourceType']}", json=resource, headers=headers)
    assert answer.status_code == 201, answer.text
    return answer.json()


async def test_create_tells_where_the_resource_is_and_its_version(
    physician: httpx.AsyncClient,
) -> None:
    answer = await physician.post("/Patient", json=people.patient(id="mine"))
    body = answer.json()
    assert answer.status_code == 201
    assert body["id"] != "mine"
    place = f"http://records.test/fhir/Patient/{body['id']}/_history/1"
    assert answer.headers["location"] == place
    assert answer.headers["etag"] == 'W/"1"'
    assert answer.headers["content-type"] == "application/fhir+json"
    assert parsedate_to_datetime(answer.headers["last-modified"]).year >= 2026
    assert body["meta"]["versionId"] == "1"
    assert (await physician.get(place)).json() == body


@pytest.mark.parametrize(
    ("preference", "type"),
    [("minimal", None), ("representation", "Patient"), ("OperationOutcome", "OperationOutcome")],
)
async def test_a_client_says_what_it_wants_back(
    physician: httpx.AsyncClient, preference: str, type: str | None
) -> None:
    headers = {"prefer": f"return={preference}"}
    answer = await physician.post("/Patient", json=people.patient(), headers=headers)
    assert answer.status_code == 201
    assert (answer.json()["resourceType"] if answer.content else None) == type


async def test_update_takes_the_version_that_it_replaces(physician: httpx.AsyncClient) -> None:
    body = await _created(physician, people.patient())
    place = f"/Patient/{body['id']}"
    first = await physician.put(
        place, json={**body, "gender": "male"}, headers={"if-match": 'W/"1"'}
    )
    assert (first.status_code, first.headers["etag"]) == (200, 'W/"2"')
    late = await physician.put(place, json=body, headers={"if-match": '"1"'})
    assert late.status_code == 412
    assert (await physician.get(place)).json()["gender"] == "male"
    assert (await physician.put(place, json={**body, "id": "x"})).status_code == 400
    wrong = await physician.put(place, json=body, headers={"if-match": '"1", "2"'})
    assert wrong.json()["issue"][0]["expression"] == ["If-Match"]


async def test_ids_are_the_servers_so_an_unknown_one_is_not_created(
    physician: httpx.AsyncClient,
) -> None:
    answer = await physician.put("/Patient/mine", json=people.patient(id="mine"))
    assert answer.status_code == 404


async def test_what_a_client_has_is_not_sent_again(physician: httpx.AsyncClient) -> None:
    body = await _created(physician, people.patient())
    place = f"/Patient/{body['id']}"
    known = await physician.get(place, headers={"if-none-match": 'W/"1"'})
    assert (known.status_code, known.content) == (304, b"")
    other = await physician.get(place, headers={"if-none-match": 'W/"7"'})
    assert other.status_code == 200


async def test_a_deleted_resource_is_gone_but_its_history_is_not(
    physician: httpx.AsyncClient,
) -> None:
    body = await _created(physician, people.patient())
    place = f"/Patient/{body['id']}"
    assert (await physician.delete(place)).status_code == 204
    assert (await physician.delete(place)).status_code == 204
    assert (await physician.get(place)).status_code == 410
    assert (await physician.get(f"{place}/_history/2")).status_code == 410
    assert (await physician.get(f"{place}/_history/1")).json() == body
    assert (await physician.get(f"{place}/_history/3")).status_code == 404
    history = (await physician.get(f"{place}/_history")).json()
    Bundle.model_validate(history)
    assert [entry["request"]["method"] for entry in history["entry"]] == ["DELETE", "POST"]
    assert "resource" not in history["entry"][0]


async def test_a_history_has_pages(physician: httpx.AsyncClient) -> None:
    body = await _created(physician, people.patient())
    for gender in ("male", "other", "unknown"):
        await physician.put(f"/Patient/{body['id']}", json={**body, "gender": gender})
    url: str | None = f"/Patient/{body['id']}/_history?_count=3"
    seen = []
    while url is not None:
        page = (await physician.get(url)).json()
        seen += [entry["resource"]["meta"]["versionId"] for entry in page["entry"]]
        url = next((each["url"] for each in page["link"] if each["relation"] == "next"), None)
    assert seen == ["4", "3", "2", "1"]


async def test_a_conditional_create_makes_one_and_refuses_among_several(
    physician: httpx.AsyncClient,
) -> None:
    condition = {"if-none-exist": f"identifier={people.CPF_SYSTEM}|{people.CPF}"}
    body = await _created(physician, people.patient(cpf=people.CPF), **condition)
    again = await physician.post("/Patient", json=people.patient(), headers=condition)
    assert (again.status_code, again.json()["id"]) == (200, body["id"])
    await _created(physician, people.patient(cpf=people.CPF))
    several = await physician.post("/Patient", json=people.patient(), headers=condition)
    assert several.status_code == 412
    for text in ("", "_count=1", "identifier=a&_sort=_id"):
        refused = await physician.post(
            "/Patient", json=people.patient(), headers={"if-none-exist": text}
        )
        assert refused.status_code == 400


async def test_a_repeated_key_writes_once(physician: httpx.AsyncClient) -> None:
    headers = {"idempotency-key": "one"}
    first = await physician.post("/Patient", json=people.patient(), headers=headers)
    again = await physician.post("/Patient", json=people.patient(), headers=headers)
    assert again.headers["location"] == first.headers["location"]
    assert again.headers["idempotent-replayed"] == "true"
    other = people.patient(gender="male")
    assert (await physician.post("/Patient", json=other, headers=headers)).status_code in (409, 422)


async def test_everything_of_a_patient_comes_in_pages(physician: httpx.AsyncClient) -> None:
    patient = await _created(physician, people.patient())
    for _ in range(4):
        await _created(physician, people.observation(patient["id"]))
    url: str | None = f"/Patient/{patient['id']}/$everything?_count=2"
    seen = []
    while url is not None:
        page = (await physician.get(url)).json()
        Bundle.model_validate(page)
        seen += [entry["resource"]["id"] for entry in page["entry"]]
        url = next((each["url"] for each in page["link"] if each["relation"] == "next"), None)
    assert seen[0] == patient["id"]
    assert len(seen) == len(set(seen)) == 5
    refused = await physician.get(f"/Patient/{patient['id']}/$everything?_type=Observation")
    assert refused.status_code == 400


@pytest.mark.parametrize("accept", ["application/fhir+xml", "text/html", "application/json;q=0"])
async def test_only_json_is_spoken(physician: httpx.AsyncClient, accept: str) -> None:
    answer = await physician.get("/metadata", headers={"accept": accept})
    assert answer.status_code == 406
    assert (await physician.get("/metadata?_format=xml")).status_code == 406
    asked = await physician.get("/metadata?_format=json", headers={"accept": accept})
    assert asked.status_code == 200


PATIENT = "/Patient"
FHIR = {"content-type": "application/fhir+json"}
ERRORS: list[tuple[str, str, dict[str, Any], int]] = [
    ("GET", "/metadata?mode=normative", {}, 400),
    ("GET", "/metadata?shoe=44", {}, 400),
    ("GET", "/Nothing", {}, 404),
    ("GET", "/Nothing/1", {}, 404),
    ("GET", "/patient/1", {}, 404),
    ("GET", "/Patient/unknown", {}, 404),
    ("GET", "/Patient/un_known", {}, 404),
    ("GET", "/Patient/1/2/3", {}, 404),
    ("GET", "/Patient/1/_history/x", {}, 404),
    ("GET", "/Patient/1/_history/0", {}, 404),
    ("GET", "/Patient/1?_elements=name", {}, 400),
    ("GET", "/Patient/_history", {}, 405),
    ("GET", "/Patient/_search", {}, 405),
    ("PUT", PATIENT, {"json": {}}, 405),
    ("DELETE", "/Patient?name=a", {}, 405),
    ("PATCH", "/Patient/1", {"json": {}}, 405),
    ("POST", "/Patient/1", {"json": {}}, 405),
    ("POST", "/AuditEvent", {"json": {}}, 405),
    ("DELETE", "/AuditEvent/1", {}, 405),
    ("GET", "", {}, 405),
    ("POST", PATIENT, {"json": []}, 400),
    ("POST", PATIENT, {"content": b"{", "headers": FHIR}, 400),
    ("POST", PATIENT, {"content": b"[" * 9000, "headers": FHIR}, 400),
    ("POST", PATIENT, {"json": {"resourceType": "Observation"}}, 400),
    ("POST", PATIENT, {"json": {"resourceType": "Patient", "shoe": 44}}, 400),
    ("POST", PATIENT, {"json": {"resourceType": "Patient", "gender": "x"}}, 422),
    ("POST", PATIENT, {"json": people.patient(cpf="52998224726")}, 422),
    ("POST", PATIENT, {"json": people.patient(name=[{"text": "a\0"}])}, 400),
    ("POST", PATIENT, {"content": b"a=1", "headers": {"content-type": "text/xml"}}, 415),
    ("POST", PATIENT, {"json": {"a": "a" * MAX_BODY_BYTES}}, 413),
    ("POST", PATIENT, {"json": people.patient(), "headers": {"prefer": "return=all"}}, 400),
    ("POST", "/Patient/_search", {"json": {}}, 415),
    ("POST", "/Observation", {"json": people.observation("unknown")}, 422),
    ("GET", "/Patient?name=%ff", {}, 400),
]


@pytest.mark.parametrize(("method", "path", "sent", "status"), ERRORS)
async def test_every_refusal_is_an_operation_outcome(
    physician: httpx.AsyncClient, method: str, path: str, sent: dict[str, Any], status: int
) -> None:
    answer = await physician.request(method, path, **sent)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/fhir+json"
    OperationOutcome.model_validate(answer.json())
    assert answer.headers["x-request-id"]
    if status == 405:
        assert "allow" in answer.headers
    assert people.MARK not in answer.text


async def test_nobody_is_answered_without_credentials_but_about_the_server(site: Site) -> None:
    async with site.client(None) as client:
        assert (await client.get("/metadata")).status_code == 200
        for path in ("/Patient", "/Nothing", "/Patient/1", "/AuditEvent"):
            answer = await client.get(path)
            assert answer.status_code == 401
            assert answer.json()["issue"][0]["code"] == "login"


async def test_rights_and_care_decide_who_reads(site: Site, physician: httpx.AsyncClient) -> None:
    body = await _created(physician, people.patient())
    place = f"/Patient/{body['id']}"
    async with site.client("stranger") as stranger, site.client("analyst") as analyst:
        assert (await stranger.get(place)).status_code == 404
        assert "entry" not in (await stranger.get("/Patient")).json()
        assert (await analyst.get(place)).status_code == 403
    async with site.client("machine") as machine:
        assert (await machine.get(place)).json() == body


async def test_a_foreign_host_header_is_not_repeated(physician: httpx.AsyncClient) -> None:
    answer = await physician.get("/metadata", headers={"host": 'a"><b'})
    assert answer.json()["implementation"]["url"] == "/fhir"
