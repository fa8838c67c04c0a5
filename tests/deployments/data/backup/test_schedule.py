"""When a base backup is due, what the WAL's age says, and who of two hosts does it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import deque
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from deployments.cell import condition
from deployments.cell.state import Home
from deployments.data.backup import run
from deployments.data.backup.ages import ages
from deployments.data.backup.schedule import LOCK, Decision, Schedule, covered, due
from tests.deployments.data.backup.world import World

MORNING = datetime(2026, 11, 25, 8, 0).astimezone()


@pytest.mark.parametrize(
    ("now", "newest_h", "tried_s", "action", "reason"),
    [
        (MORNING, None, None, "base", "there is no base backup yet"),
        (MORNING, 5, None, "wait", "the next base backup is due at 02:00"),
        (MORNING, 7, None, "base", "the newest base backup is older than 02:00"),
        (MORNING, 7, 60, "wait", "a base backup was tried a short while ago"),
        (MORNING, 7, 601, "base", "the newest base backup is older than 02:00"),
        # Before two in the morning yesterday's counts.
        (MORNING.replace(hour=1), 22, None, "wait", "the next base backup is due at 02:00"),
        (MORNING.replace(hour=1), 24, None, "base", "the newest base backup is older than 02:00"),
        (MORNING.replace(hour=2), 23, None, "base", "the newest base backup is older than 02:00"),
    ],
)
def test_a_base_backup_is_due_once_a_day(
    now: datetime, newest_h: float | None, tried_s: float | None, action: Any, reason: str
) -> None:
    newest = None if newest_h is None else now - timedelta(hours=newest_h)
    tried = None if tried_s is None else now - timedelta(seconds=tried_s)
    assert due(now, "02:00", newest, tried) == Decision(action, reason)


def test_a_server_that_leads_anew_is_copied_at_once() -> None:
    newest = MORNING - timedelta(hours=5)
    decision = due(MORNING, "02:00", newest, None, has_moved=True)
    assert (decision.action, "another server leads" in decision.reason) == ("base", True)
    tried = MORNING - timedelta(seconds=60)
    assert due(MORNING, "02:00", newest, tried, has_moved=True).action == "wait"


def test_the_wals_age_is_that_of_the_last_moment_whose_changes_are_archived() -> None:
    moments = deque([(100.0, 10), (130.0, 20), (160.0, 30)])
    assert covered(moments, 9) is None
    assert covered(moments, 25) == 130.0
    assert list(moments) == [(160.0, 30)]


def schedule(site: World, home: Path, command: str = "pass") -> Schedule:
    at = Home(home)
    at.prepare()
    words = [sys.executable, "-c", command]
    return Schedule(site.settings, at, lambda: subprocess.Popen(words), lambda text: None)


def test_a_lap_leads_copies_blobs_closes_wal_and_tells_the_condition(
    site: World, tmp_path: Path
) -> None:
    name = site.add_blob(1000)
    loop = schedule(site, tmp_path, f"open({str(tmp_path / 'started')!r}, 'w')")
    try:
        loop.lap()
        assert any(name in path.parts for path in site.objects())
        found = condition.read(loop.home)["backup"]
        assert (found["leads"], found["ok"], found["base_at"]) == (True, True, None)
        site.wait(lambda: (tmp_path / "started").exists())
        run.run(site.settings)
        # What was noted in the first lap is archived by now, since the lap closed the segment.

        def covered_now() -> bool:
            loop.lap()
            return condition.read(loop.home)["backup"]["wal_at"] is not None

        site.wait(covered_now)
        found = condition.read(loop.home)["backup"]
        assert time.time() - found["base_at"] < 60
        assert time.time() - found["wal_at"] < 60
    finally:
        loop.stopping.set()
        loop.run()
    found = condition.read(loop.home)["backup"]
    assert (found["leads"], found["ok"]) == (False, False)
    assert found["base_at"] is not None


def test_one_host_leads_and_the_other_follows_when_it_is_gone(site: World, tmp_path: Path) -> None:
    first, second = (schedule(site, tmp_path / name) for name in "ab")
    try:
        first.lap()
        second.lap()
        assert condition.read(first.home)["backup"]["leads"]
        assert not condition.read(second.home)["backup"]["leads"]
        first.stopping.set()
        first.run()

        def second_leads() -> bool:
            second.lap()
            return bool(condition.read(second.home)["backup"]["leads"])

        # The server takes a moment to notice that a connection is gone.
        site.wait(second_leads)
    finally:
        second.stopping.set()
        second.run()
    free = f"SELECT NOT EXISTS (SELECT FROM pg_locks WHERE objid = {LOCK & 0xFFFFFFFF})"
    site.wait(lambda: site.execute(free)[0][0])


def test_a_database_that_is_away_is_told_and_waited_for(site: World, tmp_path: Path) -> None:
    loop = schedule(site, tmp_path)
    right = loop.settings
    try:
        loop.settings = replace(right, dsn="host=/nowhere dbname=medrec")
        loop.lap()
        found = condition.read(loop.home)["backup"]
        assert (found["ok"], found["reason"]) == (False, "OperationalError")
        loop.settings = right
        loop.lap()
        assert condition.read(loop.home)["backup"]["ok"]
    finally:
        loop.stopping.set()
        loop.run()


def test_ages_are_told_where_they_are_known_and_grow_with_the_clock() -> None:
    told = {"leads": False, "ok": True, "base_at": 100.0, "wal_at": None}
    assert ages(told, 160.0) == {"base": 60.0}
    assert ages({**told, "wal_at": 150}, 160.0) == {"base": 60.0, "wal": 10.0}
    assert ages(None, 160.0) == {}


def test_after_a_failover_a_base_backup_is_made_and_the_archive_counts_for_nothing_until_then(
    site: World, tmp_path: Path
) -> None:
    run.run(site.settings)
    loop = schedule(site, tmp_path, f"open({str(tmp_path / 'started')!r}, 'w')")
    try:
        loop.lap()
        assert not loop._has_moved
        assert not (tmp_path / "started").exists()
        assert loop._newest is not None
        # As if that had been made while another server led, on the timeline before.
        loop._newest = (loop._newest[0], loop._newest[1] - 1)
        loop._wal_at = before = time.time() - 3600
        loop.lap()
        site.archive()
        loop.lap()
        assert loop._wal_at == before
        site.wait(lambda: (tmp_path / "started").exists())
    finally:
        loop.stopping.set()
        loop.run()
