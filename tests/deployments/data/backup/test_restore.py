"""What was backed up comes back as it was at a moment, from a real PostgreSQL's real archive."""

from __future__ import annotations

import os
import stat
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from deployments.data import postgres_account
from deployments.data.backup import keys, manifest, replay, restore, run
from deployments.data.backup.errors import BackupError, Damaged
from deployments.data.blobs.files import path_of
from deployments.data.postgres import OWNER, LocalServer, program
from tests.deployments.data.backup.world import World, world


def notes(data: Path) -> list[str]:
    with replay.running(data) as dsn, psycopg.connect(dsn) as connection:
        rows = connection.execute("SELECT text FROM public.note").fetchall()
    return [text for (text,) in rows]


@pytest.fixture(scope="module")
def backed_up(site: World) -> World:
    """The site with one base backup, `zeroth` in it, and an archive."""
    site.write("zeroth")
    (Path(site.settings.secrets) / "site_keys.json").write_text("{}")
    run.run(site.settings)
    return site


def test_a_moment_between_two_writes_has_exactly_the_first(backed_up: World, scratch: Path) -> None:
    backed_up.write("first")
    at = backed_up.now()
    time.sleep(0.01)
    backed_up.write("second")
    backed_up.archive()
    restored = restore.restore(backed_up.settings, scratch, at)
    assert notes(restored.data) == ["zeroth", "first"]
    assert 0 <= (at - restored.reached).total_seconds() < 1
    assert set(restored.seconds) == {"plan", "base", "config", "replay", "sync", "blobs"}
    assert [path.name for path in (scratch / "secrets").iterdir()] == ["site_keys.json"]
    for path in (scratch / "secrets", scratch / "secrets" / "site_keys.json"):
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077
    assert [path.name for path in (scratch / "configs").rglob("*.yaml")] == ["site.yaml"]
    assert not (restored.data / "recovery.signal").exists()
    with pytest.raises(BackupError, match="is not empty"):
        restore.restore(backed_up.settings, scratch, at)


def test_moments_that_cannot_be_restored_are_refused_before_anything_is_written(
    backed_up: World, scratch: Path
) -> None:
    vault = backed_up.vault
    first = manifest.every(vault)[0]
    with pytest.raises(BackupError, match="the oldest base backup was complete at"):
        restore.restore(backed_up.settings, scratch, first.started_at)
    later = backed_up.now().replace(year=2100)
    with pytest.raises(BackupError, match=r"the archive goes to .* only"):
        restore.restore(backed_up.settings, scratch, later)
    assert list(scratch.iterdir()) == []


def test_a_missing_wal_file_is_named(backed_up: World, scratch: Path) -> None:
    before = backed_up.now()
    backed_up.archive()
    backed_up.write("gone")
    name = backed_up.archive()
    backed_up.write("behind")
    backed_up.archive()
    (lost,) = (path for path in backed_up.objects() if path.name == name)
    content = lost.read_bytes()
    lost.unlink()
    try:
        with pytest.raises(BackupError, match=f"{name} is missing in the archive"):
            restore.restore(backed_up.settings, scratch, None)
        assert restore.plan(backed_up.vault, before).reach.missing == name
    finally:
        lost.write_bytes(content)


def test_a_flipped_byte_in_any_object_of_a_base_backup_is_refused(
    backed_up: World, scratch: Path
) -> None:
    vault = backed_up.vault
    base = manifest.every(vault)[-1]
    folder = Path(vault.store.place) / vault.site / base.folder
    streams = {
        stream.name.rpartition("/")[2]: stream.name
        for stream in (base.base, base.blobs, base.config, base.secrets)
    }
    for path in sorted(each for each in folder.rglob("*") if each.is_file()):
        content = path.read_bytes()
        changed = bytearray(content)
        changed[len(changed) // 2] ^= 1
        path.write_bytes(changed)
        try:
            is_manifest = path.name == "manifest"
            with pytest.raises(Damaged, match="does not open"):
                list(
                    manifest.every(vault)
                    if is_manifest
                    else vault.read_stream(streams[path.parent.name])
                )
        finally:
            path.write_bytes(content)
    # And a restore ends with that, rather than with what is left.
    first = folder / "base.tar" / "000000"
    content = first.read_bytes()
    first.write_bytes(content[:-1])
    try:
        with pytest.raises(Damaged, match=r"base\.tar/000000 was changed"):
            restore.restore(backed_up.settings, scratch, None)
    finally:
        first.write_bytes(content)


def test_a_damaged_wal_file_stops_recovery_instead_of_ending_it(
    backed_up: World, scratch: Path
) -> None:
    backed_up.write("in the damaged file")
    name = backed_up.archive()
    (path,) = (each for each in backed_up.objects() if each.name == name)
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    try:
        with pytest.raises(BackupError, match=f"recovery failed: medrec backup: {name} is not"):
            restore.restore(backed_up.settings, scratch, None)
    finally:
        path.write_bytes(content)


def test_another_key_opens_nothing(backed_up: World, tmp_path: Path) -> None:
    keys.write(tmp_path / "other", keys.new())
    stranger = replace(backed_up.settings, secrets=str(tmp_path / "other"))
    with pytest.raises(Damaged, match="another backup key"):
        restore.restore(stranger, tmp_path / "to", None)


def test_a_moment_after_the_last_write_has_it_and_the_blobs_by_name_and_lost_ones_are_listed(
    backed_up: World, scratch: Path
) -> None:
    names = [backed_up.add_blob(size) for size in (10, 300_000)]
    blob = (
        "INSERT INTO records.blob (name, id, organization, type, resource, version, content_type,"
        " size, stored_size, sha256, key_id, wrapped_key) VALUES (%s, gen_random_uuid(), 'h',"
        " 'Binary', %s, 1, 'text/plain', 1, 2, %s, 'k', '')"
    )
    for name in (*names, "0" * 64):
        backed_up.execute(blob, name, name[:8], name)
    run.run(backed_up.settings)
    backed_up.write("last")
    # PostgreSQL itself refuses a target that no change came after: the archive's end it is then.
    at = backed_up.now()
    backed_up.archive()
    restored = restore.restore(backed_up.settings, scratch, at)
    assert notes(restored.data)[-1] == "last"
    assert (restored.blobs, restored.blob_bytes) == (2, 300_010)
    assert restored.lost_blobs == ("0" * 64,)
    for name in names:
        there, here = (
            path_of(folder, name) for folder in (scratch / "blobs", Path(backed_up.settings.blobs))
        )
        assert there.read_bytes() == here.read_bytes()


def test_a_base_backup_comes_of_the_standby(backed_up: World, scratch: Path) -> None:
    """And brings what its primary has archived meanwhile."""
    data = scratch / "standby"
    done = subprocess.run(
        [str(program("pg_basebackup")), "-d", backed_up.dsn, "-D", str(data), "-R", "-c", "fast"],
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for path in (data, *data.rglob("*")):
        postgres_account.give(path)
    postgres_account.hand_over(data)
    standby = LocalServer(data, scratch / "s", scratch / "standby.log")
    process = standby.start({"fsync": "off"})
    try:
        standby.wait_ready(process)
        both = replace(backed_up.settings, base_dsn=standby.dsn(OWNER))
        made, _ = run.run(both)
        assert made.from_standby
        backed_up.write("after the standby's copy")
        backed_up.archive()
    finally:
        standby.stop()
        process.wait(10)
        standby.discard()
    restored = restore.restore(backed_up.settings, scratch / "to", None)
    assert restored.plan.base.id == made.id
    assert notes(restored.data)[-1] == "after the standby's copy"


@pytest.fixture
def bucket_site(
    bucket_service: str, credentials: None, scratch: Path
) -> Iterator[tuple[World, str]]:
    """A site whose backups go to a bucket that does not exist yet."""
    name = f"b{os.urandom(4).hex()}"
    made = world(scratch, to=f"s3://{name}", endpoint=bucket_service)
    try:
        made.start()
        yield made, f"{bucket_service}/{name}"
    finally:
        made.stop()


def test_a_bucket_that_is_away_holds_nothing_up_and_loses_nothing(
    bucket_site: tuple[World, str],
) -> None:
    """PostgreSQL keeps what it could not archive; once there is a bucket it is all there."""
    site, address = bucket_site
    site.write("first")
    site.execute("SELECT pg_switch_wal()")
    site.wait(lambda: site.archiver()["failed_count"] > 0)
    failed = site.archiver()["last_failed_wal"]
    ready = site.server.data / "pg_wal" / "archive_status" / f"{failed}.ready"
    assert ready.exists()
    said = f"{failed} is not archived: {site.settings.to}/medrec: there is no such bucket"
    assert said in site.server.log.read_text()
    with pytest.raises(BackupError, match="no such bucket"):
        restore.plan(site.vault, None)
    ask = urllib.request.Request(address, method="PUT")
    urllib.request.urlopen(ask, timeout=10).close()
    site.archive()
    assert not ready.exists()
    run.run(site.settings)
    site.write("second")
    site.archive()
    restored = restore.restore(site.settings, site.folder / "to", None)
    assert notes(restored.data) == ["first", "second"]


def test_a_database_that_does_not_archive_is_refused(site: World, postgres: LocalServer) -> None:
    with pytest.raises(BackupError, match="archives no WAL"):
        run.run(replace(site.settings, dsn=postgres.dsn(OWNER)))
