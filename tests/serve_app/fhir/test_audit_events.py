"""AuditEvents over HTTP: for auditors and admins alone, read only, by FHIR's parameters."""

from __future__ import annotations

from datetime import UTC, datetime

import httpx
import pytest
from fhir.resources.R4B.auditevent import AuditEvent

from deployments.data.errors import DataError
from serve_app.fhir.audit_events import search_of
from tests.deployments.data.records import people
from tests.serve_app.fhir.conftest import Site


async def test_an_auditor_reads_who_saw_a_patient(site: Site, physician: httpx.AsyncClient) -> None:
    body = (await physician.post("/Patient", json=people.patient())).json()
    await physician.get(f"/Patient/{body['id']}")
    async with site.client("auditor") as auditor:
        page = (await auditor.get(f"/AuditEvent?patient=Patient/{body['id']}&subtype=read")).json()
        assert len(page["entry"]) == 1
        event = page["entry"][0]["resource"]
        AuditEvent.model_validate(event)
        assert event["action"] == "R"
        assert (await auditor.get(f"/AuditEvent/{event['id']}")).json() == event
        who = site.tokens.principals["physician"].id
        asked = {"agent:identifier": who, "date": "ge2026", "outcome": "0"}
        form = (await auditor.post("/AuditEvent/_search", data=asked)).json()
        assert event["id"] in [entry["resource"]["id"] for entry in form["entry"]]
        assert people.MARK not in (await auditor.get("/AuditEvent")).text
        assert (await auditor.get("/AuditEvent/unknown")).status_code == 404
    for path in ("/AuditEvent", f"/AuditEvent/{event['id']}"):
        assert (await physician.get(path)).status_code == 403


async def test_pages_follow_each_other(site: Site, physician: httpx.AsyncClient) -> None:
    body = (await physician.post("/Patient", json=people.patient())).json()
    for _ in range(4):
        await physician.get(f"/Patient/{body['id']}")
    async with site.client("auditor") as auditor:
        url: str | None = f"/AuditEvent?patient={body['id']}&subtype=read&_count=3"
        seen: list[str] = []
        while url is not None:
            page = (await auditor.get(url)).json()
            seen += [entry["resource"]["id"] for entry in page["entry"]]
            url = next((each["url"] for each in page["link"] if each["relation"] == "next"), None)
    assert len(seen) == len(set(seen)) == 4


def test_dates_narrow_a_span() -> None:
    wanted, count, _ = search_of([("date", "ge2026-01"), ("date", "lt2026-03"), ("_count", "999")])
    assert wanted.since == datetime(2026, 1, 1, tzinfo=UTC)
    assert wanted.until == datetime(2026, 3, 1, tzinfo=UTC)
    assert count == 200


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("name", "a"),
        ("agent", "a"),
        ("patient", "Observation/1"),
        ("patient", "' OR 1=1 --"),
        ("action", "X"),
        ("outcome", "5"),
        ("date", "ne2026"),
        ("date", "soon"),
        ("_count", "0"),
        ("_sort", "date"),
        ("subtype", "a|b"),
    ],
)
def test_what_is_not_offered_is_refused(name: str, value: str) -> None:
    with pytest.raises(DataError) as refused:
        search_of([(name, value)])
    assert refused.value.status == 400
    assert value not in refused.value.message.split()
