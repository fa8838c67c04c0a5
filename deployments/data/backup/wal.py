"""Names of WAL files, and what the names in an archive tell: is it whole, where does it end."""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from deployments.data.backup.errors import BackupError
from deployments.data.backup.store import Entry

SEGMENT_BYTES = 16 * 2**20
_PER_LOG = 2**32
_NAME = re.compile(r"[0-9A-F]{8}(\.history|[0-9A-F]{16}(\.partial|\.[0-9A-F]{8}\.backup)?)")
_SEGMENT = re.compile(r"[0-9A-F]{24}")


def object_name(system: str, file: str) -> str:
    """Where a WAL file lies in the vault. Raises `BackupError` on what is no WAL file's name."""
    if not _NAME.fullmatch(file):
        raise BackupError("that is no name of a WAL file")
    return f"{system}/wal/{file[:8]}/{file}"


def system_id(data: Path) -> str:
    """PostgreSQL's system identifier, from a data folder's control file."""
    try:
        with (data / "global" / "pg_control").open("rb") as stream:
            return str(struct.unpack("=Q", stream.read(8))[0])
    except (OSError, struct.error):
        raise BackupError(f"{data} is no data folder of PostgreSQL") from None


def lsn(text: str) -> int:
    """The position that PostgreSQL writes as `0/3000028`."""
    high, _, low = text.partition("/")
    return (int(high, 16) << 32) + int(low, 16)


def segment_of(position: int, size: int = SEGMENT_BYTES) -> int:
    """Number of the segment that holds a position."""
    return position // size


def segment_name(timeline: int, segment: int, size: int = SEGMENT_BYTES) -> str:
    """A segment's file name."""
    per_log = _PER_LOG // size
    return f"{timeline:08X}{segment // per_log:08X}{segment % per_log:08X}"


def is_segment(file: str) -> bool:
    """Whether a file is a whole segment."""
    return _SEGMENT.fullmatch(file) is not None


def number_of(file: str, size: int = SEGMENT_BYTES) -> int:
    """Number of the segment that a file's name tells; of a backup's history file as well."""
    return int(file[8:16], 16) * (_PER_LOG // size) + int(file[16:24], 16)


@dataclass(frozen=True, slots=True)
class Reach:
    """What an archive can restore from one base backup on: up to when, and what is missing."""

    until: datetime | None
    missing: str | None
    segments: int
    bytes: int


def reach(entries: Sequence[Entry], timeline: int, start: int, size: int = SEGMENT_BYTES) -> Reach:
    """How far the archive goes without a hole, from segment `start` of `timeline` on.

    A later timeline branches off within or right behind the one before it. The time is that at
    which the last segment was archived: changes before it are in it.
    """
    files = sorted(
        (entry for entry in entries if is_segment(_file(entry))),
        key=lambda entry: (_file(entry)[:8], _file(entry)),
    )
    expected: int | None = start
    until: datetime | None = None
    count = total = 0
    at = timeline
    for entry in files:
        own, number = int(_file(entry)[:8], 16), number_of(_file(entry), size)
        if own < timeline or number < start:
            continue
        if own != at and expected is not None and number <= expected:
            at, expected = own, number
        if own != at or number != expected:
            return Reach(until, segment_name(at, expected or start, size), count, total)
        expected, until = number + 1, entry.modified
        count, total = count + 1, total + entry.size
    missing = None if count else segment_name(timeline, start, size)
    return Reach(until, missing, count, total)


def _file(entry: Entry) -> str:
    return entry.name.rpartition("/")[2]
