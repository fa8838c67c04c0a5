"""Processes of a cell are found and ended, orphans too; others are left alone."""

from __future__ import annotations

import subprocess
import sys
import time

import psutil

from deployments.cell.processes import Recorded, alive, end, members

# Starts a child that ignores SIGTERM, tells its pid, and dies.
ORPHANS = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c",
    "import signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    "print('deaf', flush=True); time.sleep(60)"], stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
"""


def test_an_orphan_is_found_by_its_session_and_ended_by_force() -> None:
    since = time.time()
    leader = subprocess.Popen(
        [sys.executable, "-c", ORPHANS], stdout=subprocess.PIPE, start_new_session=True
    )
    assert leader.stdout is not None
    orphan = int(leader.stdout.readline())
    leader.wait(10)
    leader.stdout.close()
    found = members({leader.pid}, since)
    assert {entry.pid for entry in found} == {orphan}
    assert end(found, grace_s=0.2) == []
    assert not psutil.pid_exists(orphan) or not alive(found)


def test_an_older_process_of_a_session_with_the_same_number_is_not_ours() -> None:
    with subprocess.Popen(["sleep", "30"], start_new_session=True) as child:
        try:
            assert members({child.pid}, time.time() + 60) == set()
            assert len(members({child.pid}, time.time() - 60)) == 1
        finally:
            child.kill()


def test_a_process_with_a_reused_pid_is_not_taken_for_the_one_recorded() -> None:
    with subprocess.Popen(["sleep", "30"]) as child:
        try:
            found = Recorded.of(child.pid)
            assert found is not None
            stranger = Recorded(child.pid, found.created - 100)
            assert found.process() is not None
            assert stranger.process() is None
            assert end([stranger], grace_s=0.1) == []
            assert child.poll() is None
        finally:
            child.kill()


def test_a_zombie_counts_as_gone() -> None:
    child = subprocess.Popen(["sleep", "30"])
    found = Recorded.of(child.pid)
    assert found is not None
    child.kill()
    deadline = time.monotonic() + 5
    while found.process() is not None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    child.wait()
