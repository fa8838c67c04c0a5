"""The daily base backup, new blobs and the WAL's age: a loop on every cell host, of which one leads.

The host whose PostgreSQL is the standby leads, so that the copy costs the primary nothing; the lead
is an advisory lock in the database, so it falls with its holder.
"""

from __future__ import annotations

import re
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import psycopg

from deployments.cell import condition
from deployments.cell.state import Home
from deployments.data.backup import blobs, manifest, secrets, wal
from deployments.data.backup.errors import BackupError, Damaged, NotInBackup
from deployments.data.backup.settings import BackupSettings
from deployments.data.backup.vault import Vault

LOCK = 6_374_120_014
AGAIN_AFTER_S = 600.0
# Laps that the other host is given to take the lead, and that a lead lasts which is not preferred.
_YIELDED_LAPS, _HELD_LAPS = 3, 20
_END_S = 10.0
_QUERY_S = 10
_SEGMENT = re.compile(r"[0-9A-F]{24}")

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do now, and why, in a sentence."""

    action: Literal["base", "wait"]
    reason: str


def due(
    now: datetime,
    base_at: str,
    newest: datetime | None,
    tried: datetime | None,
    *,
    has_moved: bool = False,
) -> Decision:
    """Whether a base backup is due at `now`, local time; `tried` is the last start of one.

    A host that slept through the hour makes up for it. `has_moved`: another server leads since the
    newest one, which archives nothing of what the server before it had still to archive.
    """
    hour, minute = map(int, base_at.split(":"))
    moment = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
    if moment > now:
        moment -= timedelta(days=1)
    if tried is not None and now - tried < timedelta(seconds=AGAIN_AFTER_S):
        return Decision("wait", "a base backup was tried a short while ago")
    if newest is None:
        return Decision("base", "there is no base backup yet")
    if has_moved:
        return Decision("base", "another server leads since the newest base backup")
    if newest < moment:
        return Decision("base", f"the newest base backup is older than {base_at}")
    return Decision("wait", f"the next base backup is due at {base_at}")


def covered(moments: deque[tuple[float, int]], archived_to: int) -> float | None:
    """The last noted moment (Unix time, WAL position then) whose changes are all archived."""
    found = None
    while moments and moments[0][1] <= archived_to:
        found = moments.popleft()[0]
    return found


@dataclass
class Schedule:
    """The loop of one host. `start_base` starts `medrec backup run` as a process of its own."""

    settings: BackupSettings
    home: Home
    start_base: Callable[[], subprocess.Popen[bytes]]
    say: Say
    stopping: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        before = condition.read(self.home).get("backup", {})
        self._wal_at: float | None = before.get("wal_at")
        self._base_at: float | None = before.get("base_at")
        self._blobs_at: float | None = None
        self._archived_to = 0
        # Of the server that leads, and of the newest base backup with its id.
        self._timeline = 0
        self._newest: tuple[str, int] | None = None
        self._moments: deque[tuple[float, int]] = deque(maxlen=10_000)
        self._connection: psycopg.Connection[Any] | None = None
        self._leads = False
        self._laps = _YIELDED_LAPS
        self._child: subprocess.Popen[bytes] | None = None
        self._tried: datetime | None = None
        self._failed = ""

    def run(self) -> None:
        """Go round until `stopping` is set; then end what was started."""
        try:
            while not self.stopping.is_set():
                self.lap()
                self.stopping.wait(self.settings.wal_every_s)
        finally:
            self._end()

    def lap(self) -> None:
        """One round: lead or not, note, copy, start what is due, and tell the cell's condition."""
        reason = ""
        try:
            connection = self._connected()
            self._lead(connection)
            if self._leads:
                self._note(connection)
                self._copy()
        except (psycopg.Error, BackupError, OSError) as error:
            reason = str(error) if isinstance(error, BackupError) else type(error).__name__
            self.say(f"backup: {reason}")
            if isinstance(error, psycopg.Error):
                self._disconnect()
        self._tell(reason or self._failed)

    def _lead(self, connection: psycopg.Connection[Any]) -> None:
        preferred = self._is_preferred(connection)
        self._laps += 1
        if self._leads and not preferred and self._laps > _HELD_LAPS and self._child is None:
            connection.execute("SELECT pg_advisory_unlock(%s)", [LOCK])
            self._leads, self._laps = False, 0
        elif not self._leads and (preferred or self._laps > _YIELDED_LAPS):
            row = connection.execute("SELECT pg_try_advisory_lock(%s)", [LOCK]).fetchone()
            if row is not None and row[0]:
                self.say("backup: leads" + ("" if preferred else ", for want of another"))
                self._leads, self._laps = True, 0
                self._moments.clear()

    def _is_preferred(self, connection: psycopg.Connection[Any]) -> bool:
        """Whether this host has the standby, or there is none."""
        row = connection.execute(
            "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'"
        ).fetchone()
        if row is None or row[0] == 0 or not self.settings.base_dsn:
            return True
        try:
            with psycopg.connect(
                self.settings.base_dsn, connect_timeout=_QUERY_S, autocommit=True
            ) as own:
                found = own.execute("SELECT pg_is_in_recovery()").fetchone()
                return found is not None and bool(found[0])
        except psycopg.OperationalError:
            return False

    def _note(self, connection: psycopg.Connection[Any]) -> None:
        """Learn up to when all changes are archived; close a segment that waits too long."""
        now = time.time()
        row = connection.execute(
            "SELECT pg_current_wal_insert_lsn()::text, last_archived_wal,"
            " pg_size_bytes(current_setting('wal_segment_size')),"
            " pg_walfile_name(pg_current_wal_insert_lsn()) FROM pg_stat_archiver"
        ).fetchone()
        assert row is not None
        position, file, size = wal.lsn(row[0]), row[1] or "", row[2]
        self._moments.append((now, position))
        self._timeline = int(row[3][:8], 16)
        if _SEGMENT.match(file):
            number = wal.number_of(file, size) + (1 if wal.is_segment(file) else 0)
            self._archived_to = max(self._archived_to, number * size)
        found = covered(self._moments, self._archived_to)
        if found is not None and not self._has_moved:
            self._wal_at = found
        if self._wal_at is None or now - self._wal_at > self.settings.wal_every_s:
            # archive_timeout passes over a segment in which only the server itself wrote.
            connection.execute("SELECT pg_switch_wal()")

    def _copy(self) -> None:
        vault = Vault.whole(self.settings)
        if self.settings.blobs:
            began = time.time()
            blobs.copy_new(vault, Path(self.settings.blobs), since=self._blobs_at)
            self._blobs_at = began
        secrets.keep(vault, Path(self.settings.secrets), datetime.now(UTC))
        if self._child is not None and self._child.poll() is None:
            return
        if self._child is not None:
            status, self._child = self._child.returncode, None
            self._failed = "" if status == 0 else f"the base backup failed ({status})"
        newest = max(
            ((_moment_of(id), system, id) for system, id in manifest.ids(vault)), default=None
        )
        self._base_at = newest[0].timestamp() if newest else None
        if newest is not None and (self._newest is None or self._newest[0] != newest[2]):
            self._newest = newest[2], _timeline_of(vault, *newest[1:])
        decision = due(
            datetime.now().astimezone(),
            self.settings.base_at,
            newest[0] if newest else None,
            self._tried,
            has_moved=self._has_moved,
        )
        if decision.action == "base":
            self.say(f"backup: base backup: {decision.reason}")
            self._tried = datetime.now().astimezone()
            self._child = self.start_base()

    @property
    def _has_moved(self) -> bool:
        return self._newest is not None and self._timeline > self._newest[1]

    def _tell(self, reason: str) -> None:
        value = {
            "leads": self._leads,
            "ok": not reason,
            "reason": reason,
            "base_at": self._base_at,
            "wal_at": self._wal_at,
            "blobs_at": self._blobs_at,
        }
        condition.put(self.home, "backup", value)

    def _connected(self) -> psycopg.Connection[Any]:
        if self._connection is None:
            self._connection = psycopg.connect(
                self.settings.dsn,
                autocommit=True,
                connect_timeout=_QUERY_S,
                application_name="medrec-backup",
                # Also against a server that has stopped answering.
                options=f"-c statement_timeout={_QUERY_S}s",
                tcp_user_timeout=_QUERY_S * 1000,
            )
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection, self._leads, self._laps = None, False, 0
        self._archived_to = 0
        self._moments.clear()

    def _end(self) -> None:
        if self._child is not None and self._child.poll() is None:
            self._child.terminate()
            try:
                self._child.wait(_END_S)
            except subprocess.TimeoutExpired:
                self._child.kill()
                self._child.wait()
        self._disconnect()
        self._tell("the schedule was stopped")


def _timeline_of(vault: Vault, system: str, id: str) -> int:
    """The timeline of a base backup; 0 where its manifest cannot be read: then another one is due."""
    try:
        return manifest.read(vault, system, id).timeline
    except (NotInBackup, Damaged):
        return 0


def _moment_of(id: str) -> datetime:
    """When a base backup began, by its id."""
    try:
        return datetime.strptime(id.partition("-")[0], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        raise BackupError(f"{id} is no base backup of this program") from None
