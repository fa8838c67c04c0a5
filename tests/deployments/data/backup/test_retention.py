"""What is removed is exactly what nobody can need any more."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from deployments.data.backup import blobs, keys, manifest, retention, store, wal
from deployments.data.backup.errors import BackupError, Damaged
from deployments.data.backup.manifest import Figures, Manifest
from deployments.data.backup.settings import BackupSettings
from deployments.data.backup.vault import Stream, Vault

NOW = datetime.now(UTC)
BLOBS = [f"{letter}" * 64 for letter in "abc"]


def days_ago(days: float, segment: int = 1) -> Manifest:
    at = NOW - timedelta(days=days)
    nothing = Stream("", 0, 0, 0, "")
    id = f"{at:%Y%m%dT%H%M%SZ}-0000"
    return Manifest(
        *(id, "here", "7", 1, at - timedelta(minutes=5), at),
        start_lsn=f"0/{segment:X}000028",
        stop_lsn=f"0/{segment:X}000100",
        segment_bytes=wal.SEGMENT_BYTES,
        from_standby=True,
        server_version=180004,
        base=nothing,
        blobs=Stream(f"7/base/{id}/blobs", 0, 0, 1, ""),
        config=nothing,
        secrets=nothing,
        figures=Figures(0, "", {}),
    )


def ages(found: list[Manifest]) -> list[int]:
    return sorted(round((NOW - each.stopped_at) / timedelta(days=1)) for each in found)


def test_every_moment_of_the_days_kept_stays_restorable() -> None:
    every = [days_ago(days) for days in (1, 3, 5, 7, 9)]
    # Five days ago less an hour is restored from the backup of seven days ago.
    assert ages(retention.expired(every, NOW, 6)) == [9]
    assert ages(retention.expired(every, NOW, 5)) == [7, 9]
    assert ages(retention.expired(every, NOW, 100)) == []


def test_the_newest_two_stay_however_old_they_are() -> None:
    every = [days_ago(days) for days in (40, 50, 60)]
    assert ages(retention.expired(every, NOW, 1)) == [60]
    assert retention.expired(every[:2], NOW, 1) == []
    assert retention.expired([], NOW, 1) == []


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    """Three backups with WAL and blobs: `a` erased before the second, `c` new with the third."""
    secrets = tmp_path / "secrets"
    keys.write(secrets, keys.new())
    settings = BackupSettings(to=str(tmp_path / "to"), site="here", secrets=str(secrets))
    store.prepare(settings)
    vault = Vault.whole(settings)
    for number in range(1, 8):
        vault.create(f"7/wal/00000001/{wal.segment_name(1, number)}", b"")
    vault.create("7/wal/00000001/000000010000000000000002.00000028.backup", b"")
    vault.create("7/wal/00000002/00000002.history", b"")
    for name in BLOBS:
        vault.write_stream(blobs.stream_name(name), [b"x"])
    listed = (BLOBS[:1], BLOBS[1:2], BLOBS[1:])
    for days, segment, names in zip((60, 40, 1), (2, 4, 6), listed, strict=True):
        made = days_ago(days, segment)
        vault.write_stream(made.blobs.name, ["\n".join(names).encode()])
        manifest.write(vault, made)
    return vault


def test_wal_and_blobs_go_with_the_last_backup_that_needs_them(vault: Vault) -> None:
    # As if the blobs had been copied long ago: an object's age is the store's, not ours.
    later = NOW + timedelta(days=30)
    done = retention.prune(vault, manifest.every(vault), later, 10)
    assert (done.bases, done.refused) == (1, 0)
    assert len(manifest.every(vault)) == 2
    files = [entry.name.rpartition("/")[2] for entry in vault.entries("7/wal")]
    assert files == [*(wal.segment_name(1, number) for number in range(4, 8)), "00000002.history"]
    # `a` is not listed by what is kept, but it is younger than the oldest of them.
    assert set(blobs.parts_in(vault)) == set(BLOBS)


def test_a_blob_erased_before_the_oldest_kept_backup_is_removed(vault: Vault) -> None:
    every = manifest.every(vault)
    future = [replace(each, started_at=NOW + timedelta(days=1)) for each in every]
    done = retention.prune(vault, future, NOW, 1)
    assert (done.bases, done.blobs) == (1, 1)
    assert set(blobs.parts_in(vault)) == set(BLOBS[1:])


def test_a_place_that_lets_nothing_go_is_counted_and_not_fatal(
    vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise BackupError("AccessDenied")

    monkeypatch.setattr("deployments.data.backup.store.obstore.delete", refuse)
    done = retention.prune(vault, manifest.every(vault), NOW, 10)
    assert done.refused > 0
    assert len(manifest.every(vault)) == 3


def test_what_was_broken_off_is_removed_after_two_days(vault: Vault) -> None:
    vault.create("7/base/20260101T000000Z-beef/base.tar/000000", b"half")
    every = manifest.every(vault)
    retention.prune(vault, every, NOW, 100)
    assert vault.has("7/base/20260101T000000Z-beef/base.tar/000000")
    retention.prune(vault, every, NOW + timedelta(days=3), 100)
    assert not vault.has("7/base/20260101T000000Z-beef/base.tar/000000")


def test_one_manifest_that_does_not_open_hides_no_other(vault: Vault) -> None:
    vault.create("7/base/20260101T000000Z-beef/manifest", b"{}")
    with pytest.raises(Damaged, match="another version"):
        manifest.every(vault)
    found, unreadable = manifest.readable(vault)
    assert len(found) == 3
    assert unreadable == [
        "the manifest of 20260101T000000Z-beef is of another version of this program"
    ]
