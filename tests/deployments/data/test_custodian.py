"""The custodian's jobs run in time, alone, within their deadlines, against the real database."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psycopg
import pytest

from configs.args import DataArgs
from deployments.cell.state import Home
from deployments.data import custodian as module
from deployments.data import leadership as leading
from deployments.data.audit.chain import Audit
from deployments.data.audit.sweep import Watch
from deployments.data.blobs.keeping import Keeper
from deployments.data.custodian import Rounds
from deployments.data.database import Database
from deployments.data.errors import StoreUnavailable
from deployments.data.jobs import Figures, Job, jobs
from deployments.data.leadership import Leadership
from deployments.data.places import places
from tests.deployments.data.switchboard import Switchboard


async def until(what: str, condition: Callable[[], object], timeout_s: float = 15) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"never came true: {what}"
        await asyncio.sleep(0.02)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LAP_S", 0.05)
    monkeypatch.setattr(module, "FIRST_AFTER_S", 0.05)
    monkeypatch.setattr(module, "GRACE_S", 0.2)


@pytest.fixture
async def leadership(dsns: tuple[str, str]) -> AsyncIterator[Leadership]:
    made = Leadership(dsns[0])
    yield made
    await made.close()


def counting(name: str = "count", every_s: float = 0.05) -> tuple[Job, list[float]]:
    ran: list[float] = []

    async def run(deadline: float) -> Figures:
        ran.append(deadline - time.monotonic())
        return {"runs": len(ran)}

    return Job(name, every_s, 5.0, run), ran


async def test_every_real_job_does_its_work_on_a_fresh_database(
    database: Database, dsns: tuple[str, str], tmp_path: Path
) -> None:
    args = DataArgs()
    home = Home(tmp_path)
    where = places(args.records, home)
    audit, watch = Audit(database, where.journal), Watch()
    await audit.start()
    keeper = Keeper(args.records, database, where.blobs, home)
    duties = jobs(args, database, audit, watch, where, keeper, home)
    rounds = Rounds(duties, Leadership(dsns[0]))
    for job in duties:
        await rounds.run(job)
    await keeper.close()
    await audit.close()
    assert {name: account.error for name, account in rounds.accounts.items()} == {
        job.name: "" for job in duties
    }
    assert all(account.last_success for account in rounds.accounts.values())
    assert (watch.faults, watch.rounds) == (0, 1)


async def test_of_two_custodians_one_works_and_the_other_takes_over(
    dsns: tuple[str, str], quick: None
) -> None:
    (one, first_ran), (two, second_ran) = counting(), counting()
    first, second = Rounds([one], Leadership(dsns[0])), Rounds([two], Leadership(dsns[0]))
    first.begin()
    await until("the first works", lambda: first_ran)
    second.begin()
    await asyncio.sleep(0.5)
    assert second_ran == []
    await first.end()
    ran = len(first_ran)
    await until("the second works", lambda: second_ran)
    assert len(first_ran) == ran
    await second.end()


async def test_who_loses_the_connection_has_lost_the_lead_and_may_win_it_again(
    leadership: Leadership, dsns: tuple[str, str]
) -> None:
    assert await leadership.held()
    assert await leadership.held()
    with psycopg.connect(dsns[1], autocommit=True) as owner:
        owner.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'medrec-custodian-lock' AND datname = current_database()"
        )
    assert not await leadership.held()
    other = Leadership(dsns[0])
    assert await other.held()
    assert not await leadership.held()
    await other.close()
    # The server frees the lock when it sees the connection gone: soon, not at once.
    for _ in range(100):
        if await leadership.held():
            break
        await asyncio.sleep(0.05)
    assert leadership.is_held


async def test_a_holder_of_whom_nothing_is_heard_loses_the_lead_though_its_connection_stays_open(
    leadership: Leadership, dsns: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leading, "SILENT_S", 1)
    assert await leadership.held()
    other = Leadership(dsns[0])
    began = time.monotonic()
    while not await other.held():
        assert time.monotonic() - began < 20
        await asyncio.sleep(0.1)
    assert not await leadership.held()
    await other.close()


async def test_a_frozen_database_ends_the_lead_in_seconds_and_it_comes_back_by_itself(
    dsns: tuple[str, str],
) -> None:
    board = Switchboard(dsns[0])
    await board.begin()
    leadership = Leadership(board.dsn)
    assert await leadership.held()
    board.freeze()
    began = time.monotonic()
    assert not await leadership.held()
    assert 2.5 < time.monotonic() - began < 5
    board.cut()
    await board.turn("open")
    for _ in range(100):
        if await leadership.held():
            break
        await asyncio.sleep(0.05)
    assert leadership.is_held
    await leadership.close()
    await board.end()


async def test_an_absent_database_makes_nobody_lead_and_holds_nobody_up() -> None:
    leadership = Leadership("host=/nonexistent user=medrec_app dbname=medrec")
    began = time.monotonic()
    assert not await leadership.held()
    assert time.monotonic() - began < 5


async def test_a_job_that_fails_comes_again_and_is_named_by_type_alone(
    leadership: Leadership, quick: None, caplog: pytest.LogCaptureFixture
) -> None:
    attempts = 0

    async def fail(deadline: float) -> Figures:
        nonlocal attempts
        attempts += 1
        raise StoreUnavailable("marked-words of a failure")

    rounds = Rounds([Job("fail", 0.05, 1.0, fail)], leadership)
    rounds.begin()
    await until("a second attempt", lambda: attempts >= 2)
    account = rounds.accounts["fail"]
    assert (account.error, account.last_success) == ("StoreUnavailable", None)
    assert account.failures >= 1
    assert rounds.ailment is None
    await rounds.end()
    assert "marked-words" not in caplog.text


async def test_a_job_that_hangs_is_broken_off_and_delays_no_other(
    leadership: Leadership, quick: None
) -> None:
    async def hang(deadline: float) -> Figures:
        await asyncio.Event().wait()
        return {}

    job, ran = counting()
    rounds = Rounds([Job("hang", 0.05, 0.3, hang), job], leadership)
    rounds.begin()
    await until("the hanging job is broken off", lambda: rounds.accounts["hang"].failures)
    assert rounds.accounts["hang"].error == "TimeoutError"
    assert len(ran) >= 3
    assert all(4.0 < left_s <= 5.0 for left_s in ran)
    await rounds.end()


async def test_rounds_that_have_ended_are_an_ailment(leadership: Leadership, quick: None) -> None:
    job, _ = counting()
    rounds = Rounds([job], leadership)
    rounds.begin()
    assert rounds.ailment is None
    await rounds.end()
    assert rounds.ailment == "a job's loop has ended"
