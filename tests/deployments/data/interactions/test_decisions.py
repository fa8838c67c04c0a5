from __future__ import annotations

import pytest

from deployments.data.errors import Forbidden, NotFound
from deployments.data.interactions.decisions import Decisions
from deployments.data.interactions.interaction import Asked
from deployments.data.interactions.ledger import Ledger
from deployments.data.principal import Caller
from tests.deployments.data.interactions.conftest import MESSAGES, again, answer, question
from tests.deployments.data.records import people
from tests.deployments.data.records.conftest import House, Owner

HASH = "c" * 64


async def held(ledger: Ledger, by: Caller, patient: str | None) -> Asked:
    """A finished interaction."""
    asked = question(patient)
    await ledger.begin(again(by), asked)
    await ledger.end(again(by), asked, answer())
    return asked


async def test_the_newest_decision_counts_and_all_are_kept_on_record(
    ledger: Ledger, decisions: Decisions, house: House, owner: Owner
) -> None:
    patient = await house.patient()
    asked = await held(ledger, house.physician, patient)
    await decisions.decide(again(house.physician), asked.id, "accepted")
    await decisions.decide(
        again(house.physician), asked.id, "edited", output_sha256=HASH, reason="dose"
    )
    (listed,) = await decisions.of_patient(again(house.physician), patient, limit=10)
    assert listed.decision is not None
    assert (listed.decision.decision, listed.decision.reason) == ("edited", "dose")
    shown = await decisions.show(again(house.physician), asked.id)
    assert [each.decision for each in shown.decisions] == ["edited", "accepted"]
    told = [entry["details"] for entry in owner.entries("ai-decision")]
    assert told[1] == {
        "interaction": asked.id,
        "decision": "edited",
        "output_sha256": HASH,
        "reason": "dose",
    }
    assert {entry["patient"] for entry in owner.entries("ai-decision")} == {patient}


async def test_the_texts_are_shown_while_they_are_kept_and_the_reading_is_on_record(
    ledger: Ledger, decisions: Decisions, house: House, owner: Owner
) -> None:
    asked = await held(ledger, house.physician, patient := await house.patient())
    shown = await decisions.show(again(house.physician), asked.id)
    assert shown.texts["input"] == MESSAGES
    assert "troubles" in shown.texts["output"][0]["content"]
    assert "troubles" not in repr(shown)
    entry = owner.entries("read")[-1]
    assert (entry["patient"], entry["resource"]) == (patient, f"Interaction/{asked.id}")
    owner.rows("UPDATE interactions.short_lived SET expires_at = now()")
    assert (await decisions.show(again(house.physician), asked.id)).texts == {}


async def test_who_has_no_access_to_the_patient_learns_nothing(
    ledger: Ledger, decisions: Decisions, house: House, owner: Owner
) -> None:
    patient = await house.patient()
    asked = await held(ledger, house.physician, patient)
    analyst = people.caller("analyst")
    for stranger in (house.colleague, people.caller("service", organization=people.OTHER)):
        with pytest.raises(NotFound):
            await decisions.show(again(stranger), asked.id)
        with pytest.raises(NotFound):
            await decisions.decide(again(stranger), asked.id, "accepted")
        with pytest.raises(NotFound):
            await decisions.of_patient(again(stranger), patient, limit=10)
    with pytest.raises(Forbidden):
        await decisions.of_patient(again(analyst), patient, limit=10)
    with pytest.raises(NotFound):
        await decisions.show(again(analyst), asked.id)
    assert owner.rows("SELECT count(*) FROM interactions.decision") == [(0,)]


async def test_without_a_patient_an_interaction_is_its_askers_alone(
    ledger: Ledger, decisions: Decisions, house: House
) -> None:
    asked = await held(ledger, house.physician, None)
    made = await decisions.decide(again(house.physician), asked.id, "rejected", reason="wrong")
    assert made.decision == "rejected"
    for stranger in (house.colleague, house.machine):
        with pytest.raises(NotFound):
            await decisions.decide(again(stranger), asked.id, "accepted")


async def test_an_unknown_interaction_or_patient_is_not_found(
    decisions: Decisions, house: House
) -> None:
    with pytest.raises(NotFound):
        await decisions.decide(again(house.physician), "chatcmpl-none", "accepted")
    with pytest.raises(NotFound):
        await decisions.of_patient(again(house.physician), "nobody", limit=10)


async def test_pages_follow_one_another_without_gap_or_repetition(
    ledger: Ledger, decisions: Decisions, house: House
) -> None:
    patient = await house.patient()
    asked = [(await held(ledger, house.physician, patient)).id for _ in range(5)]
    found: list[str] = []
    before = None
    while page := await decisions.of_patient(
        again(house.physician), patient, limit=2, before=before
    ):
        found += [each.id for each in page]
        before = found[-1]
    assert found == asked[::-1]
