"""Every kind of entry becomes a valid AuditEvent, with nothing lost."""

from __future__ import annotations

import orjson
import pytest
from fhir.resources.R4B.auditevent import AuditEvent

from deployments.data.audit.codes import ACTION, KINDS
from deployments.data.audit.entry import ACTIONS
from deployments.data.audit.fhir import CHAIN, OUTCOMES, audit_event
from tests.deployments.data.audit.acts import entry


def test_every_action_has_a_kind_and_nothing_else_has() -> None:
    assert set(KINDS) == set(ACTIONS)


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("outcome", OUTCOMES)
def test_every_action_with_every_outcome_is_a_valid_audit_event(action: str, outcome: str) -> None:
    bare = entry(action=action, outcome=outcome, patient=None, resource=None, details={})
    full = entry(action=action, outcome=outcome, address="10.0.0.7", device="ward tablet")
    for one in (bare, full):
        event = audit_event(7, b"\x01" * 32, one.body())
        AuditEvent.model_validate(event)
        assert event["id"] == str(one.id)
        assert {"system": ACTION, "code": action} in event["subtype"]


def test_a_read_has_the_agents_and_entities_of_a_patient_read() -> None:
    event = audit_event(2**40, b"\xab" * 32, entry(resource="Observation/o1").body())
    agents = {agent["type"]["coding"][0]["code"]: agent for agent in event["agent"]}
    assert set(agents) == {"IRCP", "110152", "110153"}
    assert agents["IRCP"]["who"]["identifier"]["value"] == "a1"
    assert [agent["requestor"] for agent in event["agent"]] == [True, False, False]
    data, patient, request = event["entity"]
    assert (data["what"], data["role"]["code"]) == ({"reference": "Observation/o1"}, "4")
    assert (patient["what"], patient["type"]["code"]) == ({"reference": "Patient/p1"}, "1")
    assert patient["role"]["code"] == "1"
    assert request["what"]["identifier"]["value"] == "r0"
    (chained,) = event["extension"]
    assert chained["url"] == CHAIN
    assert [part["valueString"] for part in chained["extension"]] == [str(2**40), "ab" * 32]


def test_details_and_addresses_that_are_names_stay_readable() -> None:
    one = entry(resource=None, address="ward-3.local", details={"count": 3, "ids": ["a", "b"]})
    event = audit_event(1, bytes(32), one.body())
    AuditEvent.model_validate(orjson.loads(orjson.dumps(event)))
    assert event["agent"][1]["network"] == {"address": "ward-3.local", "type": "1"}
    details = {part["type"]: part["valueString"] for part in event["entity"][0]["detail"]}
    assert details == {"count": "3", "ids": '["a","b"]'}
