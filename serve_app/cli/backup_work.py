"""What `medrec backup` does with a settings file at hand."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg

from deployments.cell import condition, state
from deployments.data.backup import manifest, restore, run, schedule, verify, wal
from deployments.data.backup.errors import BackupError
from deployments.data.backup.vault import Vault
from deployments.data.durable import replace_file
from serve_app.cli.backup_setup import settings_at, settings_path

VERDICT = "backup_verdict.json"
# What the hospital asked for: a whole site from backups.
LIMIT_S, LIMIT_LOSS_S = 2 * 3600.0, 300.0


def make(chosen: Path | None, *, as_json: bool) -> None:
    """One base backup. Raises `BackupError`."""
    found = settings_at(chosen)
    try:
        made, pruned = run.run(found, _teller(as_json))
    except psycopg.Error as error:
        raise BackupError(f"the database failed: {type(error).__name__}") from None
    told = {**_row(made), "seconds": made.seconds, "pruned": asdict(pruned)}
    if as_json:
        print(json.dumps(told, indent=1))
        return
    spent = sum(made.seconds.values())
    print(f"base backup {made.id}: {made.base.size >> 20} MB, {made.base.stored >> 20} MB sealed")
    print(f"took {spent:.1f} s; removed {pruned.bases} base backups and {pruned.wal} WAL files")
    if pruned.refused:
        print(f"{pruned.refused} objects are kept by the place's own retention")


def show(chosen: Path | None, *, as_json: bool) -> None:
    """The base backups, the oldest first, and how far each can be brought."""
    vault = Vault.whole(settings_at(chosen))
    rows = []
    found, unreadable = manifest.readable(vault)
    for words in unreadable:
        print(f"passed over: {words}", file=sys.stderr)
    for each in found:
        entries = list(vault.entries(f"{each.system}/wal"))
        reach = wal.reach(entries, each.timeline, each.start_segment, each.segment_bytes)
        until = reach.until.isoformat(timespec="seconds") if reach.until else None
        rows.append({**_row(each), "until": until, "missing": reach.missing})
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    for row in rows:
        hole = f", then {row['missing']} is missing" if row["missing"] else ""
        source = "standby" if row["from_standby"] else "primary"
        size = f"{row['base_bytes'] >> 20} MB of the {source}"
        print(f"{row['id']}  {size}, {row['from']} to {row['until']}{hole}")
    if not rows:
        print("there is no complete base backup")


def bring_back(chosen: Path | None, to: Path, at: datetime | None, *, as_json: bool) -> int:
    """Restore. Returns the exit status: 1 if blobs that the database knows are lost."""
    found = settings_at(chosen)
    if at is not None and at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    began = time.monotonic()
    restored = restore.restore(found, to, at, say=_teller(as_json))
    took_s = round(time.monotonic() - began, 3)
    told = {
        "base": restored.plan.base.id,
        "asked": at.isoformat() if at else "latest",
        "reached": restored.reached.isoformat(),
        "took_s": took_s,
        "limit_s": LIMIT_S,
        "seconds": restored.seconds,
        "database_bytes": restored.plan.base.base.size,
        "wal_files": restored.plan.reach.segments,
        "blobs": restored.blobs,
        "blob_bytes": restored.blob_bytes,
        "lost_blobs": list(restored.lost_blobs),
    }
    replace_file(to / "restore.json", json.dumps(told, indent=1).encode())
    if as_json:
        print(json.dumps(told, indent=1))
    else:
        print(f"restored to {told['reached']} in {took_s:.1f} s: {restored.seconds}")
        if restored.lost_blobs:
            print(f"LOST: {len(restored.lost_blobs)} of {restored.known_blobs} blobs: restore.json")
        print(f"start it with MEDREC_HOME={to.resolve()}; then: medrec audit verify, backup run")
    return 1 if restored.lost_blobs else 0


def prove(chosen: Path | None, scratch: Path | None, *, as_json: bool) -> int:
    """Verify the newest backup. Returns the exit status."""
    found, home = settings_at(chosen), state.home()
    home.run.mkdir(parents=True, exist_ok=True, mode=0o700)
    place = Path(tempfile.mkdtemp(prefix="backup-verify-", dir=scratch or home.path))
    began = time.monotonic()
    try:
        verdict = verify.verify(found, place, _teller(as_json))
    finally:
        shutil.rmtree(place, ignore_errors=True)
    told = _verdict(verdict, time.monotonic() - began)
    replace_file(home.run / VERDICT, json.dumps(told, indent=1).encode())
    condition.put(home, "backup_verify", {"ok": verdict.is_sound, "base": verdict.base})
    if as_json:
        print(json.dumps(told, indent=1))
    else:
        for fault in verdict.faults:
            print(f"FAULT: {fault}")
        print(
            f"{'sound' if verdict.is_sound else 'NOT SOUND'}: {verdict.entries} audit entries, "
            f"{verdict.database_bytes >> 20} MB and {verdict.wal_files} WAL files restored in "
            f"{told['restore_s']:.1f} s to {verdict.reached or 'nowhere'}"
        )
    return 0 if verdict.is_sound else 1


def keep_schedule(chosen: Path | None) -> None:
    """The loop, until SIGTERM or Ctrl-C."""
    path = settings_path(chosen)
    found = settings_at(path)
    command = [sys.executable, "-m", "serve_app.cli", "backup", "run", "--settings", str(path)]

    def start_base() -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL)

    at = state.home()
    at.prepare()
    loop = schedule.Schedule(found, at, start_base, lambda text: print(text, flush=True))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: loop.stopping.set())
    loop.run()


def _verdict(verdict: verify.Verdict, took_s: float) -> dict[str, Any]:
    """The verdict as JSON values, against what was asked for."""
    restoring = ("plan", "base", "config", "replay", "sync")
    restore_s = sum(verdict.seconds.get(step, 0.0) for step in restoring)
    loss_s = None
    if verdict.archive_until:
        until = datetime.fromisoformat(verdict.archive_until)
        loss_s = round((datetime.fromisoformat(verdict.at) - until).total_seconds(), 1)
    return {
        "sound": verdict.is_sound,
        **asdict(verdict),
        "took_s": round(took_s, 3),
        "restore_s": round(restore_s, 3),
        "limit_s": LIMIT_S,
        "behind_s": loss_s,
        "limit_behind_s": LIMIT_LOSS_S,
    }


def _row(each: manifest.Manifest) -> dict[str, Any]:
    return {
        "id": each.id,
        "from": each.stopped_at.isoformat(timespec="seconds"),
        "timeline": each.timeline,
        "from_standby": each.from_standby,
        "start_lsn": each.start_lsn,
        "stop_lsn": each.stop_lsn,
        "base_bytes": each.base.size,
        "stored_bytes": each.base.stored,
    }


def _teller(as_json: bool) -> run.Say:
    return lambda text: print(text, file=sys.stderr if as_json else sys.stdout, flush=True)
