"""The chain on a real PostgreSQL: groups, several processes' worth of writers, what it refuses."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import psycopg
import pytest

from deployments.data.audit.chain import Audit
from deployments.data.audit.verify import verify
from deployments.data.database import Database
from deployments.data.errors import (
    CommitUnknown,
    DataError,
    DeadlineExceeded,
    StoreUnavailable,
)
from tests.deployments.data.audit.acts import chain, entry, outbox, soon


async def test_records_of_several_writers_make_one_gapless_chain_in_groups(
    database: Database, dsns: tuple[str, str], tmp_path: Path
) -> None:
    audits = [Audit(database, tmp_path / str(number)) for number in range(4)]
    for audit in audits:
        await audit.start()
    entries = [entry(number) for number in range(800)]
    await asyncio.gather(
        *(audits[i % 4].record(one, deadline=soon(30)) for i, one in enumerate(entries))
    )
    assert sum(audit.groups for audit in audits) < 100, "no groups formed"
    for audit in audits:
        await audit.close()
    found = chain(dsns[1])
    assert [seq for seq, _ in found] == list(range(1, 801))
    assert {id for _, id in found} == {str(one.id) for one in entries}
    verdict = verify(dsns[1])
    assert (verdict.faults, verdict.checked, verdict.head_seq) == ((), 800, 800)


async def test_an_entry_is_in_the_chain_when_record_returns(
    audit: Audit, dsns: tuple[str, str]
) -> None:
    for number in range(5):
        one = entry(number)
        await audit.record(one, deadline=soon())
        assert chain(dsns[1])[-1] == (number + 1, str(one.id))


async def test_the_same_entry_twice_is_one_entry(audit: Audit, dsns: tuple[str, str]) -> None:
    one = entry()
    await asyncio.gather(*(audit.record(one, deadline=soon()) for _ in range(5)))
    await audit.record(one, deadline=soon())
    assert chain(dsns[1]) == [(1, str(one.id))]


async def test_another_entry_of_a_chained_id_fails_and_fails_alone(
    audit: Audit, dsns: tuple[str, str]
) -> None:
    one = entry(1)
    await audit.record(one, deadline=soon())
    forged = entry(2, id=one.id)
    others = [entry(number) for number in range(10, 20)]
    results = await asyncio.gather(
        *(audit.record(each, deadline=soon()) for each in (*others[:5], forged, *others[5:])),
        return_exceptions=True,
    )
    assert [type(result).__name__ for result in results if result is not None] == ["Unfit"]
    assert isinstance(results[5], DataError)
    assert len(chain(dsns[1])) == 11
    assert verify(dsns[1]).is_sound


async def test_who_gives_up_does_not_disturb_the_group(audit: Audit, dsns: tuple[str, str]) -> None:
    await audit.record(entry(0), deadline=soon())
    with psycopg.connect(dsns[1]) as other:
        # As another process in the middle of its append.
        other.execute("SELECT seq FROM audit.head FOR UPDATE")
        in_flight = asyncio.create_task(audit.record(entry(1), deadline=soon()))
        await asyncio.sleep(0.1)
        kept = [asyncio.create_task(audit.record(entry(i), deadline=soon())) for i in range(2, 6)]
        gone = [asyncio.create_task(audit.record(entry(i), deadline=soon())) for i in range(6, 9)]
        late = [
            asyncio.create_task(audit.record(entry(i), deadline=soon(0.3))) for i in range(9, 11)
        ]
        await asyncio.sleep(0.1)
        for task in gone:
            task.cancel()
        began = time.monotonic()
        results = await asyncio.gather(*late, return_exceptions=True)
        assert all(isinstance(result, DeadlineExceeded) for result in results)
        assert time.monotonic() - began < 2
        assert not in_flight.done()
    await asyncio.gather(in_flight, *kept)
    # Whoever gave up before the append has left nothing.
    assert len(chain(dsns[1])) == 6


async def test_an_append_that_takes_too_long_is_refused_and_may_be_repeated(
    audit: Audit, dsns: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deployments.data.audit.committer.APPEND_TIMEOUT_S", 0.5)
    one = entry()
    with psycopg.connect(dsns[1]) as other:
        other.execute("SELECT seq FROM audit.head FOR UPDATE")
        with pytest.raises(StoreUnavailable):
            await audit.record(one, deadline=soon())
    await audit.record(one, deadline=soon())
    assert chain(dsns[1]) == [(1, str(one.id))]


async def test_too_many_who_wait_are_refused_at_once(
    audit: Audit, dsns: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deployments.data.audit.committer.MAX_WAITING", 3)
    with psycopg.connect(dsns[1]) as other:
        other.execute("SELECT seq FROM audit.head FOR UPDATE")
        tasks = []
        for number in range(4):
            tasks.append(asyncio.create_task(audit.record(entry(number), deadline=soon())))
            await asyncio.sleep(0.05)
        assert audit.queue_length == 3
        with pytest.raises(StoreUnavailable) as refused:
            await audit.record(entry(9), deadline=soon())
        assert refused.value.code == "audit_busy"
    await asyncio.gather(*tasks)


async def test_a_connection_that_the_server_has_ended_is_replaced_at_once(
    audit: Audit, dsns: tuple[str, str]
) -> None:
    await audit.record(entry(1), deadline=soon())
    with psycopg.connect(dsns[1], autocommit=True) as owner:
        owner.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = 'medrec-audit' AND datname = current_database()"
        )
    await audit.record(entry(2), deadline=soon())
    assert len(chain(dsns[1])) == 2


async def test_a_staged_entry_is_chained_when_settle_returns(
    audit: Audit, database: Database, dsns: tuple[str, str]
) -> None:
    one, two = entry(1, action="create"), entry(2, action="update")
    async with database.transaction(deadline=soon(), durable=False) as connection:
        staged = [await audit.stage(connection, one), await audit.stage(connection, two)]
    assert outbox(dsns[1]) == [str(one.id), str(two.id)]
    await audit.settle(staged, deadline=soon())
    assert [id for _, id in chain(dsns[1])] == [str(one.id), str(two.id)]
    assert outbox(dsns[1]) == []
    await audit.settle(staged, deadline=soon())
    assert len(chain(dsns[1])) == 2


async def test_a_write_that_is_rolled_back_leaves_no_entry_and_cannot_be_settled(
    audit: Audit, database: Database, dsns: tuple[str, str]
) -> None:
    one = entry()

    async def write() -> None:
        async with database.transaction(deadline=soon()) as connection:
            await audit.stage(connection, one)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await write()
    with pytest.raises(CommitUnknown):
        await audit.settle([one.id], deadline=soon())
    assert chain(dsns[1]) == []


async def test_a_settle_that_nobody_waits_for_is_done_all_the_same(
    audit: Audit, database: Database, dsns: tuple[str, str]
) -> None:
    async with database.transaction(deadline=soon(), durable=False) as connection:
        staged = await audit.stage(connection, entry())
    with psycopg.connect(dsns[1]) as other:
        other.execute("SELECT seq FROM audit.head FOR UPDATE")
        first = asyncio.create_task(audit.record(entry(5), deadline=soon()))
        await asyncio.sleep(0.05)
        task = asyncio.create_task(audit.settle([staged], deadline=soon()))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(CommitUnknown):
            await audit.settle([staged], deadline=soon(0.1))
    await first
    await audit.record(entry(6), deadline=soon())
    assert str(staged) in [id for _, id in chain(dsns[1])]


async def test_a_disabled_audit_writes_nothing(
    database: Database, dsns: tuple[str, str], tmp_path: Path
) -> None:
    audit = Audit(database, tmp_path / "journal", enabled=False)
    await audit.start()
    await audit.record(entry(1), deadline=soon())
    await audit.journal(entry(2))
    async with database.transaction(deadline=soon()) as connection:
        staged = await audit.stage(connection, entry(3))
    await audit.settle([staged], deadline=soon())
    await audit.close()
    assert chain(dsns[1]) == []
    assert not (tmp_path / "journal").exists()


async def test_a_closed_audit_refuses(database: Database, tmp_path: Path) -> None:
    audit = Audit(database, tmp_path / "journal")
    await audit.start()
    await audit.close()
    with pytest.raises(StoreUnavailable):
        await audit.record(entry(), deadline=soon())
    with pytest.raises(StoreUnavailable):
        await audit.journal(entry())
