"""The journal: kept through kill -9, adopted, bounded, and in the chain exactly once."""

from __future__ import annotations

import asyncio
import logging
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import orjson
import psycopg
import pytest

from configs.reader import PROJECT_ROOT
from deployments.data.audit import segment as segments
from deployments.data.audit.appender import Appender
from deployments.data.audit.chain import Audit
from deployments.data.audit.committer import Committer
from deployments.data.audit.entry import AuditEntry
from deployments.data.audit.forwarder import Forwarder
from deployments.data.audit.journal import Journal
from deployments.data.audit.segment import Segment
from deployments.data.audit.verify import verify
from deployments.data.database import Database
from deployments.data.errors import DataError, StoreUnavailable
from tests.deployments.data.audit.acts import chain, entry, soon
from tests.deployments.data.audit.conftest import MortalServer

WRITER = "tests.deployments.data.audit.journal_writer"


async def until(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.05)


def files(folder: Path) -> list[str]:
    return sorted(path.suffix for path in folder.iterdir())


def only_file(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


def killed_writer(folder: Path, tasks: int, first: int, after: int) -> list[str]:
    """Run the writer, kill it at some moment, and return the ids that it was told are kept."""
    process = subprocess.Popen(
        [sys.executable, "-m", WRITER, str(folder), str(tasks), str(first)],
        cwd=PROJECT_ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    told = [process.stdout.readline().strip() for _ in range(after)]
    process.send_signal(signal.SIGKILL)
    rest = process.stdout.read()
    process.stdout.close()
    process.wait(10)
    return told + [line for line in rest.split("\n")[:-1] if line]


async def test_journalled_entries_join_the_chain_in_order(
    audit: Audit, dsns: tuple[str, str], tmp_path: Path
) -> None:
    entries = [entry(number) for number in range(300)]
    for one in entries[:5]:
        await audit.journal(one)
    await asyncio.gather(*(audit.journal(one) for one in entries[5:]))
    assert audit.journal_bytes > 300 * 200
    await until(lambda: len(chain(dsns[1])) == 300)
    assert [id for _, id in chain(dsns[1])] == [str(one.id) for one in entries]
    await until(lambda: audit.journal_lag_s == 0.0)
    assert verify(dsns[1]).is_sound


async def test_an_orderly_end_leaves_no_file(
    database: Database, dsns: tuple[str, str], tmp_path: Path
) -> None:
    audit = Audit(database, tmp_path / "journal")
    await audit.start()
    await audit.journal(entry())
    await audit.close()
    assert len(chain(dsns[1])) == 1
    assert files(tmp_path / "journal") == []


async def test_a_killed_process_loses_nothing_that_it_was_told_is_kept(
    database: Database, dsns: tuple[str, str], tmp_path: Path
) -> None:
    folder = tmp_path / "journal"
    folder.mkdir()
    told: list[str] = []
    for number, after in enumerate((1, 40, 400)):
        told += await asyncio.to_thread(killed_writer, folder, 8, number * 1_000_000, after)
    assert files(folder) == [".journal"] * 3
    audit = Audit(database, folder)
    await audit.start()
    await until(lambda: files(folder) == [])
    await audit.close()
    found = [id for _, id in chain(dsns[1])]
    assert set(told) <= set(found)
    assert len(found) == len(set(found))
    # What the writer was not told may be there as well, in order with the rest.
    with psycopg.connect(dsns[1]) as owner:
        rows = owner.execute("SELECT body FROM audit.entry ORDER BY seq").fetchall()
    numbers = [orjson.loads(body)["details"]["number"] for (body,) in rows]
    assert numbers == sorted(numbers)
    assert verify(dsns[1]).is_sound


async def test_the_journal_of_a_living_process_is_left_alone(tmp_path: Path) -> None:
    living, other = Journal(tmp_path), Journal(tmp_path)
    await living.open()
    await living.append(b"one")
    await other.open()
    assert await other.next_batch() is None
    await living.close()
    assert await other.adopt() == 1
    batch = await other.next_batch()
    assert batch is not None
    assert batch.scan.bodies == (b"one",)
    await other.close()
    assert files(tmp_path) == [".journal"], "not chained, and so still there"


async def test_a_crash_between_chain_and_journal_repeats_nothing(
    database: Database, dsns: tuple[str, str], tmp_path: Path
) -> None:
    journal = Journal(tmp_path)
    await journal.open()
    entries = [entry(number) for number in range(20)]
    for one in entries:
        await journal.append(one.body())
    await journal.close()
    path = only_file(tmp_path)
    kept = path.read_bytes()
    # As if the process had died after chaining some of them.
    audit = Audit(database, tmp_path / "elsewhere")
    await audit.start()
    for one in entries[:12]:
        await audit.record(one, deadline=soon())
    await audit.close()
    for _ in range(2):
        path.write_bytes(kept)
        audit = Audit(database, tmp_path)
        await audit.start()
        await until(lambda: not list(tmp_path.glob("*.journal")))
        await audit.close()
    assert [id for _, id in chain(dsns[1])] == [str(one.id) for one in entries]


async def test_a_torn_tail_is_tolerated_and_reported(
    database: Database, dsns: tuple[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    entries = await left_behind(tmp_path, 5)
    path = only_file(tmp_path)
    path.write_bytes(path.read_bytes()[:-30])
    with caplog.at_level(logging.WARNING, "medrec.audit"):
        await forwarded(database, tmp_path)
    assert [id for _, id in chain(dsns[1])] == [str(one.id) for one in entries[:4]]
    assert "ends within an entry" in caplog.text
    assert files(tmp_path) == []


async def test_a_tampered_journal_is_set_aside_on_record_and_its_sound_entries_are_chained(
    database: Database, dsns: tuple[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    entries = await left_behind(tmp_path, 5)
    path = only_file(tmp_path)
    path.write_bytes(path.read_bytes().replace(b'"number":2', b'"number":7'))
    with caplog.at_level(logging.CRITICAL, "medrec.audit"):
        await forwarded(database, tmp_path)
    found = [id for _, id in chain(dsns[1])]
    assert found[:4] == [str(one.id) for one in (*entries[:2], *entries[3:])]
    with psycopg.connect(dsns[1]) as owner:
        told = owner.execute(
            "SELECT action, outcome, organization, body FROM audit.entry ORDER BY seq OFFSET 4"
        ).fetchall()
    assert [row[:3] for row in told] == [("audit-verify", "failed", "hospital")]
    assert orjson.loads(told[0][3])["details"]["journal"] == path.name
    assert "is damaged at byte" in caplog.text
    assert files(tmp_path) == [".damaged"]


async def test_a_file_that_is_no_journal_is_set_aside(
    database: Database, dsns: tuple[str, str], tmp_path: Path
) -> None:
    (tmp_path / "0.journal").write_bytes(b"something else entirely, and long enough for a header")
    (tmp_path / "1.new").write_bytes(b"half")
    await forwarded(database, tmp_path)
    assert files(tmp_path) == [".damaged"]
    assert len(chain(dsns[1])) == 1


async def test_a_journal_entry_that_bears_a_chained_id_is_set_aside(
    database: Database, dsns: tuple[str, str], tmp_path: Path
) -> None:
    audit = Audit(database, tmp_path / "elsewhere")
    await audit.start()
    one = entry(1)
    await audit.record(one, deadline=soon())
    await audit.close()
    folder = tmp_path / "journal"
    journal = Journal(folder)
    await journal.open()
    others = [entry(number) for number in (10, 11)]
    for each in (others[0], entry(2, id=one.id), others[1]):
        await journal.append(each.body())
    await journal.close()
    await forwarded(database, folder)
    assert [id for _, id in chain(dsns[1])] == [str(each.id) for each in (one, *others)]
    assert files(folder) == [".damaged"]


async def test_over_its_bound_the_journal_refuses(tmp_path: Path) -> None:
    journal = Journal(tmp_path, max_bytes=1000)
    await journal.open()
    for _ in range(4):
        await journal.append(b"x" * 200)
    with pytest.raises(StoreUnavailable) as refused:
        await journal.append(b"x" * 200)
    assert refused.value.code == "journal_full"
    batch = await journal.next_batch()
    assert batch is not None
    assert len(batch.scan.bodies) == 4
    await journal.close()


async def test_what_the_disk_refuses_is_refused_and_what_came_before_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path)
    await journal.open()
    await journal.append(b"before")

    def fails(handle: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as failing:
        failing.setattr(segments, "synchronise", fails)
        for _ in range(3):
            with pytest.raises(StoreUnavailable):
                await journal.append(b"refused")
    await journal.append(b"after")
    found: list[bytes] = []
    while (batch := await journal.next_batch()) is not None:
        assert not batch.faults
        found += batch.scan.bodies
        journal.chained(batch)
    assert found == [b"before", b"after"]
    await journal.close()
    assert files(tmp_path) == []


async def test_files_are_rotated_and_removed_as_they_are_chained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deployments.data.audit.journal._ROTATE_BYTES", 2000)
    journal = Journal(tmp_path)
    await journal.open()
    bodies = [b"%04d" % number * 50 for number in range(60)]
    found: list[bytes] = []
    for number, body in enumerate(bodies):
        await journal.append(body)
        if number % 25 == 0 and (batch := await journal.next_batch()) is not None:
            found += batch.scan.bodies
            journal.chained(batch)
    assert len(files(tmp_path)) > 2
    assert journal.lag_s > 0
    while (batch := await journal.next_batch()) is not None:
        found += batch.scan.bodies
        journal.chained(batch)
    assert found == bodies
    assert len(files(tmp_path)) <= 1
    assert journal.lag_s == 0.0
    await journal.close()
    assert files(tmp_path) == []


def test_files_are_for_their_owner_only(tmp_path: Path) -> None:
    made = Segment.create(tmp_path)
    assert made.path.stat().st_mode & 0o777 == 0o600
    made.release()


async def test_while_the_database_is_away_the_journal_takes_entries_and_record_refuses_in_time(
    mortal: MortalServer, tmp_path: Path
) -> None:
    database = Database(mortal.dsn, connections=2)
    await database.open()
    audit = Audit(database, tmp_path / "journal")
    await audit.start()
    first = [entry(number) for number in range(10)]
    for one in first:
        await audit.journal(one)
    mortal.kill()
    second = [entry(number) for number in range(10, 60)]
    for one in second:
        began = time.monotonic()
        await audit.journal(one)
        assert time.monotonic() - began < 2
    began = time.monotonic()
    with pytest.raises(DataError) as refused:
        await audit.record(entry(), deadline=soon(1.0))
    assert refused.value.status in (503, 504)
    assert time.monotonic() - began < 2
    assert audit.journal_lag_s > 0
    await asyncio.to_thread(mortal.start)
    await until(lambda: len(chain(mortal.owner_dsn)) >= 60)
    await until(lambda: audit.journal_lag_s == 0.0)
    await audit.record(entry(), deadline=soon())
    await audit.close()
    await database.close()
    found = [id for _, id in chain(mortal.owner_dsn)]
    assert found[:60] == [str(one.id) for one in (*first, *second)]
    assert verify(mortal.owner_dsn).is_sound


async def test_a_frozen_database_is_refused_by_the_deadline(
    mortal: MortalServer, tmp_path: Path
) -> None:
    database = Database(mortal.dsn, connections=2)
    await database.open()
    audit = Audit(database, tmp_path / "journal")
    await audit.start()
    await audit.record(entry(1), deadline=soon())
    mortal.freeze()
    one = entry(2)
    began = time.monotonic()
    with pytest.raises(DataError):
        await audit.record(one, deadline=soon(0.5))
    with pytest.raises(DataError):
        await audit.record(entry(3), deadline=soon(0.5))
    assert time.monotonic() - began < 2.5
    mortal.thaw()
    await audit.record(one, deadline=soon(20))
    assert [id for _, id in chain(mortal.owner_dsn)].count(str(one.id)) == 1
    await audit.close()
    await database.close()


async def left_behind(folder: Path, count: int) -> list[AuditEntry]:
    """What a dead process leaves: entries in a file that nobody holds."""
    journal = Journal(folder)
    await journal.open()
    entries = [entry(number) for number in range(count)]
    for one in entries:
        await journal.append(one.body())
    await journal.close()
    return entries


async def forwarded(database: Database, folder: Path) -> None:
    """Adopt and chain everything in `folder`."""
    audit = Audit(database, folder)
    await audit.start()
    await until(lambda: not list(folder.glob("*.journal")))
    await audit.close()


async def test_an_entry_written_in_the_moment_of_the_end_does_not_hold_the_end_up(
    tmp_path: Path,
) -> None:
    """On Python 3.11 `asyncio.wait_for` returns the event and forgets the cancellation."""
    journal = Journal(tmp_path)
    forwarder = Forwarder(journal, Committer(Appender("host=/nowhere")))
    forwarder.start()
    await asyncio.sleep(1.0)
    [task] = [each for each in asyncio.all_tasks() if each.get_name() == "audit-forwarder"]
    journal.written.set()
    task.cancel()
    done, _ = await asyncio.wait({task}, timeout=10)
    assert done
    assert task.cancelled()
    await journal.close()
