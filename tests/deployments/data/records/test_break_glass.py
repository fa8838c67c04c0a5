"""Proves break-glass: who may, for how long, that it is never unnoticed, and how it is judged."""

from __future__ import annotations

import logging

import pytest

from deployments.data.errors import (
    Conflict,
    DataError,
    Forbidden,
    Invalid,
    NotFound,
    PreconditionFailed,
    Unprocessable,
)
from deployments.data.records.search import parse
from tests.deployments.data.records import people
from tests.deployments.data.records.conftest import House, Owner
from tests.deployments.data.records.people import again

REASON = f"{people.MARK} found unconscious, allergies unknown"


async def test_it_opens_one_patient_for_a_while(house: House, owner: Owner) -> None:
    id, other = await house.patient(cpf=people.CPF), await house.patient()
    made = await house.records.create(again(house.physician), "Observation", people.observation(id))
    with pytest.raises(NotFound):
        await house.records.read(again(house.colleague), "Patient", id)
    grant, fresh = await house.records.break_glass.open(
        again(house.colleague), identifier=(people.CPF_SYSTEM, people.CPF), reason=REASON
    )
    assert fresh
    assert grant.patient == id
    assert (grant.expires_at - grant.granted_at).total_seconds() == 3600
    await house.records.read(again(house.colleague), "Patient", id)
    await house.records.read(again(house.colleague), "Observation", made.stored.id)
    with pytest.raises(NotFound):
        await house.records.read(again(house.colleague), "Patient", other)
    owner.rows("UPDATE records.care SET ends_at = now() WHERE basis = 'break-glass'")
    with pytest.raises(NotFound):
        await house.records.read(again(house.colleague), "Patient", id)


async def test_what_is_done_under_it_says_so_on_record(house: House, owner: Owner) -> None:
    id = await house.patient()
    await house.records.break_glass.open(again(house.colleague), patient=id, reason=REASON)
    await house.records.read(again(house.colleague), "Patient", id)
    await house.records.search(again(house.colleague), parse("Patient", []))
    await house.records.create(again(house.colleague), "Observation", people.observation(id))
    entries = [e for e in owner.entries() if e["actor"] == house.colleague.principal.id]
    assert [e["action"] for e in entries] == ["break-glass", "read", "search", "create"]
    assert {e["purpose"] for e in entries} == {"BTG"}
    assert {e["patient"] for e in entries} == {id}
    own = [e for e in owner.entries() if e["actor"] == house.physician.principal.id]
    assert {e["purpose"] for e in own} == {"TREAT"}


async def test_nobody_makes_it_last_by_an_encounter_of_their_own(
    house: House, owner: Owner
) -> None:
    id = await house.patient()
    await house.records.break_glass.open(again(house.colleague), patient=id, reason=REASON)
    mine = people.encounter(id, [house.colleague_id])
    visit = await house.records.create(again(house.colleague), "Encounter", mine)
    ends = "SELECT basis, ends_at FROM records.care WHERE practitioner = %s ORDER BY basis"
    [(_, granted), (_, opened)] = owner.rows(ends, house.colleague_id)
    assert opened == granted
    # The patient's own physician agrees.
    again_said = {**mine, "id": visit.stored.id}
    await house.records.update(
        again(house.physician), "Encounter", visit.stored.id, again_said, if_match=1
    )
    rows = owner.rows(ends, house.colleague_id)
    assert [row[1] for row in rows if row[0] == "encounter"] == [None]


async def test_who_cares_for_the_patient_as_well_acts_for_treatment(
    house: House, owner: Owner
) -> None:
    id = await house.patient()
    await house.records.break_glass.open(again(house.colleague), patient=id, reason=REASON)
    visit = people.encounter(id, [house.colleague_id])
    await house.records.create(again(house.physician), "Encounter", visit)
    await house.records.read(again(house.colleague), "Patient", id)
    assert owner.entries("read")[-1]["purpose"] == "TREAT"


async def test_it_raises_an_alert_by_ids_alone(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    id = await house.patient()
    with caplog.at_level(logging.WARNING, logger="medrec.break_glass"):
        grant, _ = await house.records.break_glass.open(
            again(house.colleague), patient=id, reason=REASON
        )
    said = caplog.text
    assert grant.id in said
    assert id in said
    assert people.MARK not in said
    assert people.MARK not in repr(grant)


async def test_it_is_for_those_who_treat_and_needs_a_reason(house: House, owner: Owner) -> None:
    id = await house.patient(cpf=people.CPF)
    glass = house.records.break_glass
    for who in (
        people.caller("admin", practitioner=house.colleague_id),
        people.caller("auditor"),
        people.caller("analyst"),
        house.machine,
        people.caller("physician"),  # nobody's practitioner
    ):
        with pytest.raises(Forbidden):
            await glass.open(again(who), patient=id, reason=REASON)
    for reason in ("short", " " * 20, "x" * 501):
        with pytest.raises(Invalid):
            await glass.open(again(house.colleague), patient=id, reason=reason)
    with pytest.raises(Invalid):
        await glass.open(again(house.colleague), reason=REASON)
    assert owner.rows("SELECT count(*) FROM records.break_glass") == [(0,)]


async def test_a_patient_that_is_not_there_is_not_found_and_asking_is_on_record(
    house: House, owner: Owner
) -> None:
    await house.patient(cpf=people.CPF)
    glass = house.records.break_glass
    stranger = people.caller(practitioner=house.colleague_id, organization=people.OTHER)
    with pytest.raises(NotFound):
        await glass.open(again(stranger), identifier=(people.CPF_SYSTEM, people.CPF), reason=REASON)
    for value in ("11144477735", "a|b,c$d\\e"):
        with pytest.raises(NotFound):
            await glass.open(
                again(house.colleague), identifier=(people.CPF_SYSTEM, value), reason=REASON
            )
    await house.records._trail._audit.close()  # lets the journal reach the chain
    denied = owner.entries("break-glass")
    assert [e["outcome"] for e in denied] == ["denied"] * 3
    assert [e["resource"] for e in denied] == ["Patient"] * 3


async def test_an_identifier_that_several_have_opens_nobody(house: House) -> None:
    await house.patient(cpf=people.CPF)
    await house.patient(cpf=people.CPF)
    with pytest.raises(PreconditionFailed):
        await house.records.break_glass.open(
            again(house.colleague), identifier=(people.CPF_SYSTEM, people.CPF), reason=REASON
        )


async def test_a_repeat_opens_no_second_time(house: House) -> None:
    id = await house.patient()
    glass = house.records.break_glass
    first = await glass.open(again(house.colleague, key="k"), patient=id, reason=REASON)
    second = await glass.open(again(house.colleague, key="k"), patient=id, reason=REASON)
    assert (first[1], second[1]) == (True, False)
    assert second[0] == first[0]
    with pytest.raises(Unprocessable):
        await glass.open(again(house.colleague, key="k"), patient=id, reason=REASON + "!")


async def test_each_is_listed_until_somebody_else_has_judged_it(house: House, owner: Owner) -> None:
    id = await house.patient()
    glass = house.records.break_glass
    grants = [
        (await glass.open(again(house.colleague), patient=id, reason=REASON))[0] for _ in range(3)
    ]
    auditor = people.caller("auditor")
    page, cursor = await glass.listed(again(auditor), reviewed=False, count=2, cursor=None)
    rest, end = await glass.listed(again(auditor), reviewed=False, count=2, cursor=cursor)
    assert [each.id for each in (*page, *rest)] == [each.id for each in reversed(grants)]
    assert end is None
    assert page[0].reason == REASON
    judged = await glass.review(
        again(auditor), grants[0].id, verdict="unjustified", note=f"{people.MARK} was awake"
    )
    assert judged.review is not None
    assert judged.review.verdict == "unjustified"
    assert judged.review.note == f"{people.MARK} was awake"
    open_ones, _ = await glass.listed(again(auditor), reviewed=False, count=9, cursor=None)
    closed, _ = await glass.listed(again(auditor), reviewed=True, count=9, cursor=None)
    every, _ = await glass.listed(again(auditor), reviewed=None, count=9, cursor=None)
    assert (len(open_ones), [each.id for each in closed], len(every)) == (2, [grants[0].id], 3)
    with pytest.raises(Conflict):
        await glass.review(again(auditor), grants[0].id, verdict="justified", note=None)
    entries = owner.entries("break-glass-review")
    assert [e["details"].get("verdict") for e in entries] == [
        *(None, None, "unjustified", None, None, None)
    ]
    stored = owner.rows("SELECT g::text FROM records.break_glass g")
    stored += owner.rows("SELECT g::text FROM records.break_glass_review g")
    assert not any(people.MARK in row or people.MARK.encode().hex() in row for (row,) in stored)


async def test_reviews_are_for_reviewers_and_never_of_ones_own(house: House) -> None:
    id = await house.patient()
    glass = house.records.break_glass
    grant, _ = await glass.open(again(house.colleague), patient=id, reason=REASON)
    with pytest.raises(Forbidden):
        await glass.listed(again(house.physician), reviewed=None, count=1, cursor=None)
    with pytest.raises(Forbidden):
        await glass.review(again(house.physician), grant.id, verdict="justified", note=None)
    own = people.caller(
        "auditor",
        account=house.colleague.principal.id,
    )
    with pytest.raises(Forbidden) as refused:
        await glass.review(own, grant.id, verdict="justified", note=None)
    assert refused.value.code == "own_break_glass"
    elsewhere = people.caller("auditor", organization=people.OTHER)
    for reviewer, name in ((elsewhere, grant.id), (people.caller("auditor"), "nothing")):
        with pytest.raises(NotFound):
            await glass.review(reviewer, name, verdict="justified", note=None)
    with pytest.raises(Invalid):
        await glass.listed(people.caller("auditor"), reviewed=None, count=1, cursor="x")


async def test_without_the_chain_nothing_opens_to_the_caller(house: House, owner: Owner) -> None:
    id = await house.patient()
    owner.rows("ALTER TABLE audit.outbox ADD CONSTRAINT broken CHECK (false) NOT VALID")
    with pytest.raises(DataError):
        await house.records.break_glass.open(again(house.colleague), patient=id, reason=REASON)
    assert owner.rows("SELECT count(*) FROM records.break_glass") == [(0,)]
    assert owner.rows("SELECT count(*) FROM records.care WHERE basis = 'break-glass'") == [(0,)]
