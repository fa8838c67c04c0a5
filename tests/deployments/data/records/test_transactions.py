"""Proves FHIR transactions: links, order, all or nothing, repeats, rights and bounds."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import pytest

from deployments.data.errors import (
    Conflict,
    DataError,
    Forbidden,
    Gone,
    Invalid,
    NotFound,
    PreconditionFailed,
    TooLarge,
    Unprocessable,
    Unsupported,
)
from deployments.data.records.search import SearchPage, parse
from deployments.data.records.shapes import BundleEntry
from deployments.data.records.store import Written
from tests.deployments.data.records import people
from tests.deployments.data.records.conftest import House, Owner
from tests.deployments.data.records.people import again


def urn() -> str:
    return f"urn:uuid:{uuid.uuid4()}"


def post(resource: dict[str, Any], full_url: str | None = None, **more: Any) -> BundleEntry:
    return BundleEntry(
        "POST", resource["resourceType"], full_url=full_url, resource=resource, **more
    )


def written(result: Written | SearchPage) -> Written:
    assert isinstance(result, Written)
    return result


def chart(patient_url: str, visit_url: str, staff: str) -> list[BundleEntry]:
    """A new patient with an encounter and an observation, named by links and in a bad order."""
    visit = people.encounter("x", [staff])
    visit["subject"] = {"reference": patient_url}
    measured = people.observation("x", encounter={"reference": visit_url})
    measured["subject"] = {"reference": patient_url}
    return [post(measured), post(visit, visit_url), post(people.patient(), patient_url)]


async def test_links_become_references_whatever_the_order(house: House, owner: Owner) -> None:
    patient_url, visit_url = urn(), urn()
    entries = chart(patient_url, visit_url, house.physician_id)
    done = [
        written(each).stored
        for each in await house.records.transaction(again(house.physician), entries)
    ]
    measured, visit, person = done
    assert [each.type for each in done] == ["Observation", "Encounter", "Patient"]
    assert measured.resource is not None
    assert measured.resource["subject"]["reference"] == person.reference
    assert measured.resource["encounter"]["reference"] == visit.reference
    for each in done:
        read = await house.records.read(again(house.physician), each.type, each.id)
        assert read.resource == each.resource
        assert read.patient == person.id
    assert [e["details"].get("bundle") for e in owner.entries("create")[-3:]] == [True] * 3
    assert {e["patient"] for e in owner.entries("create")[-3:]} == {person.id}


async def test_one_bad_entry_undoes_all(house: House, owner: Owner) -> None:
    before = owner.rows("SELECT count(*) FROM records.history")
    cares = owner.rows("SELECT count(*) FROM records.care")
    entries = chart(urn(), urn(), str(uuid.uuid4()))  # staff that is not there
    with pytest.raises(Unprocessable):
        await house.records.transaction(again(house.physician, key="k"), entries)
    assert owner.rows("SELECT count(*) FROM records.history") == before
    assert owner.rows("SELECT count(*) FROM records.care") == cares
    assert owner.rows("SELECT count(*) FROM records.idempotency") == [(0,)]
    assert owner.rows("SELECT count(*) FROM audit.outbox") == [(0,)]
    dangling = people.observation("x")
    dangling["subject"] = {"reference": urn()}
    with pytest.raises(Unprocessable) as refused:
        await house.records.transaction(again(house.physician), [post(dangling)])
    assert refused.value.code == "reference_unresolved"


async def test_deletions_come_first_and_reads_last(house: House) -> None:
    id = await house.patient()
    made = await house.records.create(again(house.physician), "Observation", people.observation(id))
    male = {**people.patient(gender="male"), "id": id}
    entries = [
        BundleEntry("GET", "Observation", query=parse("Observation", [("patient", id)])),
        BundleEntry("GET", "Patient", id),
        BundleEntry("PUT", "Patient", id, resource=male, if_match=1),
        post(people.observation(id, status="preliminary")),
        BundleEntry("DELETE", "Observation", made.stored.id),
    ]
    page, read, updated, created, deleted = await house.records.transaction(
        again(house.physician), entries
    )
    assert isinstance(page, SearchPage)
    assert [each.id for each in page.entries] == [written(created).stored.id]
    assert written(read).stored == written(updated).stored
    assert written(read).stored.version == 2
    assert written(deleted).stored.resource is None
    with pytest.raises(Gone):
        await house.records.read(again(house.physician), "Observation", made.stored.id)


async def test_a_patient_and_all_its_records_can_go_together(house: House) -> None:
    id = await house.patient()
    made = await house.records.create(again(house.physician), "Observation", people.observation(id))
    entries = [
        BundleEntry("DELETE", "Patient", id),
        BundleEntry("DELETE", "Observation", made.stored.id),
    ]
    await house.records.transaction(again(house.physician), entries)
    with pytest.raises(Gone):
        await house.records.read(again(house.physician), "Patient", id)


async def test_a_repeat_gives_the_same_versions(house: House, owner: Owner) -> None:
    query = parse("Practitioner", [])
    entries = [
        *chart(urn(), urn(), house.physician_id),
        BundleEntry("GET", "Practitioner", query=query),
    ]
    first = await house.records.transaction(again(house.physician, key="k"), entries)
    second = await house.records.transaction(again(house.physician, key="k"), entries)
    for one, other in zip(first[:3], second[:3], strict=True):
        assert written(other).stored == written(one).stored
        assert written(other).created
        assert written(other).replayed
    assert isinstance(second[3], SearchPage)
    assert len(second[3].entries) == 2
    assert owner.rows("SELECT count(*) FROM records.history WHERE type='Patient'") == [(1,)]
    with pytest.raises(Unprocessable):
        await house.records.transaction(again(house.physician, key="k"), entries[:3])


async def test_a_conditional_entry_links_to_what_is_there(house: House) -> None:
    id = await house.patient(cpf=people.CPF)
    condition = parse("Patient", [("identifier", f"{people.CPF_SYSTEM}|{people.CPF}")])
    url = urn()
    measured = people.observation("x")
    measured["subject"] = {"reference": url}
    entries = [
        post(measured),
        post(people.patient(cpf=people.CPF), url, if_none_exist=condition),
    ]
    made, found = await house.records.transaction(again(house.physician), entries)
    assert (written(found).created, written(found).stored.id) == (False, id)
    assert written(made).stored.patient == id
    twice = [post(people.patient(), urn(), if_none_exist=condition) for _ in range(2)]
    with pytest.raises(Unprocessable):
        await house.records.transaction(again(house.physician), twice)


async def test_rights_and_versions_hold_for_every_entry(house: House) -> None:
    id = await house.patient()
    body = {**people.patient(), "id": id}
    refusals: list[tuple[type[DataError], BundleEntry]] = [
        (PreconditionFailed, BundleEntry("PUT", "Patient", id, resource=body, if_match=5)),
        (NotFound, BundleEntry("GET", "Patient", str(uuid.uuid4()))),
        (Invalid, BundleEntry("PUT", "Patient", str(uuid.uuid4()), resource=body)),
        (Unsupported, post({"resourceType": "Binary", "contentType": "text/plain"})),
        (Unsupported, BundleEntry("GET", "AuditEvent", id)),
        (Conflict, BundleEntry("DELETE", "Patient", id)),
    ]
    await house.records.create(again(house.physician), "Observation", people.observation(id))
    for error, entry in refusals:
        with pytest.raises(error):
            await house.records.transaction(
                again(house.physician), [post(people.observation(id)), entry]
            )
    nurse = people.caller("nurse", practitioner=house.physician_id)
    with pytest.raises(Forbidden):
        await house.records.transaction(
            nurse, [post(people.observation(id)), BundleEntry("DELETE", "Patient", id)]
        )
    page = await house.records.search(
        again(house.physician), parse("Observation", [("patient", id)])
    )
    assert len(page.entries) == 1


async def test_entries_are_bounded_and_each_thing_changes_once(house: House) -> None:
    entry = post(people.patient())
    with pytest.raises(TooLarge):
        await house.records.transaction(again(house.physician), [entry] * 201)
    id = await house.patient()
    body = {**people.patient(), "id": id}
    twice = [
        BundleEntry("PUT", "Patient", id, resource=body),
        BundleEntry("DELETE", "Patient", id),
    ]
    with pytest.raises(Invalid) as refused:
        await house.records.transaction(again(house.physician), twice)
    assert refused.value.code == "duplicate_entry"
    url = urn()
    with pytest.raises(Invalid):
        await house.records.transaction(
            again(house.physician), [post(people.patient(), url), post(people.patient(), url)]
        )
    assert await house.records.transaction(again(house.physician), []) == []


async def test_transactions_that_change_the_same_do_not_lose_anything(house: House) -> None:
    ids = [await house.patient() for _ in range(3)]

    async def change(order: list[str]) -> None:
        entries = [
            BundleEntry("PUT", "Patient", id, resource={**people.patient(), "id": id})
            for id in order
        ]
        entries += [post(people.observation(id)) for id in order]
        await house.records.transaction(again(house.physician), entries)

    await asyncio.gather(*(change(ids if n % 2 else ids[::-1]) for n in range(6)))
    for id in ids:
        versions = await house.records.history(again(house.physician), "Patient", id, count=9)
        assert [each.version for each in versions] == list(range(7, 0, -1))
        query = parse("Observation", [("patient", id), ("_count", "0")])
        page = await house.records.search(again(house.physician), query)
        assert (page.total, page.entries) == (6, [])
