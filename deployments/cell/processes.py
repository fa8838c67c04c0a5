"""Knows which processes belong to a cell, and ends them: these and no others.

Each child of a cell leads a session of its own, and what it starts stays in that session even when
its parent has died. A process is recorded with its start time, so that a reused pid is not taken.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass

import psutil

_CLOCK_SLACK_S = 2.0


@dataclass(frozen=True, slots=True)
class Recorded:
    """One process, told apart from a later one with the same pid by its start time."""

    pid: int
    created: float

    @classmethod
    def of(cls, pid: int) -> Recorded | None:
        """The running process `pid`, or None if there is none."""
        try:
            return cls(pid, psutil.Process(pid).create_time())
        except psutil.Error:
            return None

    def process(self) -> psutil.Process | None:
        """The process while it is alive and still the one recorded; zombies count as gone."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.created) < 0.05
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.Error:
            return None


def alive(recorded: Iterable[Recorded]) -> list[psutil.Process]:
    """Those that still run."""
    return [process for entry in recorded if (process := entry.process())]


def members(sessions: Collection[int], since: float) -> set[Recorded]:
    """Every process in one of the sessions that started after `since` (Unix time)."""
    found = set()
    for pid in psutil.pids():
        try:
            if os.getsid(pid) not in sessions:
                continue
        except OSError:
            continue
        entry = Recorded.of(pid)
        # A session's number may come again once all its processes are gone: an older one is not ours.
        if entry is not None and entry.created >= since - _CLOCK_SLACK_S:
            found.add(entry)
    return found


def end(recorded: Iterable[Recorded], *, grace_s: float, kill_s: float = 5.0) -> list[int]:
    """Ask the processes to end, then force them. Returns the pids that outlived both waits."""
    processes = alive(recorded)
    for process in processes:
        _signal(process, force=False)
    _, stubborn = psutil.wait_procs(processes, timeout=grace_s)
    for process in stubborn:
        _signal(process, force=True)
    _, left = psutil.wait_procs(stubborn, timeout=kill_s)
    return [process.pid for process in left if process.status() != psutil.STATUS_ZOMBIE]


def _signal(process: psutil.Process, *, force: bool) -> None:
    try:
        if force:
            process.kill()
        else:
            process.terminate()
    except psutil.NoSuchProcess:
        pass
