"""Proves that a rotation re-wraps every key, loses none whatever happens, and touches no data."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from configs.reader import PROJECT_ROOT
from deployments.data.seal import escrow, keys
from deployments.data.seal.check import check
from deployments.data.seal.errors import SiteKeysError
from deployments.data.seal.rotate import keep_bundle, rotate
from deployments.data.seal.sealer import Sealer
from deployments.data.seal.tables import SEALED_TABLES
from tests.deployments.data.seal.sealed_rows import PER_NUMBER, add, opened, rows


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    keys.create(tmp_path / "secrets")
    return tmp_path / "secrets"


@pytest.fixture
def owner(dsns: tuple[str, str]) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(dsns[1], autocommit=True) as connection:
        yield connection


def test_every_sealed_column_of_the_database_is_registered(
    owner: psycopg.Connection[Any],
) -> None:
    found = owner.execute(
        "SELECT a.table_schema, a.table_name FROM information_schema.columns AS a"
        " JOIN pg_class AS c ON c.oid = format('%I.%I', a.table_schema, a.table_name)::regclass"
        " WHERE a.column_name = 'wrapped_key' AND NOT c.relispartition AND c.relkind <> 'v'"
    ).fetchall()
    assert set(found) == {(table.schema, table.table) for table in SEALED_TABLES}


def test_all_keys_are_rewrapped_no_data_is_touched_and_the_old_key_goes(
    secrets: Path, owner: psycopg.Connection[Any], dsns: tuple[str, str]
) -> None:
    sealer = Sealer.load(secrets)
    for number in range(25):
        add(owner, sealer, number)
    before = rows(owner)
    texts, old = opened(before, sealer), sealer.current
    assert len(before) == 25 * PER_NUMBER

    done = rotate(secrets, dsns[1], settle_s=0.0, batch=7)

    after = rows(owner)
    assert (done.old, done.rewrapped, done.broken) == (old, len(before), 0)
    assert (done.dropped, done.resumed) == ((old,), False)
    assert {row.key_id for row in after} == {done.new} != {old}
    assert set(keys.read(secrets).keys) == {done.new}
    assert {row.data for row in after} == {row.data for row in before}
    assert {row.wrapped_key for row in after}.isdisjoint(row.wrapped_key for row in before)
    assert opened(after, Sealer.load(secrets)) == texts
    # The one that ran all along reads everything as well.
    assert opened(after, sealer) == texts


def test_an_old_key_that_is_to_be_kept_is_kept(
    secrets: Path, owner: psycopg.Connection[Any], dsns: tuple[str, str]
) -> None:
    add(owner, Sealer.load(secrets), 1)
    done = rotate(secrets, dsns[1], settle_s=0.0, keep_old=True)
    assert done.dropped == ()
    loaded = keys.read(secrets)
    assert set(loaded.keys) == {done.old, done.new}
    assert loaded.rotating_from is None


def test_writers_go_on_and_what_they_write_meanwhile_is_read_afterwards(
    secrets: Path, owner: psycopg.Connection[Any], dsns: tuple[str, str]
) -> None:
    sealer = Sealer.load(secrets)
    for number in range(10):
        add(owner, sealer, number)
    stop = threading.Event()
    written = 10
    errors: list[Exception] = []

    def write() -> None:
        nonlocal written
        try:
            with psycopg.connect(dsns[1], autocommit=True) as connection:
                while not stop.is_set():
                    # Sealed well before it is committed, as a slow request does it.
                    with connection.transaction():
                        add(connection, sealer, written)
                        time.sleep(0.02)
                    written += 1
        except Exception as error:
            errors.append(error)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        done = rotate(secrets, dsns[1], settle_s=4.0, batch=5)
        time.sleep(0.2)
    finally:
        stop.set()
        writer.join(30)
    assert not errors
    after = rows(owner)
    assert len(after) == written * PER_NUMBER > 15 * PER_NUMBER
    assert {row.key_id for row in after} == {done.new}
    assert len(opened(after, Sealer.load(secrets))) == len(after)


def test_a_row_that_a_writer_holds_is_waited_for_and_the_old_key_with_it(
    secrets: Path, owner: psycopg.Connection[Any], dsns: tuple[str, str]
) -> None:
    add(owner, Sealer.load(secrets), 1)
    texts = opened(rows(owner), Sealer.load(secrets))
    said: list[str] = []
    with psycopg.connect(dsns[1]) as holder:
        holder.execute("SELECT 1 FROM records.resource WHERE type = 'Patient' FOR UPDATE")
        release = threading.Timer(1.5, holder.rollback)
        release.start()
        began = time.monotonic()
        done = rotate(secrets, dsns[1], settle_s=0.0, say=said.append)
        assert time.monotonic() - began >= 1.0
        release.join()
    assert done.rewrapped == PER_NUMBER
    assert opened(rows(owner), Sealer.load(secrets)) == texts


def test_two_rotations_at_once_are_refused_on_one_machine_and_on_two(
    secrets: Path, owner: psycopg.Connection[Any], dsns: tuple[str, str], tmp_path: Path
) -> None:
    before = keys.read(secrets)
    with keys.lock(secrets), pytest.raises(SiteKeysError, match="another medrec seal"):
        rotate(secrets, dsns[1], settle_s=0.0)
    owner.execute("SELECT pg_advisory_lock(6374120006)")
    with pytest.raises(SiteKeysError, match="another rotation"):
        rotate(secrets, dsns[1], settle_s=0.0)
    assert keys.read(secrets) == before


def test_nothing_changes_without_a_database(secrets: Path) -> None:
    before = keys.read(secrets)
    with pytest.raises(SiteKeysError, match="nothing was changed"):
        rotate(secrets, "host=/nowhere dbname=x", settle_s=0.0)
    assert keys.read(secrets) == before


def test_a_row_that_does_not_open_keeps_the_old_key_and_stops_nothing_else(
    secrets: Path, owner: psycopg.Connection[Any], dsns: tuple[str, str]
) -> None:
    sealer = Sealer.load(secrets)
    for number in range(3):
        add(owner, sealer, number)
    owner.execute(
        "UPDATE records.break_glass SET wrapped_key = '\\x00' WHERE id IN"
        " (SELECT id FROM records.break_glass LIMIT 1)"
    )
    done = rotate(secrets, dsns[1], settle_s=0.0, batch=1)
    assert (done.rewrapped, done.broken, done.dropped) == (3 * PER_NUMBER - 1, 1, ())
    loaded = keys.read(secrets)
    assert set(loaded.keys) == {done.old, done.new}
    assert loaded.rotating_from == done.old
    reasons = [finding.reason for finding in check(secrets, dsns[1]) if finding.level == "error"]
    assert reasons == [f"a row of records.break_glass under site key {done.old} does not open"]


ROTATION = """
import sys
from pathlib import Path
from deployments.data.seal.rotate import rotate
print("begun", flush=True)
rotate(Path(sys.argv[1]), sys.argv[2], settle_s=0.0, batch=1, say=lambda text: print(text, flush=True))
"""


def under(owner: psycopg.Connection[Any], key_id: str) -> int:
    return sum(row.key_id == key_id for row in rows(owner))


def test_kill_9_in_mid_rotation_loses_nothing_and_the_next_run_goes_on(
    secrets: Path, owner: psycopg.Connection[Any], dsns: tuple[str, str]
) -> None:
    sealer = Sealer.load(secrets)
    for number in range(120):
        add(owner, sealer, number)
    texts, old = opened(rows(owner), sealer), sealer.current
    command = [sys.executable, "-c", ROTATION, str(secrets), dsns[1]]
    # A writer that holds a row of the last table: the rotation cannot end before it is killed.
    with psycopg.connect(dsns[1]) as writer:
        writer.execute("SELECT FROM interactions.short_lived LIMIT 1 FOR UPDATE")
        process = subprocess.Popen(command, cwd=PROJECT_ROOT, stdout=subprocess.PIPE)
        until = time.monotonic() + 60
        while under(owner, old) > 120 * PER_NUMBER - 40:
            assert time.monotonic() < until
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.communicate()
    half = keys.read(secrets)
    assert half.rotating_from == old
    left = under(owner, old)
    assert 0 < left < 120 * PER_NUMBER
    # Everything is readable in between, by those that ran on and by those that start now.
    assert opened(rows(owner), sealer) == texts
    assert opened(rows(owner), Sealer.load(secrets)) == texts
    assert any("not finished" in finding.reason for finding in check(secrets, dsns[1]))

    done = rotate(secrets, dsns[1], settle_s=0.0)
    assert (done.resumed, done.old, done.new) == (True, old, half.current)
    assert done.rewrapped == left
    assert set(keys.read(secrets).keys) == {half.current}
    assert opened(rows(owner), Sealer.load(secrets)) == texts


@pytest.mark.parametrize("crash", ["before the file", "after the file", "before the drop"])
def test_a_crash_between_any_two_steps_is_gone_on_from(
    secrets: Path,
    owner: psycopg.Connection[Any],
    dsns: tuple[str, str],
    crash: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    add(owner, Sealer.load(secrets), 1)
    texts = opened(rows(owner), Sealer.load(secrets))
    real, writes = keys.write, 0

    def failing(folder: Path, changed: keys.SiteKeys) -> None:
        nonlocal writes
        writes += 1
        if crash == "before the file":
            raise KeyboardInterrupt
        if crash == "before the drop" and writes == 2:
            raise KeyboardInterrupt
        real(folder, changed)
        if crash == "after the file":
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(keys, "write", failing)
        with pytest.raises(KeyboardInterrupt):
            rotate(secrets, dsns[1], settle_s=0.0)
    assert opened(rows(owner), Sealer.load(secrets)) == texts
    done = rotate(secrets, dsns[1], settle_s=0.0)
    assert done.resumed == (crash != "before the file")
    assert opened(rows(owner), Sealer.load(secrets)) == texts
    assert set(keys.read(secrets).keys) == {done.new}


def test_a_lost_key_does_not_lose_the_records_and_too_few_holders_do_not_get_it(
    secrets: Path, owner: psycopg.Connection[Any], dsns: tuple[str, str], tmp_path: Path
) -> None:
    sealer = Sealer.load(secrets)
    add(owner, sealer, 1)
    bundle, shares = escrow.establish(keys.read(secrets), holders=5, threshold=3)
    keep_bundle(secrets, owner, bundle)
    blind = sealer.blind("name", "silva")
    rotate(secrets, dsns[1], settle_s=0.0)
    add(owner, Sealer.load(secrets), 2)
    texts = opened(rows(owner), Sealer.load(secrets))
    for path in secrets.iterdir():
        path.unlink()

    row = owner.execute("SELECT bundle FROM records.escrow ORDER BY number DESC LIMIT 1").fetchone()
    assert row is not None
    kept = escrow.parse_bundle(row[0], "the database")
    for few in ([], [0], [0, 4]):
        with pytest.raises(SiteKeysError, match="too few: this escrow needs 3"):
            escrow.recover(kept, [shares[number].text() for number in few])
    elsewhere = tmp_path / "new-machine"
    keys.write(elsewhere, escrow.recover(kept, [shares[number].text() for number in (4, 0, 2)]))
    recovered = Sealer.load(elsewhere)
    assert opened(rows(owner), recovered) == texts
    assert recovered.blind("name", "silva") == blind


def test_the_new_key_is_in_escrow_before_the_file_has_it(
    secrets: Path,
    owner: psycopg.Connection[Any],
    dsns: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bundle, _ = escrow.establish(keys.read(secrets), holders=2, threshold=2)
    keep_bundle(secrets, owner, bundle)
    seen: list[bool] = []
    real = keys.write

    def watched(folder: Path, changed: keys.SiteKeys) -> None:
        beside = escrow.read_bundle(folder)
        assert beside is not None
        seen.append(set(changed.keys) <= set(beside.keys))
        real(folder, changed)

    monkeypatch.setattr(keys, "write", watched)
    rotate(secrets, dsns[1], settle_s=0.0)
    assert seen == [True, True]
    levels = {finding.level for finding in check(secrets, dsns[1])}
    assert levels == {"ok"}


def test_check_warns_of_an_escrow_that_is_older_than_a_key_and_of_none(
    secrets: Path, owner: psycopg.Connection[Any], dsns: tuple[str, str]
) -> None:
    first = keys.read(secrets)
    warnings = [each.reason for each in check(secrets, dsns[1]) if each.level == "warning"]
    assert warnings == [
        "there is no escrow: if the site keys are lost, so are the records;"
        " medrec seal escrow makes one"
    ]
    bundle, _ = escrow.establish(first, holders=2, threshold=2)
    keep_bundle(secrets, owner, bundle)
    second = replace(first.with_new_current(), rotating_from=None)
    keys.write(secrets, second)
    (warning,) = [each.reason for each in check(secrets, dsns[1]) if each.level == "warning"]
    assert f"older than site key {second.current}" in warning


def test_check_finds_a_key_that_rows_need_and_the_file_lacks(
    secrets: Path, owner: psycopg.Connection[Any], dsns: tuple[str, str]
) -> None:
    lost = Sealer.load(secrets)
    add(owner, lost, 1)
    keys.path_of(secrets).unlink()
    assert [each.level for each in check(secrets, dsns[1])] == ["error"]
    keys.create(secrets)
    errors = [each.reason for each in check(secrets, dsns[1]) if each.level == "error"]
    assert len(errors) == len(SEALED_TABLES)
    assert all(f"under site key {lost.current}, which is lost" in each for each in errors)
