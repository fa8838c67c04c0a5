"""Proves that what an emergency wrote comes back into the records once, and that nothing is dropped."""

from __future__ import annotations

import time
import uuid
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from configs.args import EmergencyArgs, RecordsArgs
from deployments.data.audit.chain import Audit
from deployments.data.database import Database
from deployments.data.emergency.activation import Activations
from deployments.data.emergency.documents import text_of
from deployments.data.emergency.merging import bring_back, merge
from deployments.data.emergency.notes import Note, Notes
from deployments.data.emergency.package import collect, noted, opened
from deployments.data.emergency.standing import Standing
from deployments.data.errors import Conflict, Invalid, NotFound, Unprocessable
from deployments.data.places import Places
from deployments.data.records.search import parse
from deployments.data.records.store import Records
from deployments.data.seal import keys
from deployments.data.seal.errors import SealBroken
from deployments.data.seal.sealer import Sealer
from tests.deployments.data.records import people
from tests.deployments.data.records.conftest import House, Owner, house

__all__ = ["house"]

TEXT = f"given adrenaline, {people.MARK}"


class Ward:
    """An emergency cell's journal on one database, whose site is the same one or another."""

    def __init__(self, database: Database, sealer: Sealer, audit: Audit) -> None:
        self.activations = Activations(database, audit, EmergencyArgs(), people.ORGANIZATION)
        self.standing = Standing(self.activations)
        self.notes = Notes(database, sealer, audit, self.standing)

    async def begin(self) -> None:
        await self.activations.activate(
            "edge-1",
            reason="drill",
            since=datetime.now(UTC),
            request_id="r",
            deadline=time.monotonic() + 10,
        )
        self.standing.forget()

    async def end(self) -> None:
        await self.activations.end("edge-1", request_id="r", deadline=time.monotonic() + 10)
        self.standing.forget()

    async def write(self, house: House, patient: str, text: str = TEXT, **more: Any) -> Note:
        who = people.again(house.physician, **more)
        return await self.notes.write(who, patient=patient, kind="medication", text=text)


@pytest.fixture
def ward(database: Database, sealer: Sealer, audit: Audit) -> Ward:
    return Ward(database, sealer, audit)


@pytest.fixture
def site(dsns: tuple[str, str], tmp_path: Path) -> Places:
    """The site that is merged into: here the very database in which the notes were written."""
    (tmp_path / "site-journal").mkdir(mode=0o700)
    return Places(
        dsns[0], dsns[1], tmp_path / "secrets", tmp_path / "blobs", tmp_path / "site-journal"
    )


async def test_a_note_is_sealed_on_record_and_read_again_by_whoever_cares(
    ward: Ward, house: House, owner: Owner
) -> None:
    patient = await house.patient()
    with pytest.raises(Conflict, match="no emergency"):
        await ward.write(house, patient)
    await ward.begin()
    note = await ward.write(house, patient)
    assert [
        each.text for each in await ward.notes.listed(people.again(house.physician), patient)
    ] == [TEXT]
    assert people.MARK not in str(owner.rows("SELECT * FROM emergency.note"))
    [entry] = owner.entries("emergency-note")
    assert (entry["patient"], entry["resource"]) == (patient, f"Note/{note.id}")
    for act in (
        ward.notes.listed(people.again(house.colleague), patient),
        ward.notes.write(people.again(house.colleague), patient=patient, kind="note", text="x"),
        ward.notes.listed(people.again(house.physician), str(uuid.uuid4())),
    ):
        with pytest.raises(NotFound):
            await act


async def test_the_same_key_writes_one_note_and_another_text_is_refused(
    ward: Ward, house: House
) -> None:
    patient = await house.patient()
    await ward.begin()
    first = await ward.write(house, patient, key="k-1")
    assert (await ward.write(house, patient, key="k-1")).id == first.id
    with pytest.raises(Unprocessable):
        await ward.write(house, patient, "something else", key="k-1")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE emergency.note SET kind = 'note'",
        "DELETE FROM emergency.note",
        "UPDATE emergency.activation SET reason = 'other'",
        "DELETE FROM emergency.activation",
        "INSERT INTO emergency.entry DEFAULT VALUES",
        "UPDATE accounts.account SET emergency = true",
        "DELETE FROM accounts.emergency_user",
    ],
)
def test_the_application_only_adds_to_the_journal(dsns: tuple[str, str], statement: str) -> None:
    with (
        psycopg.connect(dsns[0], autocommit=True) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute(statement.encode())


async def test_notes_become_documents_with_author_time_and_provenance_once(
    ward: Ward, house: House, records: Records, site: Places, sealer: Sealer, owner: Owner
) -> None:
    patient = await house.patient()
    await ward.begin()
    with pytest.raises(Conflict, match="still open"):
        await collect(site.owner_dsn)
    notes = [await ward.write(house, patient, f"{TEXT} {n}") for n in range(3)]
    await ward.end()
    package = opened((await collect(site.owner_dsn)).sealed(sealer), sealer)
    found = await merge(package, site, RecordsArgs())
    assert (found.merged, found.already, found.conflicts) == (3, 0, [])
    document = (
        await records.read(people.again(house.physician), "DocumentReference", notes[0].id)
    ).resource
    assert document is not None
    assert text_of(document) == f"{TEXT} 0"
    assert document["author"] == [{"reference": f"Practitioner/{house.physician_id}"}]
    assert datetime.fromisoformat(document["date"]) == notes[0].written_at.replace(
        microsecond=notes[0].written_at.microsecond // 1000 * 1000
    )
    query = parse("Provenance", [("target", f"DocumentReference/{notes[0].id}")])
    [provenance] = (await records.search(people.again(house.physician), query)).entries
    assert provenance.resource is not None
    assert provenance.resource["activity"]["coding"][0]["code"] == "emergency"

    again = await merge(package, site, RecordsArgs())
    assert (again.merged, again.already, again.conflicts, again.entries) == (0, 3, [], 0)
    assert owner.rows("SELECT count(*) FROM records.history WHERE type = 'DocumentReference'") == [
        (3,)
    ]
    returned = owner.entries("emergency-return")
    assert [each["details"]["merged"] for each in returned] == [3, 0]
    assert returned[0]["details"]["head_hash"] == package.head[1]


async def test_an_earlier_emergency_that_nobody_brought_back_comes_with_the_last_one(
    ward: Ward, house: House, site: Places
) -> None:
    patient = await house.patient()
    for _ in range(2):
        await ward.begin()
        await ward.write(house, patient)
        await ward.end()
    earlier, last = await noted(site.owner_dsn)

    async def brought_back() -> list[tuple[str, int, int]]:
        found = bring_back(site.owner_dsn, site, RecordsArgs())
        return [(each.activation, each.merged, each.already) async for each in found]

    assert await brought_back() == [(earlier.id, 1, 0), (last.id, 1, 0)]
    assert await brought_back() == [(last.id, 0, 1)]


async def test_what_cannot_be_merged_is_listed_with_its_reason_and_kept(
    ward: Ward, house: House, records: Records, site: Places, owner: Owner, sealer: Sealer
) -> None:
    gone, linked, sound = [await house.patient() for _ in range(3)]
    await ward.begin()
    notes = {name: await ward.write(house, name) for name in (gone, linked, sound)}
    taken = await ward.write(house, sound, "another text")
    await ward.end()
    package = await collect(site.owner_dsn)
    await records.delete(people.again(house.physician), "Patient", gone)
    body = people.patient(
        link=[{"other": {"reference": f"Patient/{sound}"}, "type": "replaced-by"}]
    )
    await records.update(
        people.again(house.physician), "Patient", linked, body | {"id": linked}, if_match=None
    )
    strange = replace(package.notes[0], id=str(uuid.uuid4()), patient=str(uuid.uuid4()))
    strange = replace(strange, sealed=sealer.seal(TEXT.encode(), strange.context))
    broken = replace(package.notes[0], id=str(uuid.uuid4()))
    package = replace(package, notes=(*package.notes, strange, broken))
    # Something else was written under this id meanwhile: not by us, but it is not overwritten.
    first = await merge(replace(package, notes=(package.notes[3],)), site, RecordsArgs())
    assert package.notes[3].id == taken.id
    assert first.merged == 1
    owner.rows("DELETE FROM emergency.outcome")
    stored = (
        await records.read(people.again(house.physician), "DocumentReference", taken.id)
    ).resource
    assert stored is not None
    stored["content"][0]["attachment"]["data"] = "b3RoZXI="
    await records.update(
        people.again(house.physician), "DocumentReference", taken.id, stored, if_match=None
    )

    found = await merge(package, site, RecordsArgs())
    assert found.merged == 1
    assert {(held.id, held.reason) for held in found.conflicts} == {
        (notes[gone].id, "patient_deleted"),
        (notes[linked].id, "patient_merged"),
        (taken.id, "other_content"),
        (strange.id, "patient_unknown"),
        (broken.id, "seal_broken"),
    }
    kept = owner.rows("SELECT note::text, reason FROM emergency.outcome WHERE outcome = 'conflict'")
    assert set(kept) == {(held.id, held.reason) for held in found.conflicts}
    assert owner.rows("SELECT count(*) FROM emergency.note") == [(6,)]
    # A patient that comes back to life takes its note in the next merge.
    back = people.patient() | {"id": gone}
    await records.update(people.again(house.machine), "Patient", gone, back, if_match=None)
    assert (await merge(package, site, RecordsArgs())).merged == 1


async def test_the_emergencys_chain_is_brought_along_and_a_broken_one_is_told(
    ward: Ward, house: House, site: Places, owner: Owner
) -> None:
    await ward.begin()
    await ward.write(house, await house.patient())
    await ward.end()
    package = await collect(site.owner_dsn)
    assert package.chain_fault is None
    forged = replace(package.entries[1], body=package.entries[1].body.replace("success", "denied!"))
    entries = (package.entries[0], forged, *package.entries[2:])
    found = await merge(replace(package, entries=entries), site, RecordsArgs())
    assert [(held.kind, held.reason) for held in found.conflicts] == [("entry", "chain_broken")]
    assert found.conflicts[0].id == str(forged.seq)
    assert found.entries == len(entries)


async def test_a_file_that_is_no_export_or_of_other_keys_is_refused(
    ward: Ward, site: Places, sealer: Sealer, tmp_path: Path
) -> None:
    await ward.begin()
    await ward.end()
    data = (await collect(site.owner_dsn)).sealed(sealer)
    for other in (b"", b"{}", b"[1]", data[:-20]):
        with pytest.raises(Invalid):
            opened(other, sealer)
    keys.create(tmp_path / "others")
    with pytest.raises(SealBroken):
        opened(data, Sealer.load(tmp_path / "others"))


async def test_an_empty_database_has_no_emergency_to_bring_back(
    dsns: tuple[str, str],
) -> None:

    with pytest.raises(NotFound):
        await collect(dsns[1])
