"""Proves reads and writes: versions, locks, deletion, references, conditions, and their audit."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import psycopg
import pytest

from configs.args import RecordsArgs
from deployments.data.audit.chain import Audit
from deployments.data.database import Database
from deployments.data.errors import (
    CommitUnknown,
    Conflict,
    DataError,
    Forbidden,
    Gone,
    Invalid,
    NotFound,
    PreconditionFailed,
    Unprocessable,
    Unsupported,
)
from deployments.data.records.search import encode_cursor, parse
from deployments.data.records.shapes import BundleEntry
from deployments.data.records.store import Records, Stored, Written
from deployments.data.seal.sealer import Sealer
from tests.deployments.data.records import people
from tests.deployments.data.records.conftest import House, Owner
from tests.deployments.data.records.people import again


async def test_what_is_written_is_read_whole(house: House) -> None:
    id = await house.patient(cpf=people.CPF)
    found = await house.records.read(again(house.physician), "Patient", id)
    assert found.resource is not None
    assert found.resource["meta"]["versionId"] == "1"
    assert found.resource["meta"]["lastUpdated"].endswith("Z")
    expected = people.patient(cpf=people.CPF)
    assert {key: found.resource[key] for key in expected} == expected
    assert found.patient == id == found.resource["id"]
    assert str(uuid.UUID(id)) == id


async def test_the_id_of_a_client_is_not_taken(house: House) -> None:
    chosen = {**people.patient(), "id": "mine"}
    written = await house.records.create(again(house.physician), "Patient", chosen)
    assert written.stored.id != "mine"


async def test_every_version_can_be_read_and_stands_in_the_history(house: House) -> None:
    id = await house.patient()
    for gender in ("male", "other"):
        body = {**people.patient(gender=gender), "id": id}
        await house.records.update(again(house.physician), "Patient", id, body, if_match=None)
    versions = await house.records.history(again(house.physician), "Patient", id, count=10)
    assert [each.version for each in versions] == [3, 2, 1]
    assert [each.method for each in versions] == ["PUT", "PUT", "POST"]
    assert versions[0].updated_at > versions[1].updated_at > versions[2].updated_at
    second = await house.records.vread(again(house.physician), "Patient", id, 2)
    assert second.resource is not None
    assert second.resource["gender"] == "male"
    later = await house.records.history(
        again(house.physician), "Patient", id, count=1, before_version=3
    )
    assert [each.version for each in later] == [2]
    with pytest.raises(NotFound):
        await house.records.vread(again(house.physician), "Patient", id, 4)


async def test_an_update_of_an_old_version_is_refused(house: House) -> None:
    id = await house.patient()
    body = {**people.patient(gender="male"), "id": id}
    await house.records.update(again(house.physician), "Patient", id, body, if_match=1)
    with pytest.raises(PreconditionFailed):
        await house.records.update(again(house.physician), "Patient", id, body, if_match=1)
    with pytest.raises(Invalid):
        await house.records.update(
            again(house.physician), "Patient", id, people.patient(), if_match=2
        )


@pytest.mark.parametrize("matched", [True, False])
async def test_of_updates_at_once_none_is_lost(house: House, matched: bool) -> None:
    id = await house.patient()
    body = {**people.patient(gender="male"), "id": id}

    async def update() -> int:
        if_match = 1 if matched else None
        done = await house.records.update(
            again(house.physician), "Patient", id, body, if_match=if_match
        )
        return done.stored.version

    done = await asyncio.gather(*(update() for _ in range(8)), return_exceptions=True)
    versions = sorted(each for each in done if isinstance(each, int))
    refused = [each for each in done if isinstance(each, PreconditionFailed)]
    assert versions == ([2] if matched else list(range(2, 10)))
    assert len(versions) + len(refused) == 8
    history = await house.records.history(again(house.physician), "Patient", id, count=100)
    assert [each.version for each in history] == list(range(max(versions), 0, -1))


async def test_deleted_is_gone_remembered_and_can_come_back(house: House, owner: Owner) -> None:
    id = await house.patient()
    deleted = await house.records.delete(again(house.physician), "Patient", id)
    assert (deleted.stored.version, deleted.stored.resource) == (2, None)
    with pytest.raises(Gone):
        await house.records.read(again(house.physician), "Patient", id)
    with pytest.raises(Gone):
        await house.records.vread(again(house.physician), "Patient", id, 2)
    old = await house.records.vread(again(house.physician), "Patient", id, 1)
    assert old.resource is not None
    assert old.resource["name"] == people.patient()["name"]
    repeated = await house.records.delete(again(house.physician), "Patient", id)
    assert repeated.stored.version == 2
    page = await house.records.search(again(house.physician), parse("Patient", []))
    assert page.entries == []
    body = {**people.patient(), "id": id}
    revived = await house.records.update(again(house.physician), "Patient", id, body, if_match=None)
    assert revived.stored.version == 3
    read = await house.records.read(again(house.physician), "Patient", id)
    assert read.resource is not None
    assert [e["outcome"] for e in owner.entries("delete")] == ["success", "success"]


async def test_a_patient_with_records_is_not_deleted(house: House) -> None:
    id = await house.patient()
    made = await house.records.create(again(house.physician), "Observation", people.observation(id))
    with pytest.raises(Conflict) as refused:
        await house.records.delete(again(house.physician), "Patient", id)
    assert refused.value.code == "has_records"
    await house.records.delete(again(house.physician), "Observation", made.stored.id)
    await house.records.delete(again(house.physician), "Patient", id)
    with pytest.raises(Unprocessable) as unknown:
        await house.records.create(again(house.machine), "Observation", people.observation(id))
    assert unknown.value.code == "reference_not_found"


async def test_references_lead_to_what_is_held_and_to_the_same_patient(house: House) -> None:
    one, other = await house.patient(), await house.patient()
    visit = await house.records.create(
        again(house.physician), "Encounter", people.encounter(other, [house.physician_id])
    )
    reference = {"encounter": {"reference": f"Encounter/{visit.stored.id}"}}
    with pytest.raises(Unprocessable) as crossed:
        await house.records.create(
            again(house.physician), "Observation", people.observation(one, **reference)
        )
    assert crossed.value.code == "reference_other_patient"
    nowhere = {"encounter": {"reference": f"Encounter/{uuid.uuid4()}"}}
    with pytest.raises(Unprocessable) as missing:
        await house.records.create(
            again(house.physician), "Observation", people.observation(one, **nowhere)
        )
    assert missing.value.code == "reference_not_found"


async def test_what_a_deleted_resource_is_referred_from_can_still_be_updated(house: House) -> None:
    id = await house.patient()
    visit = await house.records.create(
        again(house.physician), "Encounter", people.encounter(id, [house.physician_id])
    )
    reference = {"encounter": {"reference": f"Encounter/{visit.stored.id}"}}
    body = people.observation(id, **reference)
    made = await house.records.create(again(house.physician), "Observation", body)
    await house.records.delete(again(house.physician), "Encounter", visit.stored.id)
    amended = {**body, "id": made.stored.id, "status": "amended"}
    done = await house.records.update(
        again(house.physician), "Observation", made.stored.id, amended, if_match=1
    )
    assert done.stored.version == 2


async def test_a_resource_stays_with_its_patient(house: House) -> None:
    one, other = await house.patient(), await house.patient()
    made = await house.records.create(
        again(house.physician), "Observation", people.observation(one)
    )
    moved = {**people.observation(other), "id": made.stored.id}
    with pytest.raises(Unprocessable) as refused:
        await house.records.update(
            again(house.physician), "Observation", made.stored.id, moved, if_match=None
        )
    assert refused.value.code == "patient_changed"


async def test_conditional_creation_makes_one_and_then_finds_it(house: House) -> None:
    wanted = parse("Patient", [("identifier", f"{people.CPF_SYSTEM}|{people.CPF}")])

    async def create() -> tuple[str, bool]:
        written = await house.records.create(
            again(house.physician),
            "Patient",
            people.patient(cpf=people.CPF),
            if_none_exist=wanted,
        )
        assert written.stored.resource is not None
        return written.stored.id, written.created

    done = await asyncio.gather(*(create() for _ in range(6)))
    assert len({id for id, _ in done}) == 1
    assert sorted(created for _, created in done) == [False] * 5 + [True]


async def test_a_condition_that_several_match_is_refused(house: House) -> None:
    await house.patient()
    await house.patient()
    wanted = parse("Patient", [("birthdate", "1980-02-29")])
    with pytest.raises(PreconditionFailed):
        await house.records.create(
            again(house.physician), "Patient", people.patient(), if_none_exist=wanted
        )


@pytest.mark.parametrize("id", ["", "a\0b", "\ud800", "x' OR '1'='1", "a" * 65, "../..", "%"])
async def test_what_is_no_id_is_not_found(house: House, id: str, owner: Owner) -> None:
    read, who = house.records, house.physician
    for asked in (
        read.read(again(who), "Patient", id),
        read.vread(again(who), "Patient", id, 1),
        read.history(again(who), "Patient", id, count=1),
        read.delete(again(who), "Patient", id),
        read.everything(again(who), id, count=1, cursor=None),
        read.ai_refused(again(who), id),
        read.update(again(who), "Patient", id, {**people.patient(), "id": id}, if_match=1),
        read.transaction(again(who), [BundleEntry("GET", "Patient", id)]),
    ):
        with pytest.raises((NotFound, Invalid)):
            await asked


async def test_no_cursor_of_anybodys_making_breaks_a_page(house: House) -> None:
    id = await house.patient()
    for values in (
        [],
        ["Patient"],
        ["Patient", 1],
        ["Nothing", "x"],
        ["Patient", "a\0"],
        [None, None],
    ):
        cursor = encode_cursor(f"everything/{id}", values)
        with pytest.raises((NotFound, Invalid)):
            await house.records.everything(again(house.physician), id, count=1, cursor=cursor)


async def test_scopes_come_before_everything(house: House, owner: Owner) -> None:
    id = await house.patient()
    before = len(owner.entries())
    nurse = people.caller("nurse", practitioner=house.physician_id)
    with pytest.raises(Forbidden):
        await house.records.create(again(nurse), "Condition", {})
    with pytest.raises(Forbidden):
        await house.records.delete(again(nurse), "Patient", id)
    with pytest.raises(Forbidden):
        await house.records.read(people.caller("analyst"), "Patient", id)
    with pytest.raises(Forbidden):
        await house.records.search(people.caller("auditor"), parse("Patient", []))
    with pytest.raises(Unsupported):
        await house.records.read(again(house.machine), "AuditEvent", id)
    assert len(owner.entries()) == before


async def test_everything_of_a_patient_comes_in_pages(house: House) -> None:
    id, other = await house.patient(), await house.patient()
    made = {f"Patient/{id}"}
    for _ in range(5):
        written = await house.records.create(
            again(house.physician), "Observation", people.observation(id)
        )
        made.add(written.stored.reference)
    visit = await house.records.create(
        again(house.physician), "Encounter", people.encounter(id, [house.physician_id])
    )
    made.add(visit.stored.reference)
    await house.records.create(again(house.physician), "Observation", people.observation(other))
    seen: list[str] = []
    staff: set[str] = set()
    cursor = None
    while True:
        page = await house.records.everything(again(house.physician), id, count=2, cursor=cursor)
        seen += [each.reference for each in page.entries]
        staff |= {each.reference for each in page.includes}
        cursor = page.next_cursor
        if cursor is None:
            break
    assert seen[0] == f"Patient/{id}"
    assert len(seen) == len(made) == len(set(seen))
    assert set(seen) == made
    assert staff == {f"Practitioner/{house.physician_id}"}


async def test_search_pages_and_includes(house: House) -> None:
    id = await house.patient()
    for hour in range(5):
        dated = {"effectiveDateTime": f"2026-03-01T1{hour}:00:00Z"}
        await house.records.create(
            again(house.physician), "Observation", people.observation(id, **dated)
        )
    asked = [("patient", id), ("code", "http://loinc.org|8867-4"), ("_sort", "-date")]
    asked += [("_count", "2"), ("_include", "Observation:subject"), ("_total", "accurate")]
    hours: list[str] = []
    cursor: str | None = None
    while True:
        more = [("_cursor", cursor)] if cursor else []
        page = await house.records.search(
            again(house.physician), parse("Observation", [*asked, *more])
        )
        assert page.total == 5
        assert [each.reference for each in page.includes] == [f"Patient/{id}"]
        for each in page.entries:
            assert each.resource is not None
            hours.append(each.resource["effectiveDateTime"][11:13])
        cursor = page.next_cursor
        if cursor is None:
            break
    assert hours == ["14", "13", "12", "11", "10"]


async def test_every_act_is_on_record_before_its_answer(house: House, owner: Owner) -> None:
    id = await house.patient()
    reader = again(house.physician)
    await house.records.read(reader, "Patient", id)
    last = owner.entries()[-1]
    assert (last["action"], last["patient"], last["resource"]) == ("read", id, f"Patient/{id}")
    assert last["actor"] == reader.principal.id
    assert last["request_id"] == reader.request_id
    assert last["details"] == {"version": 1}
    await house.records.search(again(house.physician), parse("Patient", [("name", people.MARK)]))
    last = owner.entries()[-1]
    assert (last["action"], last["patient"], last["resource"]) == ("search", id, "Patient")
    assert last["details"] == {"count": 1, "included": 0, "parameters": ["name"]}
    body = {**people.patient(), "id": id}
    await house.records.update(again(house.physician), "Patient", id, body, if_match=1)
    last = owner.entries()[-1]
    assert (last["action"], last["patient"], last["details"]["version"]) == ("update", id, 2)
    assert len(last["details"]["sha256"]) == 64
    assert owner.rows("SELECT count(*) FROM audit.outbox") == [(0,)]


async def test_what_is_written_beside_happens_with_it_or_not_at_all(
    house: House, owner: Owner
) -> None:
    id = await house.patient()
    body = {
        "resourceType": "Binary",
        "contentType": "text/plain",
        "securityContext": {"reference": f"Patient/{id}"},
    }
    seen: list[str] = []

    async def beside(connection: psycopg.AsyncConnection[Any], stored: Stored) -> None:
        row = await connection.execute(
            "SELECT version FROM records.history WHERE id = %s", (stored.id,)
        )
        assert await row.fetchone() == (1,)
        seen.append(stored.id)
        if len(seen) == 1:
            raise Conflict("the content is not there")

    async def upload(print: bytes) -> Written:
        return await house.records.create(
            again(house.physician, key="upload"),
            "Binary",
            body,
            fingerprint=print,
            beside=beside,
            action="upload",
            details={"size": 3},
        )

    with pytest.raises(Conflict):
        await upload(b"abc")
    assert owner.rows("SELECT count(*) FROM records.history WHERE type = 'Binary'") == [(0,)]
    made, repeated = await upload(b"abc"), await upload(b"abc")
    assert (repeated.replayed, repeated.stored) == (True, made.stored)
    assert len(seen) == 2
    with pytest.raises(Unprocessable):
        await upload(b"xyz")
    [entry] = owner.entries("upload")
    assert (entry["patient"], entry["details"]["size"]) == (id, 3)
    read = await house.records.read(
        again(house.physician), "Binary", made.stored.id, action="download"
    )
    assert read.patient == id
    assert owner.entries()[-1]["action"] == "download"
    with pytest.raises(Unsupported):
        await house.records.update(
            again(house.physician),
            "Binary",
            made.stored.id,
            {**body, "id": made.stored.id},
            if_match=None,
        )
    with pytest.raises(Unprocessable):
        await house.records.create(
            again(house.physician),
            "Binary",
            {key: value for key, value in body.items() if key != "securityContext"},
        )


async def test_who_may_not_write_is_told_before_an_upload(house: House) -> None:
    id = await house.patient()
    await house.records.may_write(again(house.physician), "Binary", id)
    await house.records.may_write(again(house.machine), "Binary", None)
    with pytest.raises(NotFound):
        await house.records.may_write(again(house.colleague), "Binary", id)
    with pytest.raises(Forbidden):
        await house.records.may_write(again(house.physician), "Binary", None)
    with pytest.raises(Forbidden):
        await house.records.may_write(people.caller("analyst"), "Binary", id)


async def test_provenance_lies_with_the_patient_of_its_target(house: House) -> None:
    id, other = await house.patient(), await house.patient()
    made = [
        await house.records.create(again(house.physician), "Observation", people.observation(each))
        for each in (id, other)
    ]
    target = [{"reference": each.stored.reference} for each in made]
    body: dict[str, Any] = {
        "resourceType": "Provenance",
        "target": target[:1],
        "recorded": "2026-03-01T10:00:00Z",
        "agent": [{"who": {"reference": f"Practitioner/{house.physician_id}"}}],
    }
    written = await house.records.create(again(house.physician), "Provenance", body)
    assert written.stored.patient == id
    with pytest.raises(Unprocessable) as refused:
        await house.records.create(again(house.physician), "Provenance", {**body, "target": target})
    assert refused.value.code == "several_patients"
    with pytest.raises(Unprocessable):
        await house.records.create(again(house.colleague), "Provenance", body)


async def test_with_the_audit_off_nothing_is_recorded_and_all_else_holds(
    database: Database, sealer: Sealer, audit: Audit, owner: Owner
) -> None:
    records = Records(database, sealer, audit, RecordsArgs(audit=False, demo=True))
    machine = people.caller("service")
    made = await records.create(again(machine), "Patient", people.patient())
    await records.read(again(machine), "Patient", made.stored.id)
    with pytest.raises(NotFound):
        await records.read(again(machine), "Patient", str(uuid.uuid4()))
    assert owner.entries() == []
    assert owner.rows("SELECT count(*) FROM audit.outbox") == [(0,)]


async def test_no_marked_text_stands_in_any_row(house: House, owner: Owner) -> None:
    id = await house.patient(cpf=people.CPF)
    kept = {
        "resourceType": "Practitioner",
        "id": "inside",
        "name": [{"family": people.MARK}],
        "qualification": [{"code": {"text": people.MARK}}],
    }
    extension = [{"url": "urn:test:mark", "valueString": people.MARK}]
    body = people.observation(
        id,
        contained=[kept],
        extension=extension,
        performer=[{"reference": "#inside", "display": people.MARK}],
        component=[
            {"code": {"text": people.MARK}, "valueString": people.MARK},
        ],
        text={
            "status": "additional",
            "div": f'<div xmlns="http://www.w3.org/1999/xhtml">{people.MARK}</div>',
        },
    )
    made = await house.records.create(again(house.physician, key="a-key"), "Observation", body)
    read = await house.records.read(again(house.physician), "Observation", made.stored.id)
    assert read.resource is not None
    assert {key: read.resource[key] for key in body} == body
    await house.records.search(again(house.physician), parse("Patient", [("name", people.MARK)]))
    tables = owner.rows(
        "SELECT format('%%I.%%I', schemaname, tablename) FROM pg_tables"
        " WHERE schemaname IN ('records', 'audit', 'accounts', 'interactions', 'alerts')"
    )
    assert len(tables) > 15
    looked = 0
    for (table,) in tables:
        for (row,) in owner.rows(f"SELECT t::text FROM {table} AS t"):
            looked += 1
            for secret in (people.MARK, people.CPF, people.MARK.encode().hex()):
                assert secret not in row, table
    assert looked > 10


async def test_without_the_chain_nothing_is_shown_and_writes_are_unknown(
    house: House, owner: Owner
) -> None:
    id = await house.patient()
    owner.rows("ALTER TABLE audit.entry ADD CONSTRAINT broken CHECK (seq < 0) NOT VALID")
    with pytest.raises(DataError):
        await house.records.read(again(house.physician, seconds=1.5), "Patient", id)
    with pytest.raises(DataError):
        await house.records.search(again(house.physician, seconds=1.5), parse("Patient", []))
    with pytest.raises(CommitUnknown):
        await house.records.create(
            again(house.physician, key="once", seconds=1.5), "Patient", people.patient()
        )
    owner.rows("ALTER TABLE audit.entry DROP CONSTRAINT broken")
    repeated = await house.records.create(
        again(house.physician, key="once"), "Patient", people.patient()
    )
    assert repeated.replayed
