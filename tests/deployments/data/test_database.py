"""Transactions against a real server: settings, errors, deadlines, and the fate of commits."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import suppress
from typing import Any

import psycopg
import pytest
import uvloop

from deployments.data.database import Database
from deployments.data.errors import (
    CommitUnknown,
    Conflict,
    DataError,
    DeadlineExceeded,
    Forbidden,
    Interrupted,
    StoreUnavailable,
)

TABLE = """
CREATE TABLE records.probe (id integer PRIMARY KEY, note text);
GRANT SELECT, INSERT, UPDATE ON records.probe TO medrec_app;
CREATE TABLE records.closed (id integer);
"""
# Runs inside COMMIT, as a slow or worried server would.
AT_COMMIT = """
CREATE FUNCTION records.at_commit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {} RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON records.probe
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION records.at_commit();
"""
# What a test allows for beyond a deadline, on two busy cores.
LATE_S = 1.5


def soon(seconds: float = 10.0) -> float:
    return time.monotonic() + seconds


@pytest.fixture
async def database(dsns: tuple[str, str]) -> AsyncIterator[Database]:
    """With a table of this test's own."""
    owned(dsns, TABLE)
    opened = Database(dsns[0], connections=4)
    await opened.open()
    yield opened
    await opened.close()


def owned(dsns: tuple[str, str], statement: str) -> list[tuple[Any, ...]]:
    """Run something as the owner, past the pool."""
    with psycopg.connect(dsns[1], autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


async def pid_of(connection: psycopg.AsyncConnection[tuple[Any, ...]]) -> int:
    row = await (await connection.execute("SELECT pg_backend_pid()")).fetchone()
    assert row is not None
    return int(row[0])


async def insert(database: Database, number: int, deadline: float | None = None) -> None:
    async with database.transaction(deadline=deadline or soon()) as connection:
        await connection.execute("INSERT INTO records.probe VALUES (%s, 'x')", [number])


async def test_the_settings_hold_for_the_transaction_alone(database: Database) -> None:
    query = (
        "SELECT current_user, current_setting('medrec.organization', true),"
        " current_setting('medrec.practitioner', true),"
        " current_setting('medrec.compartment', true), current_setting('synchronous_commit')"
    )
    async with database.transaction(
        deadline=soon(), organization="h1", practitioner="p1", compartment="care", durable=False
    ) as connection:
        row = await (await connection.execute(query)).fetchone()
    assert row == ("medrec_app", "h1", "p1", "care", "off")
    async with database.transaction(deadline=soon()) as connection:
        row = await (await connection.execute(query)).fetchone()
    assert row == ("medrec_app", "", "", "none", "on")


@pytest.mark.parametrize("value", ["x'; DROP TABLE records.probe; --", "é", "a b", "\\", "$left"])
async def test_what_is_no_id_never_reaches_a_statement(database: Database, value: str) -> None:
    with pytest.raises(ValueError, match="no id"):
        async with database.transaction(deadline=soon(), organization=value):
            pytest.fail("the transaction began")


async def test_a_block_that_ends_well_is_committed_and_one_that_fails_is_not(
    database: Database, dsns: tuple[str, str]
) -> None:
    async def fail() -> None:
        async with database.transaction(deadline=soon()) as connection:
            await connection.execute("INSERT INTO records.probe VALUES (2, 'x')")
            raise KeyError("ours")

    await insert(database, 1)
    with pytest.raises(KeyError):
        await fail()
    assert owned(dsns, "SELECT id FROM records.probe") == [(1,)]
    assert database.figures()["idle"] >= 1


@pytest.mark.parametrize(
    ("statement", "expected", "code"),
    [
        ("INSERT INTO records.probe VALUES (1, 'secret')", Conflict, "constraint"),
        ("SELECT * FROM records.closed", Forbidden, "forbidden"),
        ("SELECT 'secret'::integer", DataError, "internal_error"),
        ("DO $$ BEGIN RAISE SQLSTATE '40001'; END $$", Conflict, "serialization"),
        ("DO $$ BEGIN RAISE SQLSTATE '40P01'; END $$", Conflict, "serialization"),
        ("DO $$ BEGIN RAISE SQLSTATE '53100'; END $$", StoreUnavailable, "store_unavailable"),
        ("SELECT pg_terminate_backend(pg_backend_pid())", Interrupted, "store_unavailable"),
    ],
)
async def test_an_error_leaves_the_block_as_ours_without_the_servers_words(
    database: Database, statement: str, expected: type[DataError], code: str
) -> None:
    await insert(database, 1)
    with pytest.raises(DataError) as caught:
        async with database.transaction(deadline=soon()) as connection:
            await connection.execute(statement.encode())
    assert type(caught.value) is expected
    assert caught.value.code == code
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    await insert(database, 2)


async def test_a_write_in_a_read_only_transaction_is_our_mistake(database: Database) -> None:
    with pytest.raises(DataError, match="25006") as caught:
        async with database.transaction(deadline=soon(), read_only=True) as connection:
            await connection.execute("INSERT INTO records.probe VALUES (1, 'x')")
    assert caught.value.status == 500


async def test_an_error_that_the_block_overlooks_is_not_taken_for_a_commit(
    database: Database, dsns: tuple[str, str]
) -> None:
    async def overlook() -> None:
        async with database.transaction(deadline=soon()) as connection:
            await connection.execute("INSERT INTO records.probe VALUES (1, 'x')")
            with suppress(psycopg.Error):
                await connection.execute("SELECT 1/0")

    with pytest.raises(DataError, match="a statement failed"):
        await overlook()
    assert owned(dsns, "SELECT id FROM records.probe") == []


async def test_a_deadlock_is_a_conflict_for_one_of_the_two(database: Database) -> None:
    await insert(database, 1)
    await insert(database, 2)
    met = asyncio.Barrier(2)

    async def lock(first: int, second: int) -> None:
        update = "UPDATE records.probe SET note = 'y' WHERE id = %s"
        async with database.transaction(deadline=soon()) as connection:
            await connection.execute(update, [first])
            await met.wait()
            await connection.execute(update, [second])

    results = await asyncio.gather(lock(1, 2), lock(2, 1), return_exceptions=True)
    (lost,) = (result for result in results if result is not None)
    assert isinstance(lost, Conflict)
    assert lost.code == "serialization"


async def test_a_slow_statement_ends_with_the_deadline_and_its_connection_lives(
    database: Database,
) -> None:
    pid = 0

    async def sleep() -> None:
        nonlocal pid
        async with database.transaction(deadline=soon(0.3)) as connection:
            pid = await pid_of(connection)
            await connection.execute("SELECT pg_sleep(20)")

    began = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        await sleep()
    assert time.monotonic() - began < 0.3 + LATE_S
    pids = set()
    for _ in range(4):
        async with database.transaction(deadline=soon()) as connection:
            pids.add(await pid_of(connection))
    assert pid in pids


async def test_a_block_that_takes_too_long_by_itself_is_not_committed(
    database: Database, dsns: tuple[str, str]
) -> None:
    async def dawdle() -> None:
        async with database.transaction(deadline=soon(0.2)) as connection:
            await connection.execute("INSERT INTO records.probe VALUES (1, 'x')")
            await asyncio.sleep(0.3)

    with pytest.raises(DeadlineExceeded):
        await dawdle()
    with pytest.raises(DeadlineExceeded):
        async with database.transaction(deadline=time.monotonic()):
            pytest.fail("the transaction began")
    assert owned(dsns, "SELECT id FROM records.probe") == []


async def frozen_in_a_statement(database: Database) -> None:
    async def ask() -> None:
        async with database.transaction(deadline=soon(0.5)) as connection:
            pid = await pid_of(connection)
            os.kill(pid, signal.SIGSTOP)
            try:
                await connection.execute("SELECT 1")
            finally:
                os.kill(pid, signal.SIGCONT)

    began = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        await ask()
    assert time.monotonic() - began < 0.5 + LATE_S


async def frozen_in_the_commit(database: Database) -> None:
    began, pid = time.monotonic(), 0

    async def write() -> None:
        nonlocal pid
        async with database.transaction(deadline=soon(0.5)) as connection:
            await connection.execute("INSERT INTO records.probe VALUES (7, 'x')")
            pid = await pid_of(connection)
            os.kill(pid, signal.SIGSTOP)

    try:
        with pytest.raises(CommitUnknown):
            await write()
    finally:
        os.kill(pid, signal.SIGCONT)
    assert time.monotonic() - began < 0.5 + LATE_S


async def frozen_at_rest(database: Database) -> None:
    async with database.transaction(deadline=soon()) as connection:
        pid = await pid_of(connection)
    os.kill(pid, signal.SIGSTOP)
    try:
        for _ in range(4):
            began = time.monotonic()
            with suppress(DeadlineExceeded):
                async with database.transaction(deadline=soon(0.4)):
                    pass
            assert time.monotonic() - began < 0.4 + LATE_S
    finally:
        os.kill(pid, signal.SIGCONT)


FROZEN = [frozen_in_a_statement, frozen_in_the_commit, frozen_at_rest]


@pytest.mark.parametrize("drill", FROZEN)
async def test_a_server_that_stops_answering_holds_nobody_past_the_deadline(
    database: Database, drill: Callable[[Database], Coroutine[Any, Any, None]]
) -> None:
    await drill(database)
    await insert(database, 1)


@pytest.mark.parametrize("drill", FROZEN)
def test_the_same_holds_under_uvloop(
    dsns: tuple[str, str], drill: Callable[[Database], Coroutine[Any, Any, None]]
) -> None:
    owned(dsns, TABLE)

    async def run() -> None:
        database = Database(dsns[0], connections=4)
        await database.open()
        try:
            await drill(database)
            await insert(database, 1)
        finally:
            await database.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


async def test_a_connection_that_breaks_during_the_commit_leaves_its_fate_unknown(
    database: Database, dsns: tuple[str, str]
) -> None:
    owned(dsns, AT_COMMIT.format("PERFORM pg_terminate_backend(pg_backend_pid());"))
    with pytest.raises(CommitUnknown):
        await insert(database, 1)


async def test_a_commit_that_the_server_refuses_is_known_not_to_have_happened(
    database: Database, dsns: tuple[str, str]
) -> None:
    owned(dsns, AT_COMMIT.format("RAISE SQLSTATE '40001';"))
    with pytest.raises(Conflict):
        await insert(database, 1)
    assert owned(dsns, "SELECT id FROM records.probe") == []


async def test_a_commit_with_a_warning_is_not_acknowledged(
    database: Database, dsns: tuple[str, str]
) -> None:
    """So a server says that it could not wait for its synchronous standby."""
    owned(dsns, AT_COMMIT.format("RAISE WARNING 'canceling wait for synchronous replication';"))
    with pytest.raises(CommitUnknown, match="as safe as it should"):
        await insert(database, 1)
    assert owned(dsns, "SELECT id FROM records.probe") == [(1,)]


@pytest.fixture
async def busy(database: Database) -> AsyncIterator[Database]:
    """With every connection taken."""
    release = asyncio.Event()

    taken = asyncio.Barrier(5)

    async def hold() -> None:
        async with database.transaction(deadline=soon(30)):
            await taken.wait()
            await release.wait()

    holders = [asyncio.create_task(hold()) for _ in range(4)]
    await taken.wait()
    yield database
    release.set()
    await asyncio.gather(*holders)


async def test_who_finds_every_connection_taken_waits_until_the_deadline(busy: Database) -> None:
    began = time.monotonic()
    with pytest.raises(StoreUnavailable, match="busy"):
        await insert(busy, 1, soon(0.3))
    assert 0.25 < time.monotonic() - began < 0.3 + LATE_S


async def test_the_queue_for_connections_is_bounded(busy: Database) -> None:
    waiting = [asyncio.create_task(insert(busy, number)) for number in range(128)]
    await asyncio.sleep(0.2)
    assert busy.figures()["waiting"] == 128
    began = time.monotonic()
    with pytest.raises(StoreUnavailable):
        await insert(busy, 999)
    assert time.monotonic() - began < 0.5
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_connections_that_a_restart_broke_are_passed_over(
    database: Database, dsns: tuple[str, str]
) -> None:
    await asyncio.gather(*(insert(database, number) for number in range(8)))
    owned(
        dsns,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )
    await asyncio.gather(*(insert(database, number) for number in range(8, 16)))
    assert owned(dsns, "SELECT count(*) FROM records.probe") == [(16,)]


async def test_a_cancelled_task_gives_its_connection_back(database: Database) -> None:
    async def sleep() -> None:
        async with database.transaction(deadline=soon(30)) as connection:
            await connection.execute("SELECT pg_sleep(30)")

    for _ in range(8):
        task = asyncio.create_task(sleep())
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await insert(database, 1, soon(3))


async def test_a_closed_or_unopened_database_is_unavailable(dsns: tuple[str, str]) -> None:
    database = Database(dsns[0], connections=2)
    with pytest.raises(StoreUnavailable, match="not open"):
        await insert(database, 1)
    await database.open()
    await database.close()
    with pytest.raises(StoreUnavailable, match="not open"):
        await insert(database, 1)
