"""A site's database, blobs, secrets and configs from the backup, as they were at a moment.

The restored folder is laid out as a cell's home. Its PostgreSQL is started once, replays the
archive's WAL to the moment, and is stopped again.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import psycopg

from deployments.data import postgres_account
from deployments.data.backup import blobs, folders, manifest, secrets, wal
from deployments.data.backup.errors import BackupError, Damaged
from deployments.data.backup.manifest import Manifest
from deployments.data.backup.replay import replayed
from deployments.data.backup.run import Say, Steps
from deployments.data.backup.settings import BackupSettings
from deployments.data.backup.unpack import unpack_base
from deployments.data.backup.vault import Stream, Vault
from deployments.data.backup.wal import Reach
from deployments.data.postgres import program

_SYNC_DEADLINE_S = 1800.0
# WAL on its way and what the replay adds.
_SPARE_BYTES = 2**29


@dataclass(frozen=True, slots=True)
class Plan:
    """Which base backup, and the WAL behind it. `unreadable`: base backups that cannot be told of."""

    base: Manifest
    at: datetime | None
    reach: Reach
    unreadable: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Restored:
    """What was restored. `reached` is the time of the last change replayed, or of the copy's end."""

    plan: Plan
    data: Path
    reached: datetime
    known_blobs: int
    blobs: int
    blob_bytes: int
    lost_blobs: tuple[str, ...]
    seconds: dict[str, float]


def plan(vault: Vault, at: datetime | None) -> Plan:
    """The newest base backup before `at`, if the archive goes that far. Raises `BackupError`."""
    every, unreadable = manifest.readable(vault)
    if not every and unreadable:
        raise Damaged(f"no base backup can be told of: {'; '.join(unreadable)}")
    if not every:
        raise BackupError("there is no complete base backup")
    fitting = [each for each in every if at is None or each.stopped_at <= at]
    if not fitting:
        first = every[0].stopped_at.isoformat(timespec="seconds")
        raise BackupError(f"the oldest base backup was complete at {first}, after that moment")
    base = fitting[-1]
    entries = list(vault.entries(f"{base.system}/wal"))
    found = wal.reach(entries, base.timeline, base.start_segment, base.segment_bytes)
    short = found.until is None or (at is not None and found.until < at)
    until = found.until.isoformat(timespec="seconds") if found.until else "nowhere"
    if found.missing and (at is None or short):
        raise BackupError(
            f"the WAL file {found.missing} is missing in the archive, which goes to {until}"
            " without it: restore to a moment before that by --at"
        )
    if short:
        raise BackupError(f"the archive goes to {until} only: --latest restores that")
    return Plan(base, at, found, tuple(unreadable))


def restore(
    settings: BackupSettings,
    to: Path,
    at: datetime | None,
    *,
    with_blobs: bool = True,
    say: Say = lambda text: None,
) -> Restored:
    """Restore into an empty folder, to `at` or to the archive's end.

    Raises `BackupError`; then the folder is of no use. The server is stopped when this returns.
    """
    to = to.resolve()
    if to.exists() and any(to.iterdir()):
        raise BackupError(f"{to} is not empty")
    to.mkdir(parents=True, exist_ok=True, mode=0o700)
    vault, steps = Vault.whole(settings), Steps()
    with steps.step("plan"):
        chosen = plan(vault, at)
    base, data = chosen.base, to / "postgres"
    if (free := shutil.disk_usage(to).free) < base.base.size + _SPARE_BYTES:
        raise BackupError(f"{to} has {free >> 20} MB free, too little for {base.base.size >> 20}")
    for words in chosen.unreadable:
        say(f"passed over: {words}")
    say(f"base backup {base.id}: {base.base.size >> 20} MB, {chosen.reach.segments} WAL files")
    with steps.step("base"):
        unpack_base(vault, base.base, data)
    with steps.step("config"):
        folders.unpack(_whole(vault, base.config), to / "configs")
        packed = _whole(vault, base.secrets)
        secrets.bring_back(vault, packed, base.started_at, at, to / "secrets")
    with steps.step("replay"), replayed(settings, data, at) as dsn:
        reached, known = _asked(dsn)
    reached = reached or base.stopped_at
    say(f"replayed to {reached}")
    with steps.step("sync"):
        _synchronise(data)
    copied, lost = blobs.Copied(0, 0), list[str]()
    if with_blobs:
        with steps.step("blobs"):
            copied, lost = blobs.place(vault, known, to / "blobs")
        say(f"placed {copied.blobs} of {len(known)} blobs")
    return Restored(
        plan=chosen,
        data=data,
        reached=reached,
        known_blobs=len(known),
        blobs=copied.blobs,
        blob_bytes=copied.bytes,
        lost_blobs=tuple(lost),
        seconds=steps.seconds,
    )


def _asked(dsn: str) -> tuple[datetime | None, list[str]]:
    """The time of the last change, and the blobs that the database knows."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        row = connection.execute("SELECT pg_last_xact_replay_timestamp()").fetchone()
        return (row[0] if row else None), list(blobs.known(connection))


def _whole(vault: Vault, stream: Stream) -> bytes:
    return b"".join(vault.read_stream(stream.name))


def _synchronise(data: Path) -> None:
    """Everything on the disk: recovery itself counts on files that were there before."""
    done = subprocess.run(
        [str(program("initdb")), "--sync-only", "-D", str(data)],
        cwd="/",
        capture_output=True,
        text=True,
        timeout=_SYNC_DEADLINE_S,
        check=False,
        **postgres_account.identity(),
    )
    if done.returncode != 0:
        raise BackupError(f"the restored files cannot be written through: {done.stderr.strip()}")
