"""A database that goes away and comes back: who waits, for how long, and how often it is tried."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Literal

import psycopg
import pytest

from deployments.data.connections import CONNECT_TIMEOUT_S, TRY_EVERY_S
from deployments.data.database import SILENT_S, Database
from deployments.data.errors import DataError, DeadlineExceeded, Interrupted, StoreUnavailable
from tests.deployments.data.switchboard import Switchboard

Outage = Literal["refused", "shut", "silent", "read-only"]
AWAY_S = 1.2
# What a test allows for on two busy cores.
LATE_S = 1.5


def soon(seconds: float = 15.0) -> float:
    return time.monotonic() + seconds


@pytest.fixture
async def board(dsns: tuple[str, str]) -> AsyncIterator[Switchboard]:
    made = Switchboard(dsns[0])
    await made.begin()
    yield made
    await made.end()


@pytest.fixture
async def patient(board: Switchboard) -> AsyncIterator[Database]:
    """A database that a request waits for, as a site's is."""
    opened = Database(board.dsn, connections=4, failover_wait_s=15.0)
    await opened.open()
    await one(opened)
    yield opened
    await opened.close()


async def one(database: Database, deadline: float | None = None) -> int:
    async with database.transaction(deadline=deadline or soon(), read_only=True) as connection:
        row = await (await connection.execute("SELECT 1")).fetchone()
    assert row is not None
    return int(row[0])


async def begin(outage: Outage, board: Switchboard, owner: str) -> Callable[[], Awaitable[None]]:
    """Take the database away, every connection with it. Returns what brings it back."""
    name = psycopg.conninfo.conninfo_to_dict(owner)["dbname"]

    def read_only(word: str) -> None:
        with psycopg.connect(owner, autocommit=True) as connection:
            connection.execute("SET default_transaction_read_only = off")
            statement = f'ALTER DATABASE "{name}" SET default_transaction_read_only = {word}'
            connection.execute(statement.encode())

    async def back() -> None:
        if outage == "read-only":
            await asyncio.to_thread(read_only, "off")
        await board.turn("open")
        if outage == "silent":
            # As HAProxy does once it knows that the server is not the primary any more.
            board.cut()

    if outage == "refused":
        await board.end()
    elif outage == "read-only":
        await asyncio.to_thread(read_only, "on")
    else:
        await board.turn(outage)
    board.cut()
    return back


@pytest.mark.parametrize("outage", ["refused", "shut", "silent", "read-only"])
async def test_everybody_who_comes_meanwhile_is_served_within_a_second_of_its_return(
    outage: Outage, patient: Database, board: Switchboard, dsns: tuple[str, str]
) -> None:
    back = await begin(outage, board, dsns[1])
    came = board.came
    waiting = [asyncio.create_task(one(patient)) for _ in range(100)]
    await asyncio.sleep(AWAY_S)
    assert not any(task.done() for task in waiting)
    assert patient.is_away
    # One task tries, however many wait.
    assert board.came - came <= patient._most + AWAY_S / (0.8 * TRY_EVERY_S) + 1
    await back()
    returned = time.monotonic()
    assert await asyncio.gather(*waiting) == [1] * 100
    assert time.monotonic() - returned < 1.0 + LATE_S
    assert not patient.is_away


async def test_where_nothing_takes_over_a_request_is_refused_within_half_a_second(
    board: Switchboard,
) -> None:
    database = Database(board.dsn, connections=4)
    await database.open()
    await one(database)
    await board.end()
    with pytest.raises(DataError):
        await one(database)
    began = time.monotonic()
    results = await asyncio.gather(*(one(database) for _ in range(20)), return_exceptions=True)
    assert time.monotonic() - began < 0.5 + LATE_S
    assert all(isinstance(each, StoreUnavailable) for each in results)
    await database.close()


async def test_nobody_waits_past_its_own_deadline(patient: Database, board: Switchboard) -> None:
    await board.turn("silent")
    board.cut()
    began = time.monotonic()
    with pytest.raises((StoreUnavailable, DeadlineExceeded)):
        await one(patient, soon(0.6))
    assert 0.5 < time.monotonic() - began < 0.6 + LATE_S


async def test_the_queue_stays_bounded_while_the_database_is_away(
    patient: Database, board: Switchboard
) -> None:
    await board.end()
    waiting = [asyncio.create_task(one(patient)) for _ in range(128)]
    await asyncio.sleep(0.2)
    assert patient.figures()["waiting"] == 128
    began = time.monotonic()
    with pytest.raises(StoreUnavailable, match="busy"):
        await one(patient)
    assert time.monotonic() - began < 0.5
    await board.begin()
    assert await asyncio.gather(*waiting) == [1] * 128


async def test_a_server_that_is_silent_to_who_asks_is_known_to_be_away_until_it_answers(
    patient: Database, board: Switchboard
) -> None:
    assert not patient.is_away
    await board.turn("silent")
    board.cut()
    asking = asyncio.create_task(one(patient))
    began = time.monotonic()
    while not patient.is_away:
        assert time.monotonic() - began < SILENT_S + CONNECT_TIMEOUT_S
        await asyncio.sleep(0.02)
    assert time.monotonic() - began < SILENT_S + LATE_S
    await board.turn("open")
    board.cut()
    assert await asking == 1
    assert not patient.is_away


async def test_a_transaction_that_is_cut_off_may_be_begun_again(
    patient: Database, board: Switchboard
) -> None:
    async def cut_off() -> None:
        async with patient.transaction(deadline=soon()) as connection:
            await connection.execute("SELECT 1")
            board.cut()
            await connection.execute("SELECT 1")

    with pytest.raises(Interrupted):
        await cut_off()
    assert await one(patient) == 1


async def test_a_connection_whose_server_takes_no_writes_any_more_is_not_used_again(
    patient: Database,
) -> None:
    """A primary that is demoted while the transaction runs: SQLSTATE 25006."""

    async def write() -> None:
        async with patient.transaction(deadline=soon()) as connection:
            row = await (await connection.execute("SELECT pg_backend_pid()")).fetchone()
            demoted.add(row)
            await connection.execute("SET TRANSACTION READ ONLY")
            await connection.execute("CREATE TEMPORARY TABLE t (a int)")
            await connection.execute("DELETE FROM audit.outbox")

    demoted: set[object] = set()
    for _ in range(3):
        with pytest.raises(Interrupted):
            await write()
    assert len(demoted) == 3


async def test_one_who_gives_up_takes_no_connection_along(
    patient: Database, board: Switchboard
) -> None:
    await board.end()
    leaving = [asyncio.create_task(one(patient)) for _ in range(20)]
    await asyncio.sleep(0.1)
    for task in leaving:
        task.cancel()
    await asyncio.gather(*leaving, return_exceptions=True)
    await board.begin()
    assert await asyncio.gather(*(one(patient) for _ in range(20))) == [1] * 20
    figures = patient.figures()
    assert figures["connections"] == figures["idle"] <= 4
    assert figures["waiting"] == 0
