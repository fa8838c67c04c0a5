"""Proves that care opens patients and its end closes them, and that consents are heeded."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from deployments.data.errors import Forbidden, NotFound
from deployments.data.records.care import relationships
from deployments.data.records.consent import refuses_ai
from tests.deployments.data.records import people
from tests.deployments.data.records.conftest import House, Owner
from tests.deployments.data.records.people import again

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


async def sees(house: House, id: str) -> bool:
    try:
        await house.records.read(again(house.colleague), "Patient", id)
    except NotFound:
        return False
    return True


async def test_an_encounter_opens_its_patient_to_its_staff_while_it_lasts(
    house: House, owner: Owner
) -> None:
    id = await house.patient()
    assert not await sees(house, id)
    staff = [house.physician_id, house.colleague_id]
    visit = await house.records.create(
        again(house.physician), "Encounter", people.encounter(id, staff)
    )
    assert await sees(house, id)
    ended = datetime.now(UTC) - timedelta(days=1)
    for days, seen in ((1, True), (40, False)):
        period = {"start": "2026-01-01", "end": (ended - timedelta(days=days)).isoformat()}
        body = people.encounter(id, staff, "finished", period=period)
        await house.records.update(
            again(house.physician),
            "Encounter",
            visit.stored.id,
            {**body, "id": visit.stored.id},
            if_match=None,
        )
        assert await sees(house, id) is seen
    assert await house.records.read(again(house.physician), "Patient", id)  # registration
    assert owner.rows("SELECT count(*) FROM records.care WHERE basis = 'encounter'") == [(2,)]


@pytest.mark.parametrize("how", ["left out", "cancelled", "deleted"])
async def test_whoever_no_longer_takes_part_no_longer_sees(house: House, how: str) -> None:
    id = await house.patient()
    visit = await house.records.create(
        again(house.physician), "Encounter", people.encounter(id, [house.colleague_id])
    )
    assert await sees(house, id)
    if how == "deleted":
        await house.records.delete(again(house.physician), "Encounter", visit.stored.id)
    else:
        status = "cancelled" if how == "cancelled" else "in-progress"
        staff = [house.colleague_id] if how == "cancelled" else [house.physician_id]
        body = {**people.encounter(id, staff, status), "id": visit.stored.id}
        await house.records.update(
            again(house.physician), "Encounter", visit.stored.id, body, if_match=1
        )
    assert not await sees(house, id)


async def test_a_general_practitioner_sees_until_the_patient_names_another(house: House) -> None:
    named = [{"reference": f"Practitioner/{house.colleague_id}"}]
    id = await house.patient(generalPractitioner=named)
    assert await sees(house, id)
    body = {**people.patient(), "id": id}
    await house.records.update(again(house.physician), "Patient", id, body, if_match=1)
    assert not await sees(house, id)


async def test_registration_ends_after_the_days_of_care(house: House, owner: Owner) -> None:
    await house.patient()
    rows = owner.rows("SELECT basis, practitioner, ends_at FROM records.care")
    assert [row[:2] for row in rows] == [("registration", house.physician_id)]
    left = rows[0][2] - datetime.now(UTC)
    assert timedelta(days=29, hours=23) < left <= timedelta(days=30)


def test_the_status_of_an_encounter_decides_how_long_it_opens() -> None:
    def ends(status: str, **period: str) -> Any:
        visit = people.encounter("p", ["a", "b", "a"], status, period=period)
        found = relationships({**visit, "id": "e"}, now=NOW, care_days=10)
        assert found is not None
        return found.practitioners, found.ends_at

    for status in ("planned", "arrived", "triaged", "in-progress", "onleave"):
        assert ends(status) == (("a", "b"), None)
    assert ends("finished") == (("a", "b"), NOW + timedelta(days=10))
    whole_day = datetime(2026, 5, 4, tzinfo=UTC) + timedelta(days=10)
    assert ends("finished", end="2026-05-03") == (("a", "b"), whole_day)
    assert ends("cancelled") == ends("entered-in-error") == ((), None)
    assert relationships(people.observation("p"), now=NOW, care_days=1) is None


async def test_a_consent_that_refuses_ai_is_found(house: House) -> None:
    id = await house.patient()
    assert await house.records.ai_refused(again(house.physician), id) is None
    await house.records.create(again(house.physician), "Consent", people.consent(id, type="permit"))
    assert await house.records.ai_refused(again(house.physician), id) is None
    made = await house.records.create(again(house.physician), "Consent", people.consent(id))
    assert await house.records.ai_refused(again(house.physician), id) == made.stored.id
    ended = {**people.consent(id, status="inactive"), "id": made.stored.id}
    await house.records.update(again(house.physician), "Consent", made.stored.id, ended, if_match=1)
    assert await house.records.ai_refused(again(house.physician), id) is None


async def test_nobody_learns_of_consents_of_patients_they_may_not_see(house: House) -> None:
    id = await house.patient()
    with pytest.raises(NotFound):
        await house.records.ai_refused(again(house.colleague), id)
    with pytest.raises(Forbidden):
        await house.records.ai_refused(people.caller("analyst"), id)


def test_periods_and_nested_provisions_of_a_consent() -> None:
    about = {"coding": [{"system": "urn:medical-record:consent", "code": "ai"}]}
    past, future = {"end": "2026-05"}, {"start": "2026-06-02"}

    def refused(provision: dict[str, Any], **more: Any) -> bool:
        body = {**people.consent("p"), "provision": provision, **more}
        return refuses_ai(body, NOW)

    assert refused({"type": "deny", "code": [about]})
    assert refused({"type": "deny"}, category=[about])
    assert refused({"type": "deny", "class": about["coding"]})
    assert not refused({"type": "deny"})
    assert not refused({"type": "permit"}, category=[about])
    assert not refused({"type": "deny", "code": [about]}, status="proposed")
    for period in (past, future):
        assert not refused({"type": "deny", "code": [about], "period": period})
    assert refused({"type": "deny", "code": [about], "period": {"end": "2026-06-01"}})
    assert refused({"type": "deny", "code": [about], "period": {"end": "whenever"}})
    inner = {"type": "deny", "code": [about]}
    assert refused({"type": "permit", "provision": [inner]})
    assert not refused({"type": "permit", "period": past, "provision": [inner]})
    assert not refused({"type": "permit", "provision": [{"type": "deny"}]}, category=[about])


async def test_everything_held_of_a_patient_can_be_exported(house: House, owner: Owner) -> None:
    id = await house.patient()
    await house.patient()
    body = {**people.patient(gender="male"), "id": id}
    await house.records.update(again(house.physician), "Patient", id, body, if_match=1)
    made = await house.records.create(again(house.physician), "Observation", people.observation(id))
    await house.records.delete(again(house.physician), "Observation", made.stored.id)
    exported = [each async for each in house.records.export(again(house.machine), id)]
    assert [(each.type, each.version, each.resource is None) for each in exported] == [
        ("Observation", 1, False),
        ("Observation", 2, True),
        ("Patient", 1, False),
        ("Patient", 2, False),
    ]
    assert [entry["patient"] for entry in owner.entries("export")] == [id]
    with pytest.raises(NotFound):
        [each async for each in house.records.export(again(house.colleague), id)]
