"""A critical value and its alert are one transaction: both there, or neither."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from deployments.data.database import Database
from deployments.data.errors import DataError, Unprocessable
from deployments.data.records.shapes import BundleEntry
from tests.deployments.data.alerts.conftest import Ward
from tests.deployments.data.records import people


def potassium(ward: Ward, value: float = 7.1) -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "2823-3"}]},
        "subject": {"reference": f"Patient/{ward.patient}"},
        "effectiveDateTime": datetime.now(UTC).isoformat(),
        "valueQuantity": {"value": value, "unit": "mmol/L"},
    }


async def test_a_critical_value_raises_an_alert_to_those_in_care_as_it_is_written(
    ward: Ward,
) -> None:
    machine = ward.house.machine
    written = await ward.house.records.create(people.again(machine), "Observation", potassium(ward))
    [id] = await ward.mine(ward.physician)
    alert = await ward.alerts.read(ward.physician, id)
    assert (alert.severity, alert.code, alert.origin) == ("critical", "potassium", "rule")
    assert (alert.resource, alert.text) == (written.stored.reference, "potassium 7.1 mmol/L")
    assert await ward.mine(ward.nurse) == [id]
    assert await ward.mine(ward.colleague) == []
    entries = ward.owner.entries("alert-raise")
    assert [each["details"]["about"] for each in entries] == [written.stored.reference]
    # Who wrote the value may well be the one who treats the patient.
    await ward.alerts.acknowledge(people.again(ward.nurse), id)


async def test_the_same_resource_raises_again_only_once_its_alert_is_resolved(ward: Ward) -> None:
    records, who = ward.house.records, ward.house.physician
    made = await records.create(people.again(who), "Observation", potassium(ward, 5.0))
    assert await ward.mine(ward.physician) == []
    for value in (6.9, 7.2):
        body = {**potassium(ward, value), "id": made.stored.id}
        await records.update(people.again(who), "Observation", made.stored.id, body, if_match=None)
    [first] = await ward.mine(ward.physician)
    await ward.alerts.resolve(ward.physician, first)
    await records.update(people.again(who), "Observation", made.stored.id, body, if_match=None)
    [second] = await ward.mine(ward.physician)
    assert second != first


async def test_a_write_that_fails_raises_nothing_and_an_alert_that_fails_takes_the_write_with_it(
    ward: Ward,
) -> None:
    records, who = ward.house.records, ward.house.physician
    bad = {**people.encounter(ward.patient, ["8d7c1f0a-2f6b-4d38-9a5e-3c1b8f1f2f12"])}
    entries = [
        BundleEntry("POST", "Observation", resource=potassium(ward)),
        BundleEntry("POST", "Encounter", resource=bad),
    ]
    with pytest.raises(Unprocessable):
        await records.transaction(people.again(who), entries)
    assert await ward.mine(ward.physician) == []
    ward.owner.rows("ALTER TABLE alerts.event ADD CONSTRAINT broken CHECK (level > 9) NOT VALID")
    with pytest.raises(DataError):
        await records.create(people.again(who), "Observation", potassium(ward))
    ward.owner.rows("ALTER TABLE alerts.event DROP CONSTRAINT broken")
    [count] = ward.owner.rows("SELECT count(*) FROM records.history WHERE type = 'Observation'")
    assert count == (0,)


async def test_two_values_of_one_transaction_raise_two_alerts_and_a_repeat_none(
    ward: Ward,
) -> None:
    low = {**potassium(ward), "valueQuantity": {"value": 2.1, "unit": "mmol/L"}}
    entries = [BundleEntry("POST", "Observation", resource=body) for body in (potassium(ward), low)]
    for _ in range(2):
        who = people.again(ward.house.physician, key="bundle")
        await ward.house.records.transaction(who, entries)
    assert len(await ward.mine(ward.physician)) == 2


async def test_the_commit_of_an_alert_is_durable_although_a_records_own_need_not_be(
    ward: Ward, database: Database, dsns: tuple[str, str]
) -> None:
    """What a client was shown must not be lost by a failover, nor its number given twice."""
    ward.owner.rows(
        "CREATE TABLE alerts.seen (setting text); GRANT INSERT ON alerts.seen TO medrec_app"
    )
    ward.owner.rows(
        "CREATE FUNCTION alerts.note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " INSERT INTO alerts.seen VALUES (current_setting('synchronous_commit')); RETURN NULL;"
        " END $$"
    )
    ward.owner.rows(
        "CREATE CONSTRAINT TRIGGER note AFTER INSERT ON records.history DEFERRABLE"
        " INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION alerts.note()"
    )
    for value in (5.0, 7.0):
        who = people.again(ward.house.physician)
        await ward.house.records.create(who, "Observation", potassium(ward, value))
    assert ward.owner.rows("SELECT setting FROM alerts.seen") == [("off",), ("on",)]
