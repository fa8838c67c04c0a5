"""Requests on records while one database takes over from another: none fails, none happens twice."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from configs.args import RecordsArgs, Retention
from deployments.data.audit.chain import Audit
from deployments.data.audit.sweep import sweep
from deployments.data.audit.verify import verify
from deployments.data.database import Database
from deployments.data.errors import CommitUnknown, DataError, DeadlineExceeded, StoreUnavailable
from deployments.data.interactions.ledger import Ledger
from deployments.data.principal import Caller
from deployments.data.records.store import Records
from deployments.data.seal.sealer import Sealer
from tests.deployments.data.audit.acts import entry
from tests.deployments.data.audit.conftest import MortalServer, mortal
from tests.deployments.data.interactions.conftest import answer, question
from tests.deployments.data.records import people
from tests.deployments.data.records.conftest import Owner
from tests.deployments.data.records.people import again
from tests.deployments.data.switchboard import Switchboard

__all__ = ["mortal"]

WAIT_S = 20.0


@dataclass
class Site:
    """Records over a way to the database that can be taken away."""

    board: Switchboard
    database: Database
    audit: Audit
    records: Records
    ledger: Ledger
    owner: Owner
    machine: Caller
    patient: str = ""

    def asker(self, key: str | None = None, seconds: float = WAIT_S) -> Caller:
        return again(self.machine, key=key, seconds=seconds)

    async def create(self, key: str | None = None) -> str:
        """A patient, by a request of its own."""
        written = await self.records.create(self.asker(key), "Patient", people.patient())
        return written.stored.id


@asynccontextmanager
async def raised(dsn: str, owner_dsn: str, sealer: Sealer, folder: Path) -> AsyncIterator[Site]:
    board = Switchboard(dsn)
    await board.begin()
    database = Database(board.dsn, connections=4, failover_wait_s=WAIT_S)
    await database.open()
    audit = Audit(database, folder)
    await audit.start()
    try:
        site = Site(
            board,
            database,
            audit,
            Records(database, sealer, audit, RecordsArgs()),
            Ledger(database, sealer, audit, Retention()),
            Owner(owner_dsn),
            people.caller("service", grants=frozenset({"ai", "system/*.cruds"})),
        )
        site.patient = await site.create()
        yield site
    finally:
        await board.turn("open")
        await audit.close()
        await database.close()
        await board.end()


@pytest.fixture(name="site")
async def opened_site(dsns: tuple[str, str], sealer: Sealer, tmp_path: Path) -> AsyncIterator[Site]:
    async with raised(*dsns, sealer, tmp_path / "site-journal") as opened:
        yield opened


async def three_outages(board: Switchboard) -> None:
    """Connections break and new ones are shown out; hang until they are cut; are refused."""
    for way in ("shut", "frozen", "refused"):
        await asyncio.sleep(0.7)
        if way == "refused":
            await board.end()
        elif way == "frozen":
            board.freeze()
        else:
            await board.turn("shut")
            board.cut()
        await asyncio.sleep(0.4)
        await board.turn("open")
        board.cut()


async def meanwhile(
    act: Callable[[], Awaitable[Any]], disturb: Awaitable[None], *, at_once: int = 6
) -> tuple[list[Any], list[DataError]]:
    """Results and errors of `act`, over and over by several at once, until the disturbance ends."""
    found: list[Any] = []
    failed: list[DataError] = []
    ended = asyncio.Event()

    async def go_on() -> None:
        while not ended.is_set():
            try:
                found.append(await act())
            except DataError as error:
                failed.append(error)

    tasks = [asyncio.create_task(go_on()) for _ in range(at_once)]
    await disturb
    ended.set()
    await asyncio.gather(*tasks)
    return found, failed


async def created(site: Site) -> Counter[str]:
    """How often each patient's creation is on record, once the custodian has been there.

    The entry of a commit whose fate was unknown waits for it in the outbox.
    """
    await sweep(site.database, deadline=time.monotonic() + WAIT_S, older_than_s=0)
    assert site.owner.rows("SELECT id FROM audit.outbox") == []
    return Counter(
        each["resource"].removeprefix("Patient/") for each in site.owner.entries("create")
    )


def patients(site: Site) -> set[str]:
    rows = site.owner.rows("SELECT id FROM records.resource WHERE type = 'Patient'")
    return {row[0] for row in rows}


async def test_writes_with_a_key_all_succeed_and_each_is_there_and_on_record_once(
    site: Site,
) -> None:
    async def write() -> str:
        return await site.create(uuid.uuid4().hex)

    made, failed = await meanwhile(write, three_outages(site.board))
    assert failed == []
    assert patients(site) == {site.patient, *made}
    assert len(set(made)) == len(made) >= 6
    assert await created(site) == dict.fromkeys(patients(site), 1)
    assert verify(site.owner.dsn).is_sound


async def test_a_write_without_a_key_happens_once_or_its_fate_is_told_to_be_unknown(
    site: Site,
) -> None:
    asked = 0

    async def write() -> str:
        nonlocal asked
        asked += 1
        return await site.create()

    made, failed = await meanwhile(write, three_outages(site.board))
    assert {type(error) for error in failed} <= {CommitUnknown}
    assert len(failed) <= 3 * 6
    there = patients(site)
    assert {site.patient, *made} <= there
    assert len(there) <= 1 + asked
    assert await created(site) == dict.fromkeys(there, 1)


async def test_reads_and_searches_all_succeed_and_are_on_record(site: Site) -> None:
    async def look() -> None:
        stored = await site.records.read(site.asker(), "Patient", site.patient)
        assert stored.resource is not None
        await site.records.history(site.asker(), "Patient", site.patient, count=5)

    seen, failed = await meanwhile(look, three_outages(site.board))
    assert failed == []
    # A read whose entry's append was repeated is on record once all the same.
    for action in ("read", "history"):
        entries = site.owner.entries(action)
        assert len({each["request_id"] for each in entries}) == len(entries) == len(seen)


async def test_chats_about_a_patient_are_on_record_once_with_question_outcome_and_texts(
    site: Site,
) -> None:
    async def chat() -> str:
        asked = question(site.patient)
        await site.ledger.begin(site.asker(), asked)
        await site.ledger.end(site.asker(), asked, answer())
        return asked.id

    held, failed = await meanwhile(chat, three_outages(site.board))
    assert failed == []
    rows = site.owner.rows("SELECT id, outcome FROM interactions.interaction")
    assert sorted(rows) == sorted((id, "success") for id in held)
    [texts] = site.owner.rows("SELECT count(*) FROM interactions.short_lived")
    assert texts == (2 * len(held),)
    for action in ("ai-request", "ai-answer"):
        named = [each["details"]["interaction"] for each in site.owner.entries(action)]
        assert sorted(named) == sorted(held)


async def test_entries_wait_in_the_queue_until_their_own_deadlines(site: Site) -> None:
    await site.board.end()
    patient = [entry(number) for number in range(300)]
    waiting = [
        asyncio.create_task(site.audit.record(one, deadline=time.monotonic() + WAIT_S))
        for one in patient
    ]
    began = time.monotonic()
    with pytest.raises((DeadlineExceeded, StoreUnavailable)):
        await site.audit.record(entry(999), deadline=time.monotonic() + 0.6)
    assert 0.2 < time.monotonic() - began < 2.0
    came = site.board.came
    await site.board.turn("shut")
    await asyncio.sleep(1.0)
    # One appender and one that connects for the pool, two to three times a second each.
    assert site.board.came - came < 12
    await site.board.turn("open")
    returned = time.monotonic()
    await asyncio.gather(*waiting)
    assert time.monotonic() - returned < 2.5
    chained = Counter(each["request_id"] for each in site.owner.entries("read"))
    assert chained == Counter(one.request_id for one in patient)


async def test_a_frozen_server_holds_no_request_past_its_deadline(site: Site) -> None:
    site.board.freeze()
    began = time.monotonic()
    asked = site.asker(seconds=0.8)
    with pytest.raises((DeadlineExceeded, StoreUnavailable)):
        await site.records.read(asked, "Patient", site.patient)
    assert time.monotonic() - began < 2.5


async def test_a_server_that_is_killed_and_comes_back_loses_nothing_that_was_acknowledged(
    mortal: MortalServer, sealer: Sealer, tmp_path: Path
) -> None:
    async def write() -> str:
        return await site.create(uuid.uuid4().hex)

    async def killed_and_frozen() -> None:
        await asyncio.sleep(0.5)
        await asyncio.to_thread(mortal.kill)
        await asyncio.sleep(0.5)
        await asyncio.to_thread(mortal.start)
        await asyncio.sleep(0.5)
        mortal.freeze()
        await asyncio.sleep(0.8)
        # The edge gives the frozen one up: whoever waits for it connects anew.
        site.board.cut()
        mortal.thaw()
        await asyncio.sleep(0.5)

    async with raised(mortal.dsn, mortal.owner_dsn, sealer, tmp_path / "mortal") as site:
        made, failed = await meanwhile(write, killed_and_frozen(), at_once=12)
        assert failed == []
        assert patients(site) == {site.patient, *made}
        assert await created(site) == dict.fromkeys(patients(site), 1)
        assert verify(mortal.owner_dsn).is_sound
