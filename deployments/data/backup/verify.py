"""Whether the newest backup is any good: it is restored, started and asked, then thrown away."""

from __future__ import annotations

import random
import subprocess
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from deployments.data import postgres_account
from deployments.data.audit import verify as chain
from deployments.data.audit.anchor import Anchor
from deployments.data.backup import blobs
from deployments.data.backup.errors import BackupError
from deployments.data.backup.manifest import Manifest
from deployments.data.backup.replay import running
from deployments.data.backup.restore import Restored, restore
from deployments.data.backup.run import Say, Steps
from deployments.data.backup.settings import BackupSettings
from deployments.data.backup.vault import Vault, parts_of
from deployments.data.postgres import program
from deployments.data.seal.check import check as check_keys

SAMPLED_BLOBS = 50
_CHECKSUMS_DEADLINE_S = 3600.0


@dataclass
class Verdict:
    """What was found. `faults` are sentences without content of records."""

    at: str
    faults: list[str] = field(default_factory=list)
    base: str = ""
    from_standby: bool = False
    database_bytes: int = 0
    wal_files: int = 0
    wal_bytes: int = 0
    reached: str = ""
    archive_until: str = ""
    entries: int = 0
    rows: dict[str, int] = field(default_factory=dict)
    known_blobs: int = 0
    sampled_blobs: int = 0
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def is_sound(self) -> bool:
        """Whether a site could be restored from it."""
        return not self.faults


def verify(settings: BackupSettings, scratch: Path, say: Say = lambda text: None) -> Verdict:
    """Restore the newest backup into `scratch`, an empty folder, and look at everything.

    What is wrong is a fault, an unreachable or damaged backup as well; raises nothing of its own.
    """
    verdict, steps = Verdict(datetime.now(UTC).isoformat(timespec="seconds")), Steps()
    try:
        restored = restore(settings, scratch, None, with_blobs=False, say=say)
        _tell(verdict, restored)
        verdict.faults.extend(restored.plan.unreadable)
        vault = Vault.whole(settings)
        with running(restored.data) as dsn:
            say("checking the audit chain, rows, keys and blobs")
            with steps.step("chain"):
                _check_chain(verdict, dsn, restored.plan.base)
            with steps.step("rows"):
                _check_rows(verdict, dsn, restored.plan.base)
            with steps.step("keys"):
                _check_keys(verdict, dsn, scratch / "secrets")
            with steps.step("sampled blobs"):
                _check_blobs(verdict, dsn, vault)
        with steps.step("pages"):
            _check_pages(verdict, restored.data)
    except (BackupError, psycopg.Error) as error:
        told = str(error) if isinstance(error, BackupError) else type(error).__name__
        verdict.faults.append(told)
    verdict.seconds.update(steps.seconds)
    return verdict


def _tell(verdict: Verdict, restored: Restored) -> None:
    base, reach = restored.plan.base, restored.plan.reach
    verdict.base, verdict.from_standby = base.id, base.from_standby
    verdict.database_bytes = base.base.size
    verdict.wal_files, verdict.wal_bytes = reach.segments, reach.bytes
    verdict.reached = restored.reached.isoformat()
    verdict.archive_until = reach.until.isoformat() if reach.until else ""
    verdict.seconds.update(restored.seconds)


def _check_chain(verdict: Verdict, dsn: str, base: Manifest) -> None:
    """The chain must be whole, and still have the head that it had when the copy began."""
    if "audit.entry" not in base.figures.rows:
        verdict.faults.append("the backed up database has no audit chain")
        return
    hash_then = bytes.fromhex(base.figures.audit_hash)
    then = Anchor(base.site, base.figures.audit_seq, hash_then, base.started_at.isoformat(), "")
    found = chain.verify(dsn, anchors=[then])
    verdict.entries = found.checked
    for fault in found.faults[:10]:
        verdict.faults.append(f"audit entry {fault.seq}: {fault.what}: {fault.detail}")
    if found.found > 10:
        verdict.faults.append(f"the audit chain has {found.found} faults in all")


def _check_rows(verdict: Verdict, dsn: str, base: Manifest) -> None:
    """What is only ever added to cannot have become less."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        for table, before in base.figures.rows.items():
            name = sql.Identifier(*table.split("."))
            query = sql.SQL("SELECT count(*) FROM {}").format(name)
            row = connection.execute(query).fetchone()
            verdict.rows[table] = row[0] if row else 0
            if verdict.rows[table] < before:
                verdict.faults.append(
                    f"{table} has {verdict.rows[table]} rows, and had {before} when it was copied"
                )


def _check_keys(verdict: Verdict, dsn: str, secrets: Path) -> None:
    """The backed up site keys must open what the backed up database holds."""
    for finding in check_keys(secrets, dsn):
        if finding.level == "error":
            verdict.faults.append(f"keys: {finding.reason}")


def _check_blobs(verdict: Verdict, dsn: str, vault: Vault) -> None:
    """Every blob must be there; of some the content is held to the name."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        known = blobs.known(connection)
    parts = blobs.parts_in(vault) if known else {}
    present = [name for name, size in known.items() if parts.get(name) == parts_of(size)]
    verdict.known_blobs = len(known)
    if lost := len(known) - len(present):
        verdict.faults.append(f"{lost} of {len(known)} blobs are not in the backup")
    for name in random.sample(present, min(SAMPLED_BLOBS, len(present))):
        verdict.sampled_blobs += 1
        try:
            if blobs.digest(vault, name) != name:
                verdict.faults.append(f"the blob {name[:16]}… is not what its name says")
        except BackupError as error:
            verdict.faults.append(str(error))


def _check_pages(verdict: Verdict, data: Path) -> None:
    """PostgreSQL's own checksum of every page; the server is stopped."""
    done = subprocess.run(
        [str(program("pg_checksums")), "--check", "-D", str(data)],
        cwd="/",
        capture_output=True,
        text=True,
        timeout=_CHECKSUMS_DEADLINE_S,
        check=False,
        **postgres_account.identity(),
    )
    if done.returncode != 0:
        told: list[Any] = done.stderr.strip().splitlines()
        verdict.faults.append(f"pages: {told[0] if told else done.returncode}")
