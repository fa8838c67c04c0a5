"""What may go: base backups past their days, the WAL before the oldest kept, blobs nobody needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from deployments.data.backup import blobs, manifest, secrets, wal
from deployments.data.backup.manifest import Manifest
from deployments.data.backup.vault import Vault

ALWAYS_KEPT = 2
# A copy that has no manifest after this long was broken off.
_UNFINISHED = timedelta(days=2)


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was removed; `refused` the place would not let go (a bucket's own retention)."""

    bases: int = 0
    wal: int = 0
    blobs: int = 0
    refused: int = 0


def expired(every: Sequence[Manifest], now: datetime, keep_days: int) -> list[Manifest]:
    """Base backups that no moment of the last `keep_days` needs; the newest two stay regardless.

    The moment `keep_days` ago is restored from the backup before it.
    """
    by_time = sorted(every, key=lambda each: each.stopped_at)
    limit = now - timedelta(days=keep_days)
    before = [each for each in by_time if each.stopped_at <= limit]
    return [each for each in before[:-1] if each not in by_time[-ALWAYS_KEPT:]]


def prune(vault: Vault, every: Sequence[Manifest], now: datetime, keep_days: int) -> Pruned:
    """Remove what may go. The manifest first: half a backup must not look like one."""
    gone = expired(every, now, keep_days)
    kept = [each for each in every if each not in gone]
    bases = files = refused = 0
    for each in gone:
        refused += vault.delete([manifest.name_of(each.system, each.id)])
        refused += vault.delete([entry.name for entry in vault.entries(each.folder)])
        bases += 1
    complete = {id for _, id in manifest.ids(vault)}
    for system in manifest.systems(vault):
        names = _unfinished(vault, system, complete, now) + _old_wal(vault, system, kept)
        refused += vault.delete(names)
        files += len(names)
    if kept:
        oldest = min(each.started_at for each in kept)
        names = [entry.name for entry in vault.entries(secrets.FOLDER)]
        refused += vault.delete(secrets.outdated(names, oldest))
    lost = _unneeded_blobs(vault, kept) if gone else []
    for name in lost:
        refused += vault.delete([entry.name for entry in vault.entries(blobs.stream_name(name))])
    return Pruned(bases, files, len(lost), refused)


def _unfinished(vault: Vault, system: str, complete: set[str], now: datetime) -> list[str]:
    return [
        entry.name
        for entry in vault.entries(f"{system}/base")
        if entry.name.split("/")[2] not in complete and entry.modified < now - _UNFINISHED
    ]


def _old_wal(vault: Vault, system: str, kept: Sequence[Manifest]) -> list[str]:
    """WAL before the start of the oldest kept backup; the timelines' histories stay for good."""
    own = [each for each in kept if each.system == system]
    if not own:
        return []
    first = min(each.start_segment for each in own)
    size = own[0].segment_bytes
    names = [entry.name for entry in vault.entries(f"{system}/wal")]
    return [
        name
        for name in names
        if not name.endswith(".history") and wal.number_of(name.rpartition("/")[2], size) < first
    ]


def _unneeded_blobs(vault: Vault, kept: Sequence[Manifest]) -> list[str]:
    """Blobs that no kept backup lists, and that came before the oldest: erased since."""
    needed: set[str] = set()
    for each in kept:
        listed = b"".join(vault.read_stream(each.blobs.name)).decode("ascii")
        needed.update(listed.split())
    oldest = min(each.started_at for each in kept)
    found: dict[str, datetime] = {}
    for entry in vault.entries("blobs"):
        found[entry.name.split("/")[2]] = entry.modified
    return sorted(name for name, at in found.items() if name not in needed and at < oldest)
