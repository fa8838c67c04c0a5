"""Proves with SIGKILL that a write and its audit entry happen both or not at all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from configs.args import RecordsArgs
from configs.reader import PROJECT_ROOT
from deployments.data.audit.chain import Audit
from deployments.data.audit.sweep import sweep
from deployments.data.database import Database
from deployments.data.records.store import Records
from deployments.data.seal import keys
from deployments.data.seal.sealer import Sealer
from tests.deployments.data.records import people
from tests.deployments.data.records.conftest import Owner
from tests.deployments.data.records.people import again


def die(dsn: str, folder: Path, where: str) -> str:
    """What a writer said that was killed there."""
    (folder / "dead").mkdir(mode=0o700)
    command = [sys.executable, "-m", "tests.deployments.data.records.dying_writer"]
    done = subprocess.run(
        [*command, dsn, str(folder / "secrets"), str(folder / "dead"), where],
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == -9, done.stderr
    return done.stdout.strip()


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    keys.create(tmp_path / "secrets")
    return tmp_path / "secrets"


async def repeated(database: Database, secrets: Path, folder: Path) -> bool:
    """Whether the dead writer's request, repeated, finds what it wrote."""
    (folder / "alive").mkdir(mode=0o700)
    audit = Audit(database, folder / "alive")
    await audit.start()
    try:
        records = Records(database, Sealer.load(secrets), audit, RecordsArgs())
        machine = people.caller("service", account="machine")
        done = await records.create(again(machine, key="the-key"), "Patient", people.patient())
        return done.replayed
    finally:
        await audit.close()


async def test_killed_before_the_commit_leaves_nothing(
    dsns: tuple[str, str], database: Database, secrets: Path, tmp_path: Path, owner: Owner
) -> None:
    assert die(dsns[0], tmp_path, "before the commit") == ""
    assert owner.rows("SELECT count(*) FROM records.history") == [(0,)]
    assert owner.rows("SELECT count(*) FROM audit.outbox") == [(0,)]
    assert not await repeated(database, secrets, tmp_path)


async def test_killed_after_the_commit_leaves_both_and_the_sweep_chains_it(
    dsns: tuple[str, str], database: Database, secrets: Path, tmp_path: Path, owner: Owner
) -> None:
    assert die(dsns[0], tmp_path, "after the commit") == ""
    [(id, version)] = owner.rows("SELECT id, version FROM records.resource")
    assert version == 1
    assert owner.rows("SELECT count(*) FROM audit.outbox") == [(1,)]
    owner.rows("UPDATE audit.outbox SET created_at = now() - interval '1 minute'")
    swept = await sweep(database, deadline=people.caller().deadline)
    assert swept.chained == 1
    [entry] = owner.entries("create")
    assert (entry["patient"], entry["details"]["version"]) == (id, 1)
    assert owner.rows("SELECT count(*) FROM audit.outbox") == [(0,)]
    assert await repeated(database, secrets, tmp_path)
    assert owner.rows("SELECT count(*) FROM records.resource") == [(1,)]


async def test_what_was_acknowledged_is_there_and_chained(
    dsns: tuple[str, str], database: Database, secrets: Path, tmp_path: Path, owner: Owner
) -> None:
    id = die(dsns[0], tmp_path, "after the answer")
    assert owner.rows("SELECT id FROM records.resource") == [(id,)]
    assert [entry["patient"] for entry in owner.entries("create")] == [id]
    assert owner.rows("SELECT count(*) FROM audit.outbox") == [(0,)]
