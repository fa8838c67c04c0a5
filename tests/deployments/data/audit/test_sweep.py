"""The custodian's part: what the dead left is chained, and the chain is watched for ever."""

from __future__ import annotations

import logging

import psycopg
import pytest

from deployments.data.audit.chain import Audit
from deployments.data.audit.sweep import Watch, sweep
from deployments.data.database import Database
from tests.deployments.data.audit.acts import chain, entry, outbox, soon


async def stage(database: Database, audit: Audit, count: int) -> list[str]:
    entries = [entry(number) for number in range(count)]
    async with database.transaction(deadline=soon()) as connection:
        for one in entries:
            await audit.stage(connection, one)
    return [str(one.id) for one in entries]


async def test_only_rows_of_some_age_are_swept(
    audit: Audit, database: Database, dsns: tuple[str, str]
) -> None:
    staged = await stage(database, audit, 3)
    assert (await sweep(database, deadline=soon())).chained == 0
    assert outbox(dsns[1]) == staged
    assert (await sweep(database, deadline=soon(), older_than_s=0)).chained == 3
    assert [id for _, id in chain(dsns[1])] == staged


async def test_many_rows_are_swept_in_parts_and_in_order(
    audit: Audit, database: Database, dsns: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deployments.data.audit.sweep.SWEEP_ENTRIES", 10)
    staged = await stage(database, audit, 35)
    assert (await sweep(database, deadline=soon(), older_than_s=0)).chained == 35
    assert [id for _, id in chain(dsns[1])] == staged


async def test_a_row_with_the_id_of_another_entry_stays_and_is_told(
    audit: Audit, database: Database, dsns: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    one = entry(1)
    await audit.record(one, deadline=soon())
    async with database.transaction(deadline=soon()) as connection:
        await audit.stage(connection, entry(2, id=one.id))
        good = await audit.stage(connection, entry(3))
    swept = await sweep(database, deadline=soon(), older_than_s=0)
    assert (swept.chained, swept.stuck) == (1, 1)
    assert outbox(dsns[1]) == [str(one.id)]
    assert [id for _, id in chain(dsns[1])] == [str(one.id), str(good)]
    assert "bear the id of another entry" in caplog.text


async def record(audit: Audit, count: int) -> None:
    for number in range(count):
        await audit.record(entry(number), deadline=soon())


async def rounds(watch: Watch, database: Database, count: int) -> list[tuple[int, str]]:
    """Steps of four entries until so many rounds are done; what they found."""
    found: list[tuple[int, str]] = []
    target = watch.rounds + count
    while watch.rounds < target:
        step = await watch.verify_step(database, deadline=soon(), entries=4)
        found += [(fault.seq, fault.what) for fault in step.faults]
    return found


async def test_the_watch_goes_round_and_round(audit: Audit, database: Database) -> None:
    watch = Watch()
    assert await rounds(watch, database, 1) == []
    await record(audit, 10)
    assert await rounds(watch, database, 2) == []
    await record(audit, 2)
    assert await rounds(watch, database, 2) == []
    assert (watch.faults, watch.rounds) == (0, 5)


async def test_the_watch_finds_a_change_in_the_next_round(
    audit: Audit, database: Database, dsns: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    await record(audit, 10)
    watch = Watch()
    assert await rounds(watch, database, 1) == []
    with psycopg.connect(dsns[1]) as owner:
        owner.execute("ALTER TABLE audit.entry DISABLE TRIGGER ALL")
        owner.execute("UPDATE audit.entry SET patient = 'x' WHERE seq = 6")
    assert await rounds(watch, database, 1) == [(6, "column")]
    assert await rounds(watch, database, 1) == [(6, "column")]
    assert watch.faults == 2
    assert "the audit chain is broken at entry 6" in caplog.text
    assert all(record.levelno == logging.CRITICAL for record in caplog.records)


async def test_the_watch_finds_a_chain_that_was_replaced_as_a_whole(
    audit: Audit, database: Database, dsns: tuple[str, str]
) -> None:
    await record(audit, 10)
    watch = Watch()
    assert await rounds(watch, database, 1) == []
    with psycopg.connect(dsns[1]) as owner:
        for table in ("entry", "head"):
            owner.execute(f"ALTER TABLE audit.{table} DISABLE TRIGGER ALL")
        owner.execute("CREATE TEMP TABLE kept AS SELECT body FROM audit.entry ORDER BY seq DESC")
        owner.execute("TRUNCATE audit.entry")
        owner.execute("UPDATE audit.head SET seq = 0, hash = decode(repeat('00', 32), 'hex')")
        owner.execute("SELECT audit.append(array_agg(body), '{}') FROM kept")
    assert await rounds(watch, database, 1) == [(10, "anchor")]


async def test_the_watch_finds_a_chain_that_has_become_shorter(
    audit: Audit, database: Database, dsns: tuple[str, str]
) -> None:
    await record(audit, 10)
    watch = Watch()
    assert await rounds(watch, database, 1) == []
    with psycopg.connect(dsns[1]) as owner:
        for table in ("entry", "head"):
            owner.execute(f"ALTER TABLE audit.{table} DISABLE TRIGGER ALL")
        owner.execute("DELETE FROM audit.entry WHERE seq > 7")
        owner.execute(
            "UPDATE audit.head SET (seq, hash) = (SELECT seq, hash FROM audit.entry WHERE seq = 7)"
        )
    assert await rounds(watch, database, 1) == [(8, "cut")]
