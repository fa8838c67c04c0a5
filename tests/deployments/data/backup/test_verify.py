"""A verification says that a good backup is good, and names what is wrong with a bad one."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from deployments.data.audit.chain import Audit
from deployments.data.backup import manifest, run
from deployments.data.backup.verify import Verdict, verify
from deployments.data.database import Database
from deployments.data.postgres import APPLICATION
from deployments.data.seal import keys
from tests.deployments.data.audit.acts import entry, soon
from tests.deployments.data.backup.world import World


@pytest.fixture(scope="module")
def backed_up(site: World) -> World:
    """The site with a chain of five entries, site keys, and one base backup of it."""

    async def five_entries() -> None:
        database = Database(site.server.dsn(APPLICATION), connections=2)
        await database.open()
        audit = Audit(database, site.folder / "journal")
        await audit.start()
        for number in range(5):
            await audit.record(entry(number), deadline=soon())
        await audit.close()
        await database.close()

    asyncio.run(five_entries())
    keys.create(Path(site.settings.secrets))
    run.run(site.settings)
    return site


def verified(site: World, scratch: Path) -> Verdict:
    site.archive()
    place = scratch / "verify"
    try:
        return verify(site.settings, place)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def test_a_good_backup_is_sound_and_measured(backed_up: World, scratch: Path) -> None:
    found = verified(backed_up, scratch)
    assert found.faults == []
    assert found.is_sound
    assert found.entries == 5
    assert found.rows["audit.entry"] == 5
    assert found.database_bytes > 2**20
    assert found.reached
    assert {"base", "replay", "chain", "rows", "keys", "sampled blobs", "pages"} <= set(
        found.seconds
    )


def test_a_tampered_chain_a_lost_blob_and_a_lost_key_are_each_named(
    backed_up: World, scratch: Path
) -> None:
    for table in ("entry", "head"):
        backed_up.execute(f"ALTER TABLE audit.{table} DISABLE TRIGGER ALL")
    backed_up.execute("UPDATE audit.entry SET body = body || ' ' WHERE seq = 3")
    # The end cut off so that head and last entry agree: only what was noted of it before tells.
    backed_up.execute("DELETE FROM audit.entry WHERE seq = 5")
    last = "(SELECT seq, hash FROM audit.entry WHERE seq = 4)"
    backed_up.execute(f"UPDATE audit.head SET (seq, hash) = {last}")
    backed_up.execute(
        "INSERT INTO records.blob (name, id, organization, type, resource, version, content_type,"
        " size, stored_size, sha256, key_id, wrapped_key) VALUES (repeat('0', 64),"
        " gen_random_uuid(), 'h', 'Binary', 'r', 1, 'text/plain', 1, 2, repeat('0', 64), 'k', '')"
    )
    faults = verified(backed_up, scratch).faults
    for wanted in (
        "audit entry 3: changed",
        "audit entry 5: anchor",
        "audit.entry has 4 rows, and had 5 when it was copied",
        "1 of 1 blobs are not in the backup",
        "keys: ",
    ):
        assert any(fault.startswith(wanted) for fault in faults), (wanted, faults)


def test_a_backup_that_cannot_be_restored_is_a_fault_and_no_crash(
    backed_up: World, scratch: Path
) -> None:
    vault = backed_up.vault
    base = manifest.every(vault)[-1]
    path = Path(vault.store.place) / vault.site / base.base.name / "000000"
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    try:
        (fault,) = verified(backed_up, scratch).faults
        assert "does not open" in fault
    finally:
        path.write_bytes(content)
    nowhere = replace(backed_up.settings, to=str(scratch / "nowhere"))
    assert "is its disk mounted" in verify(nowhere, scratch / "to").faults[0]
