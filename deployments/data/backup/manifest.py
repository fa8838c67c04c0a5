"""The manifest of a base backup: written last, so a backup that has one is complete."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from deployments.data.backup import wal
from deployments.data.backup.errors import Damaged, NotInBackup
from deployments.data.backup.vault import Stream, Vault

_FORMAT = "medrec-backup-1"
_FILE = "manifest"


@dataclass(frozen=True, slots=True)
class Figures:
    """What the database held when the copy began: what is only ever added to cannot be less later.

    `audit_hash` (hexadecimal) is that of entry `audit_seq`, so the restored chain must pass it.
    """

    audit_seq: int
    audit_hash: str
    rows: dict[str, int]


@dataclass(frozen=True, slots=True)
class Manifest:
    """One complete base backup. Positions are PostgreSQL's, times are UTC by the server's clock."""

    id: str
    site: str
    system: str
    timeline: int
    started_at: datetime
    stopped_at: datetime
    start_lsn: str
    stop_lsn: str
    segment_bytes: int
    from_standby: bool
    server_version: int
    base: Stream
    blobs: Stream
    config: Stream
    secrets: Stream
    figures: Figures
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def start_segment(self) -> int:
        """Number of the first WAL segment that it needs."""
        return wal.segment_of(wal.lsn(self.start_lsn), self.segment_bytes)

    @property
    def folder(self) -> str:
        """Where its objects lie."""
        return f"{self.system}/base/{self.id}"

    def dump(self) -> bytes:
        """The object's content."""
        values = asdict(self)
        for name in ("started_at", "stopped_at"):
            values[name] = getattr(self, name).isoformat()
        return json.dumps({"format": _FORMAT, **values}, indent=1).encode()


def name_of(system: str, id: str) -> str:
    """The manifest's name."""
    return f"{system}/base/{id}/{_FILE}"


def write(vault: Vault, manifest: Manifest) -> None:
    """Make a backup complete."""
    vault.create(name_of(manifest.system, manifest.id), manifest.dump())


def parse(data: bytes, origin: str) -> Manifest:
    """The manifest in `data`. Raises `Damaged`."""
    try:
        raw: dict[str, Any] = json.loads(data)
        if raw.pop("format") != _FORMAT:
            raise ValueError
        for name in ("base", "blobs", "config", "secrets"):
            raw[name] = Stream(**raw[name])
        for name in ("started_at", "stopped_at"):
            raw[name] = datetime.fromisoformat(raw[name])
        return Manifest(**{**raw, "figures": Figures(**raw["figures"])})
    except (ValueError, KeyError, TypeError):
        raise Damaged(f"{origin} is of another version of this program") from None


def ids(vault: Vault) -> Iterator[tuple[str, str]]:
    """System and id of every complete base backup, by its objects' names alone."""
    for system in systems(vault):
        for entry in vault.entries(f"{system}/base"):
            parts = entry.name.split("/")
            if parts[-1] == _FILE and len(parts) == 4:
                yield system, parts[2]


def every(vault: Vault) -> list[Manifest]:
    """All complete base backups, the oldest first. Raises `BackupError`."""
    return _by_time(read(vault, system, id) for system, id in ids(vault))


def readable(vault: Vault) -> tuple[list[Manifest], list[str]]:
    """Those that can be read, the oldest first, and a sentence about each that cannot.

    One damaged manifest keeps nobody from restoring another backup. Raises `BackupError` where the
    place itself does not answer.
    """
    found, unreadable = [], []
    for system, id in ids(vault):
        try:
            found.append(read(vault, system, id))
        except (NotInBackup, Damaged) as error:
            unreadable.append(str(error))
    return _by_time(found), unreadable


def read(vault: Vault, system: str, id: str) -> Manifest:
    """One manifest. Raises `NotInBackup` and `Damaged`."""
    return parse(vault.read(name_of(system, id)), f"the manifest of {id}")


def _by_time(found: Iterable[Manifest]) -> list[Manifest]:
    return sorted(found, key=lambda manifest: manifest.stopped_at)


def systems(vault: Vault) -> list[str]:
    """The database clusters that have written here: a restored site goes on as the same."""
    found = {name for name in vault.folders() if name.isdecimal()}
    return sorted(found)
