"""Alerts of the emergency cell come back into the site's database, once, with nothing dropped."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import psycopg
import pytest

from deployments.data.alerts.merge import export_since, merge
from deployments.data.postgres import APPLICATION, OWNER, LocalServer
from tests.deployments.data.alerts.conftest import TEXT, Ward
from tests.deployments.data.records import people

Connection = psycopg.AsyncConnection[tuple[Any, ...]]
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.fixture
def site_dsn(postgres: LocalServer) -> Iterator[str]:
    """A second database: the site's, while the ward is the emergency cell."""
    name = f"s_{uuid.uuid4().hex}"
    with psycopg.connect(postgres.dsn(OWNER, "postgres"), autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}" TEMPLATE medrec STRATEGY file_copy')
        connection.execute(f'GRANT CONNECT ON DATABASE "{name}" TO {APPLICATION}')
        try:
            yield postgres.dsn(OWNER, name)
        finally:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
async def site(site_dsn: str) -> AsyncIterator[Connection]:
    async with await psycopg.AsyncConnection.connect(site_dsn, autocommit=True) as connection:
        yield connection


async def exported(ward: Ward, since: datetime = LONG_AGO) -> list[dict[str, Any]]:
    async with await psycopg.AsyncConnection.connect(ward.owner.dsn) as connection:
        rows = await export_since(connection, since)
    # It travels as JSON.
    found: list[dict[str, Any]] = orjson.loads(orjson.dumps(rows))
    return found


async def rows_of(connection: Connection, query: str) -> list[tuple[Any, ...]]:
    return await (await connection.execute(query.encode())).fetchall()


async def test_everything_arrives_once_with_numbers_of_its_new_home(
    ward: Ward, site: Connection
) -> None:
    first = await ward.raised()
    await ward.raised(severity="high", text=None)
    await ward.alerts.acknowledge(ward.physician, first)
    rows = await exported(ward)
    for expected in ((2, 3), (0, 0)):
        async with site.transaction():
            merged = await merge(site, rows)
        assert (merged.alerts, merged.events, merged.conflicts) == (*expected, [])
    states = await rows_of(site, "SELECT state FROM alerts.alert ORDER BY raised_at")
    assert states == [("acknowledged",), ("raised",)]
    numbers = await rows_of(site, "SELECT seq, kind FROM alerts.event ORDER BY seq")
    assert numbers == [(1, "raised"), (2, "acknowledged"), (3, "raised")]
    assert TEXT not in str(await rows_of(site, "SELECT t::text FROM alerts.alert AS t"))


async def test_what_came_back_can_be_read_and_goes_on_calling(ward: Ward, site: Connection) -> None:
    """Back and forth: the text opens where the keys are, and the moment of the next call is kept."""
    id = await ward.raised()
    rows = await exported(ward)
    due = rows[0]["alert"]["due_at"]
    ward.owner.rows("DELETE FROM alerts.event")
    ward.owner.rows("DELETE FROM alerts.alert")
    async with await psycopg.AsyncConnection.connect(ward.owner.dsn) as connection:
        assert (await merge(connection, rows)).alerts == 1
    alert = await ward.alerts.read(ward.physician, id)
    assert alert.text == TEXT
    assert alert.due_at == datetime.fromisoformat(due)


async def test_only_what_changed_since_travels(ward: Ward) -> None:
    old, new = await ward.raised(), await ward.raised()
    ward.owner.rows("UPDATE alerts.alert SET raised_at = raised_at - interval '1 day'")
    ward.owner.rows("UPDATE alerts.event SET at = at - interval '1 day'")
    since = datetime.now(UTC) - timedelta(hours=1)
    assert await exported(ward, since) == []
    await ward.alerts.acknowledge(ward.physician, new)
    [row] = await exported(ward, since)
    assert row["alert"]["id"] == new != old
    assert [event["kind"] for event in row["events"]] == ["raised", "acknowledged"]


async def test_an_alert_that_went_on_in_both_keeps_both_and_is_told(
    ward: Ward, site: Connection
) -> None:
    id = await ward.raised()
    before = await exported(ward)
    async with site.transaction():
        await merge(site, before)
    await ward.alerts.resolve(ward.physician, id)
    await site.execute(
        "INSERT INTO alerts.event (id, alert, organization, kind, at, actor, role, level)"
        " VALUES (gen_random_uuid(), %s, 'hospital', 'acknowledged', now(), 'a', 'nurse', 0)",
        (id,),
    )
    await site.execute("UPDATE alerts.alert SET state = 'acknowledged', due_at = NULL")
    async with site.transaction():
        merged = await merge(site, await exported(ward))
    assert [each.reason for each in merged.conflicts] == [
        "it went on in both: acknowledged here, resolved there; all is kept"
    ]
    assert await rows_of(site, "SELECT state FROM alerts.alert") == [("resolved",)]
    kinds = await rows_of(site, "SELECT kind FROM alerts.event ORDER BY seq")
    assert kinds == [("raised",), ("acknowledged",), ("resolved",)]


async def test_what_was_resolved_in_emergency_stays_so_though_the_site_went_on_calling(
    ward: Ward, site: Connection
) -> None:
    """The copy goes on: what the site escalates before the return overwrites the row, not the events."""
    id = await ward.raised()
    async with site.transaction():
        await merge(site, await exported(ward))
    await ward.alerts.resolve(ward.physician, id)
    escalated = "UPDATE alerts.alert SET state = 'escalated', due_at = now(), escalations = 1"
    ward.owner.rows(escalated)
    await site.execute(escalated)
    async with site.transaction():
        await merge(site, await exported(ward))
    query = "SELECT state, due_at, escalations FROM alerts.alert"
    assert await rows_of(site, query) == [("resolved", None, 1)]


async def test_one_id_with_two_meanings_changes_nothing_and_is_told(
    ward: Ward, site: Connection
) -> None:
    await ward.raised()
    rows = await exported(ward)
    async with site.transaction():
        await merge(site, rows)
        rows[0]["alert"]["code"] = "other"
        rows[0]["events"][0]["id"] = str(uuid.uuid4())
        merged = await merge(site, rows)
    assert (merged.alerts, merged.events) == (0, 0)
    assert [each.reason for each in merged.conflicts] == [
        "another alert has this id here: code differ; nothing was added"
    ]


async def test_a_value_that_raised_an_alert_in_both_is_kept_twice_and_open_once(
    ward: Ward, site: Connection
) -> None:
    await ward.raised()
    ward.owner.rows(
        "UPDATE alerts.alert SET origin = 'rule', raised_by = 'rule', resource = 'Observation/1'"
    )
    rows = await exported(ward)
    twin = orjson.loads(orjson.dumps(rows))
    twin[0]["alert"]["id"] = twin[0]["events"][0]["alert"] = str(uuid.uuid4())
    twin[0]["events"][0]["id"] = str(uuid.uuid4())
    async with site.transaction():
        await merge(site, rows)
        merged = await merge(site, twin)
    assert (merged.alerts, merged.events) == (1, 1)
    assert "kept as resolved" in merged.conflicts[0].reason
    states = await rows_of(site, "SELECT state FROM alerts.alert ORDER BY state")
    assert states == [("raised",), ("resolved",)]


async def test_rows_that_are_no_export_are_refused(site: Connection) -> None:
    wrong: list[list[dict[str, Any]]] = [[{}], [{"alert": {}, "events": []}], [{"alert": None}]]
    for rows in wrong:
        with pytest.raises(ValueError, match="no export"):
            await merge(site, rows)


async def test_a_database_that_holds_a_copy_numbers_on_after_it(ward: Ward) -> None:
    """Logical replication writes rows without firing triggers: the counter does not know of them."""
    first = await ward.raised()
    ward.owner.rows("UPDATE alerts.event SET seq = 41 WHERE alert = %s", first)
    await ward.raised()
    assert ward.owner.rows("SELECT max(seq) FROM alerts.event") == [(42,)]
    assert people.MARK not in str(ward.owner.rows("SELECT t::text FROM alerts.event AS t"))
