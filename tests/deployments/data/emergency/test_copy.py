"""Proves on two real servers what the emergency copy holds, that it follows, and that it heals."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg
import pytest

from configs.args import RecordsArgs
from deployments.cell import condition
from deployments.cell.state import Home
from deployments.data.audit.chain import Audit
from deployments.data.database import Database
from deployments.data.emergency.copy import SUBSCRIPTION, Copy
from deployments.data.emergency.keeping import CopyKeeper
from deployments.data.emergency.publisher import ROLE, beat, ignored_slots
from deployments.data.emergency.tables import TABLES
from deployments.data.errors import NotFound
from deployments.data.migrate import migrate
from deployments.data.postgres import OWNER
from deployments.data.records.search import parse
from deployments.data.records.store import Records
from deployments.data.seal.sealer import Sealer
from tests.deployments.data.emergency.conftest import Side
from tests.deployments.data.records import people
from tests.deployments.data.records.conftest import House

VITALS = {
    "category": [
        {
            "coding": [
                {
                    "system": "http://terminology.hl7.org/CodeSystem/observation-category",
                    "code": "vital-signs",
                }
            ]
        }
    ]
}
COPIED = "SELECT count(*) FROM records.resource WHERE type = 'Patient' AND NOT deleted"


@pytest.fixture
async def site(
    two_sides: tuple[Side, Side], sealer: Sealer, tmp_path: Path
) -> AsyncIterator[House]:
    """The records of the site, with the same keys as the copy is read with."""
    async with _records(two_sides[0], sealer, tmp_path / "site") as records:
        machine = people.caller("service")
        ids = []
        for family in ("Andrade", "Barros"):
            written = await records.create(machine, "Practitioner", people.practitioner(family))
            ids.append(written.stored.id)
        callers = [people.caller(practitioner=id) for id in ids]
        yield House(records, machine, *callers)


@pytest.fixture
async def cloud(
    two_sides: tuple[Side, Side], sealer: Sealer, tmp_path: Path
) -> AsyncIterator[Records]:
    """The records of the emergency cell."""
    async with _records(two_sides[1], sealer, tmp_path / "cloud") as records:
        yield records


@asynccontextmanager
async def _records(side: Side, sealer: Sealer, folder: Path) -> AsyncIterator[Records]:
    database = Database(side.dsn, connections=3)
    audit = Audit(database, folder)
    await database.open()
    await audit.start()
    try:
        yield Records(database, sealer, audit, RecordsArgs())
    finally:
        await audit.close()
        await database.close()


@pytest.fixture
def copy(two_sides: tuple[Side, Side]) -> Iterator[Copy]:
    site, cloud = two_sides
    yield Copy(cloud.owner_dsn, site.copy_dsn)
    cloud.rows(
        "UPDATE emergency.activation SET ended_at = now(), ended_by = 'test' WHERE ended_at IS NULL"
    )


async def _vital(house: House, patient: str, at: str, value: int, **more: object) -> str:
    body = people.observation(
        patient,
        effectiveDateTime=at,
        valueQuantity={"value": value, "unit": "beats/minute"},
        **more,
    )
    return (
        await house.records.create(people.again(house.physician), "Observation", body)
    ).stored.id


async def test_the_copy_holds_the_emergency_subset_readable_by_the_same_rights(
    two_sides: tuple[Side, Side], site: House, cloud: Records, copy: Copy
) -> None:
    here, there = two_sides
    patient = await site.patient()
    strange = await site.patient(by=site.colleague)
    allergy = {
        "resourceType": "AllergyIntolerance",
        "clinicalStatus": {
            "coding": [
                {
                    "system": "http://terminology.hl7.org/CodeSystem/allergyintolerance-clinical",
                    "code": "active",
                }
            ]
        },
        "code": {"text": people.MARK},
        "patient": {"reference": f"Patient/{patient}"},
    }
    made = await site.records.create(people.again(site.physician), "AllergyIntolerance", allergy)
    old = await _vital(site, patient, "2026-03-01T10:00:00Z", 60, **VITALS)
    new = await _vital(site, patient, "2026-03-02T10:00:00Z", 61, **VITALS)
    laboratory = await _vital(site, patient, "2026-03-03T10:00:00Z", 62)

    assert copy.keep().state == "copied-anew"
    assert people.MARK in str((await cloud.read(site.physician, "Patient", patient)).resource)
    read = await cloud.read(people.again(site.physician), "AllergyIntolerance", made.stored.id)
    assert read.resource == made.stored.resource
    page = await cloud.search(
        people.again(site.physician), parse("Observation", [("patient", patient)])
    )
    assert [entry.id for entry in page.entries] == [new]
    kept = {row[0] for row in there.rows("SELECT id FROM records.resource")}
    assert {old, laboratory}.isdisjoint(kept)
    assert not there.rows("SELECT 1 FROM records.history")
    # Whom a caller may not see on site, they may not see here.
    with pytest.raises(NotFound):
        await cloud.read(people.again(site.physician), "Patient", strange)
    assert (await cloud.read(people.again(site.colleague), "Patient", strange)).resource
    assert here.rows(COPIED) == there.rows(COPIED)


async def test_what_changes_on_site_is_followed_within_moments(
    two_sides: tuple[Side, Side], site: House, cloud: Records, copy: Copy
) -> None:
    _, there = two_sides
    copy.keep()
    patient = await site.patient()
    first = await _vital(site, patient, "2026-04-01T10:00:00Z", 70, **VITALS)
    there.until(f"SELECT count(*) FROM records.resource WHERE id = '{first}'", 1)
    second = await _vital(site, patient, "2026-04-02T10:00:00Z", 71, **VITALS)
    there.until(f"SELECT count(*) FROM records.resource WHERE id = '{second}'", 1)
    assert there.rows("SELECT 1 FROM records.resource WHERE id = %s", first) == []
    # Deleted on site: the one before it is the last again.
    await site.records.delete(people.again(site.physician), "Observation", second)
    there.until(f"SELECT count(*) FROM records.resource WHERE id = '{first}'", 1)
    assert there.rows("SELECT 1 FROM records.resource WHERE id = %s", second) == []
    body = people.patient(birthDate="1981-01-01") | {"id": patient}
    await site.records.update(people.again(site.physician), "Patient", patient, body, if_match=None)
    there.until(f"SELECT max(version) FROM records.resource WHERE id = '{patient}'", 2)
    stored = await cloud.read(people.again(site.physician), "Patient", patient)
    assert stored.resource is not None
    assert stored.resource["birthDate"] == "1981-01-01"
    assert copy.keep().state == "streaming"


async def test_of_the_accounts_only_enrolled_ones_travel_and_leave_again(
    two_sides: tuple[Side, Side], copy: Copy
) -> None:
    here, there = two_sides
    copy.keep()
    names = [f"user-{uuid.uuid4().hex[:8]}" for _ in range(3)]
    ids = [str(uuid.uuid4()) for _ in names]
    for id, name in zip(ids, names, strict=True):
        here.rows(
            "INSERT INTO accounts.account (id, organization, username, password_hash, role,"
            " practitioner, created_by) VALUES (%s, 'hospital', %s, 'h', 'nurse', 'p', 't')",
            *(id, name),
        )
    for place, id in enumerate(ids[:2], start=1):
        here.rows(
            "INSERT INTO accounts.emergency_user (account, place, enrolled_by) VALUES (%s, %s, 't')",
            *(id, place),
        )
    ours = "SELECT count(*) FROM accounts.account WHERE created_by = 't'"
    there.until(ours, 2)
    here.rows("UPDATE accounts.account SET disabled = true WHERE id = %s", ids[0])
    there.until("SELECT count(*) FROM accounts.account WHERE disabled", 1)
    here.rows("DELETE FROM accounts.emergency_user WHERE account = %s", ids[0])
    there.until(ours, 1)
    assert there.rows("SELECT username FROM accounts.account WHERE created_by = 't'") == [
        (names[1],)
    ]
    here.rows("DELETE FROM accounts.account WHERE created_by = 't'")
    there.until(ours, 0)


def test_no_more_than_fifty_are_enrolled_whoever_tries(two_sides: tuple[Side, Side]) -> None:
    here, _ = two_sides
    id = str(uuid.uuid4())
    here.rows(
        "INSERT INTO accounts.account (id, organization, username, role, practitioner, created_by)"
        " VALUES (%s, 'hospital', %s, 'nurse', 'p', 'x')",
        *(id, id),
    )
    with pytest.raises(psycopg.errors.CheckViolation):
        here.rows(
            "INSERT INTO accounts.emergency_user (account, place, enrolled_by) VALUES (%s, 51, 'x')",
            id,
        )


async def test_the_age_is_that_of_the_last_heartbeat_that_arrived(
    two_sides: tuple[Side, Side], copy: Copy, tmp_path: Path
) -> None:
    here, there = two_sides
    here.rows("UPDATE emergency.heartbeat SET at = now() - interval '40 s'")
    copy.keep()
    there.until("SELECT at < now() - interval '30 s' FROM emergency.heartbeat", True)
    home = Home(tmp_path)
    keeper = CopyKeeper(copy, home)
    await keeper.run(time.monotonic() + 5)
    assert 39 < condition.read(home)["copy"]["age_s"] < 60
    database = Database(here.dsn, connections=2)
    await database.open()
    await beat(database, deadline=time.monotonic() + 5)
    await database.close()
    there.until("SELECT at > now() - interval '5 s' FROM emergency.heartbeat", True)
    await keeper.run(time.monotonic() + 5)
    told = condition.read(home)["copy"]
    assert told["age_s"] < 5
    assert told["state"] == "streaming"
    assert told["patients"] == there.rows(COPIED)[0][0]


async def test_alerts_come_along_and_those_of_the_emergency_cell_survive_a_new_copy(
    two_sides: tuple[Side, Side], copy: Copy
) -> None:
    here, there = two_sides
    copy.keep()
    ids = {side: str(uuid.uuid4()) for side in ("site", "cloud", "both")}
    alert = (
        "INSERT INTO alerts.alert (id, organization, severity, code, origin, raised_by, to_kind,"
        " to_role, raised_at, state) VALUES (%s, 'hospital', 'critical', 'fall', 'staff', 'a',"
        " 'role', 'nurse', now(), 'raised')"
    )
    found = "SELECT count(*) FROM alerts.alert WHERE id = '{}'"
    here.rows(alert, ids["site"])
    there.until(found.format(ids["site"]), 1)
    # Merged back, an alert of the emergency cell comes from the site as well: a copy heals itself.
    for side in (there, here):
        side.rows(alert, ids["both"])
    there.rows(alert, ids["cloud"])
    there.until("SELECT subenabled FROM pg_subscription", False)
    assert copy.keep().state == "copied-anew"
    for id in ids.values():
        assert there.rows(found.format(id)) == [(1,)]
    here.rows("UPDATE alerts.alert SET state = 'resolved' WHERE id = %s", ids["both"])
    there.until(f"SELECT state FROM alerts.alert WHERE id = '{ids['both']}'", "resolved")


async def test_a_slot_that_is_lost_leads_to_a_new_copy_which_is_never_half_there(
    two_sides: tuple[Side, Side], site: House, copy: Copy
) -> None:
    """As after a failover: the new primary has no slot. What was not published meanwhile arrives."""
    here, there = two_sides
    copy.keep()
    await site.patient()
    there.until(COPIED, here.rows(COPIED)[0][0])
    there.rows(f"ALTER SUBSCRIPTION {SUBSCRIPTION} DISABLE")
    slots = "SELECT count(*) FROM pg_replication_slots WHERE active"
    here.until(slots, 0)
    here.rows("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")
    await site.patient()
    counted = there.rows(COPIED)[0][0]
    with psycopg.connect(there.owner_dsn) as reader:
        reader.execute(COPIED.encode())
        assert copy.keep().state == "copied-anew"
    assert there.rows(COPIED)[0][0] == counted + 1
    assert len(here.rows("SELECT 1 FROM pg_replication_slots")) == 1
    await site.patient()
    there.until(COPIED, counted + 2)


async def test_a_copy_stays_as_it_was_while_an_emergency_is_open_or_the_site_is_empty(
    two_sides: tuple[Side, Side], site: House, copy: Copy
) -> None:
    here, there = two_sides
    await site.patient()
    copy.keep()
    there.until(COPIED, here.rows(COPIED)[0][0])
    counted = there.rows(COPIED)
    there.rows(f"ALTER SUBSCRIPTION {SUBSCRIPTION} DISABLE")
    there.rows(
        "INSERT INTO emergency.activation (id, reason, host, since, expires_at, patients, first_seq)"
        " VALUES (%s, 'r', 'edge-1', now(), now() + interval '1 h', 1, 0)",
        uuid.uuid4(),
    )
    assert copy.keep().state == "held"
    there.rows("UPDATE emergency.activation SET ended_at = now(), ended_by = 'edge-1'")
    other = f"empty_{uuid.uuid4().hex[:8]}"
    here.rows(f"CREATE DATABASE {other}")
    migrate(here.server.dsn(OWNER, other))
    found = Copy(there.owner_dsn, here.server.dsn(ROLE, other)).keep()
    assert (found.state, found.patients) == ("refused", counted[0][0])
    assert there.rows(COPIED) == counted
    assert copy.keep().state == "copied-anew"


def test_a_site_that_is_away_is_told_and_changes_nothing(
    two_sides: tuple[Side, Side], copy: Copy
) -> None:
    _, there = two_sides
    copy.keep()
    counted = there.rows(COPIED)
    away = Copy(there.owner_dsn, "host=127.0.0.1 port=1 dbname=medrec user=medrec_copy")
    found = away.keep()
    assert found.state == "unreachable"
    assert found.age_s is not None or counted == [(0,)]
    assert there.rows(COPIED) == counted


@pytest.mark.parametrize(
    "query",
    [
        "SELECT password_hash FROM accounts.account",
        "SELECT 1 FROM records.resource",
        "SELECT 1 FROM records.history",
        "SELECT 1 FROM records.resource_observation",
        "SELECT 1 FROM audit.entry",
        "SELECT 1 FROM interactions.short_lived",
        "INSERT INTO emergency.heartbeat VALUES (false, now())",
        "CREATE PUBLICATION everything FOR TABLE records.history",
    ],
)
def test_the_copys_role_reads_the_subset_and_nothing_else(
    two_sides: tuple[Side, Side], query: str
) -> None:
    with (
        psycopg.connect(two_sides[0].copy_dsn, autocommit=True) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute(query.encode())


async def test_a_cell_that_is_away_does_not_fill_the_sites_disk_and_copies_anew(
    two_sides: tuple[Side, Side], site: House, copy: Copy
) -> None:
    """The site keeps 32 MB of its log for it here; beyond that the slot is lost."""
    here, there = two_sides
    copy.keep()
    there.rows(f"ALTER SUBSCRIPTION {SUBSCRIPTION} DISABLE")
    here.until("SELECT count(*) FROM pg_replication_slots WHERE active", 0)
    await site.patient()
    for _ in range(5):
        here.rows("UPDATE emergency.heartbeat SET at = now()")
        here.rows("SELECT pg_switch_wal()")
    here.rows("CHECKPOINT")
    assert here.rows("SELECT wal_status FROM pg_replication_slots") == [("lost",)]
    assert copy.keep().state == "copied-anew"
    assert here.rows(COPIED) == there.rows(COPIED)
    assert here.rows("SELECT wal_status <> 'lost' FROM pg_replication_slots") == [(True,)]


def test_patroni_leaves_the_slot_alone() -> None:
    assert ignored_slots("medrec") == [
        {"type": "logical", "database": "medrec", "plugin": "pgoutput"}
    ]


def test_tables_and_publication_are_the_same(two_sides: tuple[Side, Side]) -> None:
    published = {
        f"{schema}.{table}"
        for schema, table in two_sides[0].rows(
            "SELECT schemaname, tablename FROM pg_publication_tables WHERE pubname = 'emergency'"
        )
    }
    assert published == {copied.table for copied in TABLES}
