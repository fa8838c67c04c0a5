"""Proves the routes of break-glass: bodies, rights, answers and error shapes, over the real records."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from configs.args import Limits
from deployments.data.audit.chain import Audit
from serve_app.break_glass import break_glass_routes
from serve_app.services import Services
from serve_app.surface import create_app
from tests.deployments.data.records import people
from tests.deployments.data.records.conftest import House, audit, house, owner, records, sealer
from tests.serve_app.fake_language import FakeLanguage
from tests.serve_app.fhir.conftest import NoChats, Tokens

__all__ = ("audit", "house", "owner", "records", "sealer")

REASON = "found unconscious, allergies unknown"


@pytest.fixture
async def client(house: House, audit: Audit) -> AsyncIterator[httpx.AsyncClient]:
    tokens = Tokens()
    tokens.principals = {
        "colleague": house.colleague.principal,
        "auditor": people.caller("auditor").principal,
        "analyst": people.caller("analyst").principal,
    }
    routes = break_glass_routes(house.records.break_glass)
    services = Services(
        language=FakeLanguage(),
        authority=tokens,
        audit=audit,
        duties=NoChats(),
        routes=(lambda app: app.include_router(routes),),
    )
    transport = httpx.ASGITransport(create_app(services, Limits()))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as made:
        yield made


def signed(name: str, **more: str) -> dict[str, str]:
    return {"authorization": f"Bearer {name}", **more}


async def test_a_record_is_opened_listed_and_judged(
    client: httpx.AsyncClient,
    house: House,
) -> None:
    id = await house.patient(cpf=people.CPF)
    body: dict[str, Any] = {"patient": f"Patient/{id}", "reason": REASON}
    headers = signed("colleague", **{"idempotency-key": "one"})
    first = await client.post("/v1/break-glass", json=body, headers=headers)
    second = await client.post("/v1/break-glass", json=body, headers=headers)
    assert first.status_code == 201, first.text
    assert second.json() == first.json()
    grant = first.json()
    assert (grant["patient"], grant["reason"], grant["review"]) == (f"Patient/{id}", REASON, None)
    by_number = {
        "identifier": {"system": people.CPF_SYSTEM, "value": people.CPF},
        "reason": REASON,
    }
    found = await client.post("/v1/break-glass", json=by_number, headers=signed("colleague"))
    assert found.json()["patient"] == f"Patient/{id}"

    listed = await client.get("/v1/break-glass?reviewed=false", headers=signed("auditor"))
    assert [each["id"] for each in listed.json()["grants"]] == [found.json()["id"], grant["id"]]
    page = await client.get("/v1/break-glass?count=1", headers=signed("auditor"))
    cursor = page.json()["next"]
    rest = await client.get(f"/v1/break-glass?cursor={cursor}", headers=signed("auditor"))
    assert [each["id"] for each in rest.json()["grants"]] == [grant["id"]]

    path = f"/v1/break-glass/{grant['id']}/review"
    verdict = {"verdict": "justified", "note": "was alone on the ward"}
    judged = await client.post(path, json=verdict, headers=signed("auditor"))
    assert judged.status_code == 200, judged.text
    assert judged.json()["review"]["verdict"] == "justified"
    repeated = await client.post(path, json=verdict, headers=signed("auditor"))
    assert repeated.status_code == 409


async def test_refusals_are_problems_that_quote_nothing(
    client: httpx.AsyncClient,
    house: House,
) -> None:
    id = await house.patient()
    good = {"patient": f"Patient/{id}", "reason": REASON}
    nobody = "Patient/8d7c1f0a-2f6b-4d38-9a5e-3c1b8f1f2f12"
    refused = [
        (400, "colleague", {"reason": REASON}),
        (400, "colleague", {**good, "identifier": {"system": "s", "value": people.MARK}}),
        (400, "colleague", {**good, "reason": "short"}),
        (400, "colleague", {**good, "reason": people.MARK * 100}),
        (400, "colleague", {**good, "reason": "a\u0000bbbbbbbbbbbbb"}),
        (400, "colleague", {**good, "more": people.MARK}),
        (400, "colleague", {**good, "patient": f"Patient/{people.MARK}'--"}),
        (400, "colleague", [people.MARK]),
        (404, "colleague", {**good, "patient": nobody}),
        (403, "analyst", good),
        (403, "auditor", good),
        (401, "nobody", good),
    ]
    for status, who, body in refused:
        found = await client.post("/v1/break-glass", json=body, headers=signed(who))
        assert found.status_code == status, body
        assert found.headers["content-type"] == "application/problem+json"
        assert people.MARK not in found.text
    for query in ("reviewed=yes", "count=0", "count=101", "count=x", "cursor=x", "other=1"):
        answer = await client.get(f"/v1/break-glass?{query}", headers=signed("auditor"))
        assert answer.status_code == 400, query
    listed = await client.get("/v1/break-glass", headers=signed("colleague"))
    assert listed.status_code == 403
    for path in ("nothing", "8d7c1f0a-2f6b-4d38-9a5e-3c1b8f1f2f12"):
        answer = await client.post(
            f"/v1/break-glass/{path}/review",
            json={"verdict": "justified"},
            headers=signed("auditor"),
        )
        assert answer.status_code == 404


async def test_the_routes_describe_themselves(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    opened = document["paths"]["/v1/break-glass"]["post"]
    assert set(opened["responses"]) >= {"201", "400", "401", "403", "404", "412", "422", "503"}
    assert opened["requestBody"]["required"]
    assert "Idempotency-Key" in [each["name"] for each in opened["parameters"]]
    listed = document["paths"]["/v1/break-glass"]["get"]
    assert [each["name"] for each in listed["parameters"]] == ["reviewed", "count", "cursor"]
