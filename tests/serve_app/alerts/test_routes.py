"""The alerts' routes: bodies, rights, answers, error shapes, and that they describe themselves."""

from __future__ import annotations

from typing import Any

from tests.deployments.data.records import people
from tests.serve_app.alerts.conftest import Replica, Served


def body(served: Served, **more: Any) -> dict[str, Any]:
    asked = {
        "severity": "critical",
        "kind": "fall",
        "patient": f"Patient/{served.ward.patient}",
        "to": {"care": True},
        "text": f"{people.MARK} fell",
    }
    return asked | more


async def test_an_alert_is_raised_once_read_taken_on_and_resolved(
    served: Served, replica: Replica
) -> None:
    async with replica.client("nurse") as nurse, replica.client() as physician:
        headers = {"idempotency-key": "one"}
        answers = [
            await nurse.post("/v1/alerts", json=body(served), headers=headers) for _ in range(2)
        ]
        assert [each.status_code for each in answers] == [201, 201]
        raised = answers[0].json()
        assert answers[1].json() == raised
        assert raised["to"] == {"practitioner": None, "role": None, "care": True}
        listed = (await physician.get("/v1/alerts")).json()
        assert [each["id"] for each in listed["alerts"]] == [raised["id"]]
        at = f"/v1/alerts/{raised['id']}"
        assert (await physician.get(at)).json() == raised
        own = await nurse.post(f"{at}/acknowledge")
        assert (own.status_code, own.json()["code"]) == (403, "own_alert")
        taken = (await physician.post(f"{at}/acknowledge")).json()
        assert (taken["state"], taken["due_at"]) == ("acknowledged", None)
        assert taken["acknowledgements"][0]["role"] == "physician"
        assert (await nurse.post(f"{at}/resolve")).json()["state"] == "resolved"
        late = await physician.post(f"{at}/resolve")
        assert late.status_code == 200
        assert (await physician.get("/v1/alerts")).json() == {"alerts": [], "next": None}
        every = await physician.get("/v1/alerts?state=all&count=1")
        assert [each["id"] for each in every.json()["alerts"]] == [raised["id"]]


async def test_refusals_are_problems_that_quote_nothing(served: Served, replica: Replica) -> None:
    mark = people.MARK
    nobody = "8d7c1f0a-2f6b-4d38-9a5e-3c1b8f1f2f12"
    refusals: list[tuple[int, str, Any]] = [
        (400, "nurse", [mark]),
        (400, "nurse", body(served, severity=mark)),
        (400, "nurse", body(served, kind=mark)),
        (400, "nurse", body(served, text="")),
        (400, "nurse", body(served, text=mark * 2000)),
        (400, "nurse", body(served, text="a\u0000b")),
        (400, "nurse", body(served, to={})),
        (400, "nurse", body(served, to={"care": True, "role": "nurse"})),
        (400, "nurse", body(served, to={"care": False})),
        (400, "nurse", body(served, to={"role": "admin"})),
        (400, "nurse", body(served, patient=mark)),
        (400, "nurse", body(served, patient=None)),
        (400, "nurse", body(served, more=mark)),
        (404, "nurse", body(served, patient=f"Patient/{nobody}")),
        (404, "colleague", body(served)),
        (422, "nurse", body(served, to={"practitioner": f"Practitioner/{nobody}"})),
        (403, "analyst", body(served)),
        (401, "nobody", body(served)),
    ]
    for status, who, asked in refusals:
        async with replica.client(who) as client:
            answer = await client.post("/v1/alerts", json=asked)
        assert answer.status_code == status, (asked, answer.text)
        assert answer.headers["content-type"] == "application/problem+json"
        assert mark not in answer.text
    async with replica.client() as client:
        for query in ("state=x", "count=0", "count=101", "cursor=x", "other=1", "count=1&count=2"):
            assert (await client.get(f"/v1/alerts?{query}")).status_code == 400, query
        for path in (nobody, "x", f"{nobody}x", nobody.upper()):
            assert (await client.get(f"/v1/alerts/{path}")).status_code == 404
            assert (await client.post(f"/v1/alerts/{path}/acknowledge")).status_code == 404
            assert (await client.post(f"/v1/alerts/{path}/resolve")).status_code == 404


async def test_the_routes_and_the_stream_describe_themselves(replica: Replica) -> None:
    async with replica.client() as client:
        paths = (await client.get("/openapi.json")).json()["paths"]
    raised = paths["/v1/alerts"]["post"]
    assert set(raised["responses"]) >= {"201", "400", "401", "403", "404", "409", "422", "503"}
    assert "Idempotency-Key" in [each["name"] for each in raised["parameters"]]
    listed = [each["name"] for each in paths["/v1/alerts"]["get"]["parameters"]]
    assert listed == ["state", "count", "cursor"]
    stream = paths["/v1/alerts/stream"]["get"]
    assert set(stream["responses"]) >= {"101", "400", "401", "403", "426", "429", "503"}
    assert [each["name"] for each in stream["parameters"]] == ["after"]
