"""A write and its entry are both there or neither, whatever dies between them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import psycopg
import pytest

from deployments.data.audit.chain import Audit
from deployments.data.audit.sweep import sweep
from deployments.data.audit.verify import verify
from deployments.data.database import Database
from deployments.data.errors import CommitUnknown, DataError
from tests.deployments.data.audit.acts import chain, entry, outbox, soon
from tests.deployments.data.audit.conftest import MortalServer

TABLE = """
CREATE TABLE public.written (id uuid PRIMARY KEY);
GRANT INSERT ON public.written TO medrec_app;
"""


def written(owner_dsn: str) -> set[str]:
    with psycopg.connect(owner_dsn) as owner:
        rows = owner.execute("SELECT id::text FROM public.written").fetchall()
    return {row[0] for row in rows}


async def write(database: Database, audit: Audit, number: int) -> str:
    """A write as the records do it: both in one transaction, not durable, and then settled."""
    one = entry(number, action="create")
    deadline = soon(5)
    async with database.transaction(deadline=deadline, durable=False) as connection:
        await connection.execute("INSERT INTO public.written VALUES (%s)", [one.id])
        staged = await audit.stage(connection, one)
    await audit.settle([staged], deadline=deadline)
    return str(one.id)


@pytest.mark.parametrize("writers", [1, 16])
async def test_when_the_server_is_killed_acknowledged_writes_stay_and_none_is_without_its_entry(
    writers: int, mortal: MortalServer, tmp_path: Path
) -> None:
    with psycopg.connect(mortal.owner_dsn) as owner:
        owner.execute(TABLE)
    database = Database(mortal.dsn, connections=8)
    await database.open()
    audit = Audit(database, tmp_path / "journal")
    await audit.start()
    acknowledged: list[str] = []

    async def go_on(first: int) -> None:
        for number in range(first, first + 100_000):
            try:
                acknowledged.append(await write(database, audit, number))
            except DataError:
                return
            if len(acknowledged) >= 40 * writers:
                enough.set()

    enough = asyncio.Event()
    tasks = [asyncio.create_task(go_on(n * 100_000)) for n in range(writers)]
    await asyncio.wait_for(enough.wait(), 60)
    mortal.kill()
    await asyncio.gather(*tasks)
    await asyncio.to_thread(mortal.start)
    rows = written(mortal.owner_dsn)
    chained = {id for _, id in chain(mortal.owner_dsn)}
    waiting = set(outbox(mortal.owner_dsn))
    assert set(acknowledged) <= rows
    assert set(acknowledged) <= chained
    assert rows == chained | waiting
    assert not chained & waiting
    # What the process could not settle, the custodian does.
    while True:
        try:
            await sweep(database, deadline=soon(5), older_than_s=0)
            break
        except DataError:
            await asyncio.sleep(0.1)
    assert outbox(mortal.owner_dsn) == []
    assert {id for _, id in chain(mortal.owner_dsn)} == rows
    assert verify(mortal.owner_dsn).is_sound
    await audit.close()
    await database.close()


async def test_when_the_process_dies_after_its_commit_the_sweep_chains_the_entry(
    database: Database, dsns: tuple[str, str], tmp_path: Path
) -> None:
    with psycopg.connect(dsns[1]) as owner:
        owner.execute(TABLE)
    dying = Audit(database, tmp_path / "journal")
    one, two = entry(1), entry(2)
    async with database.transaction(deadline=soon(), durable=False) as connection:
        await connection.execute("INSERT INTO public.written VALUES (%s)", [one.id])
        await dying.stage(connection, one)
    # It never settles. A transaction that is still open is left alone.
    async with database.transaction(deadline=soon(), durable=False) as connection:
        await dying.stage(connection, two)
        swept = await sweep(database, deadline=soon(), older_than_s=0)
        assert (swept.chained, swept.stuck) == (1, 0)
    assert [id for _, id in chain(dsns[1])] == [str(one.id)]
    assert outbox(dsns[1]) == [str(two.id)]
    late = Audit(database, tmp_path / "late")
    await late.start()
    await late.settle([one.id], deadline=soon())
    await late.settle([two.id], deadline=soon())
    await late.close()
    assert [id for _, id in chain(dsns[1])] == [str(one.id), str(two.id)]


async def test_when_the_server_loses_the_write_settle_says_so(
    mortal: MortalServer, tmp_path: Path
) -> None:
    with psycopg.connect(mortal.owner_dsn) as owner:
        owner.execute(TABLE)
    with psycopg.connect(mortal.owner_dsn, autocommit=True) as owner:
        # So that what is committed but not durable is really lost.
        owner.execute("ALTER SYSTEM SET wal_writer_delay = '10s'")
        owner.execute("SELECT pg_reload_conf()")
        owner.execute("CHECKPOINT")
    database = Database(mortal.dsn, connections=2)
    await database.open()
    audit = Audit(database, tmp_path / "journal")
    await audit.start()
    one = entry()
    async with database.transaction(deadline=soon(), durable=False) as connection:
        await connection.execute("INSERT INTO public.written VALUES (%s)", [one.id])
        await audit.stage(connection, one)
    mortal.kill()
    await asyncio.to_thread(mortal.start)
    assert written(mortal.owner_dsn) == set()
    with pytest.raises(CommitUnknown):
        await audit.settle([one.id], deadline=soon())
    assert outbox(mortal.owner_dsn) == []
    assert chain(mortal.owner_dsn) == []
    await audit.close()
    await database.close()
