"""The stream on its real path: HAProxy, a replica's own port in Ray Serve, the cell's PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.conftest import RunningCell

pytestmark = pytest.mark.cluster


@dataclass
class Side:
    """Clients of the cell: a machine that writes, and a physician who is called."""

    cell: RunningCell
    machine: httpx.Client
    physician: httpx.Client
    token: str

    def stream(self, **more: Any) -> ClientConnection:
        at = self.cell.base_url.replace("http", "ws", 1)
        opened: ClientConnection = connect(f"{at}/v1/alerts/stream", proxy=None, **more)
        return opened

    def written(self, resource: dict[str, Any]) -> str:
        headers = {"content-type": "application/fhir+json"}
        kind = resource["resourceType"]
        answer = self.machine.post(f"/fhir/{kind}", json=resource, headers=headers)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])


def signed_in(cell: RunningCell, client: httpx.Client, role: str) -> str:
    """A token of the demo's user of that role."""
    credentials = json.loads((cell.home / "credentials.json").read_text())
    [user] = [user for user in credentials["users"] if user["role"] == role]
    form = {"grant_type": "password", **{key: user[key] for key in ("username", "password")}}
    return str(client.post("/v1/auth/token", data=form).json()["access_token"])


@pytest.fixture
def side(cell: RunningCell) -> Iterator[Side]:
    with (
        httpx.Client(base_url=cell.base_url, trust_env=False, timeout=30) as physician,
        httpx.Client(base_url=cell.base_url, trust_env=False, timeout=30) as machine,
    ):
        token = signed_in(cell, physician, "physician")
        physician.headers["authorization"] = f"Bearer {token}"
        machine.headers["authorization"] = f"Bearer {cell.api_key}"
        yield Side(cell, machine, physician, token)


def test_a_critical_value_reaches_a_browser_through_the_whole_cell(side: Side) -> None:
    me = side.physician.get("/v1/auth/me").json()
    patient = side.written(
        {
            "resourceType": "Patient",
            "generalPractitioner": [{"reference": f"Practitioner/{me['practitioner']}"}],
        }
    )
    offered: Any = ["medrec.alerts", f"bearer.{side.token}"]
    with side.stream(subprotocols=offered, additional_headers={"x-request-id": "mine"}) as stream:
        assert stream.subprotocol == "medrec.alerts"
        assert stream.response is not None
        assert stream.response.headers.get_all("x-request-id") == ["mine"]
        assert [json.loads(stream.recv(10))["type"] for _ in range(2)] == ["hello", "open"]
        side.written(
            {
                "resourceType": "Observation",
                "status": "final",
                "code": {"coding": [{"system": "http://loinc.org", "code": "2823-3"}]},
                "subject": {"reference": f"Patient/{patient}"},
                "effectiveDateTime": datetime.now(UTC).isoformat(),
                "valueQuantity": {"value": 7.4, "unit": "mmol/L"},
            }
        )
        raised = json.loads(stream.recv(10))
        assert raised["type"] == "alert.raised"
        assert raised["alert"]["patient"] == f"Patient/{patient}"
        stream.send(json.dumps({"type": "acknowledge", "id": raised["alert"]["id"]}))
        told = {json.loads(stream.recv(10))["type"] for _ in range(2)}
        assert told == {"confirmed", "alert.acknowledged"}
    resolved = side.physician.post(f"/v1/alerts/{raised['alert']['id']}/resolve")
    assert resolved.json()["state"] == "resolved"


def test_a_stream_that_is_refused_has_a_status_on_the_real_path_too(side: Side) -> None:
    analyst = signed_in(side.cell, side.physician, "analyst")
    for headers, status, code in (
        ({}, 401, "credentials_required"),
        ({"authorization": f"Bearer {analyst}"}, 403, "insufficient_scope"),
    ):
        with pytest.raises(InvalidStatus) as caught:
            side.stream(additional_headers=headers)
        response = caught.value.response
        assert (response.status_code, json.loads(response.body)["code"]) == (status, code)
        assert len(response.headers.get_all("x-request-id")) == 1
