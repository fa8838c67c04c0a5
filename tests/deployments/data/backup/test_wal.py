"""What the names in an archive tell: how far it goes, and what is missing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from deployments.data.backup import wal
from deployments.data.backup.errors import BackupError
from deployments.data.backup.store import Entry

NOW = datetime(2026, 11, 25, 2, 0, tzinfo=UTC)


def archive(*files: str) -> list[Entry]:
    return [
        Entry(f"7/wal/{file[:8]}/{file}", 100, NOW + timedelta(seconds=30 * number))
        for number, file in enumerate(files)
    ]


def segments(timeline: int, *numbers: int) -> list[str]:
    return [wal.segment_name(timeline, number) for number in numbers]


def test_names_and_numbers_are_postgresqls() -> None:
    assert wal.segment_name(1, wal.segment_of(wal.lsn("1/2A000028"))) == "00000001000000010000002A"
    assert wal.number_of("00000001000000010000002A") == 0x12A
    assert wal.number_of("00000001000000010000002A.00000028.backup") == 0x12A
    assert wal.object_name("7", "00000002.history") == "7/wal/00000002/00000002.history"
    for wrong in ("../secrets", "00000001000000010000002", "00000001000000010000002a", ""):
        with pytest.raises(BackupError):
            wal.object_name("7", wrong)


def test_a_whole_archive_goes_to_its_end() -> None:
    found = wal.reach(archive(*segments(1, 2, 3, 4)), 1, 2)
    assert (found.missing, found.segments, found.until) == (None, 3, NOW + timedelta(seconds=60))


def test_older_and_other_files_do_not_count() -> None:
    others = ["00000001.history", "000000010000000000000003.00000028.backup"]
    assert wal.reach(archive(*segments(1, 1, 2, 3), *others), 1, 2).segments == 2


def test_a_hole_is_named_and_what_is_behind_it_does_not_count() -> None:
    found = wal.reach(archive(*segments(1, 2, 3, 5, 6)), 1, 2)
    assert found.missing == wal.segment_name(1, 4)
    assert found.until == NOW + timedelta(seconds=30)
    assert wal.reach(archive(*segments(1, 3)), 1, 2).missing == wal.segment_name(1, 2)
    assert wal.reach([], 1, 2).missing == wal.segment_name(1, 2)


def test_a_failover_goes_on_where_the_old_primary_ended_or_before() -> None:
    assert wal.reach(archive(*segments(1, 2, 3), *segments(2, 4, 5)), 1, 2).segments == 4
    branched = archive(*segments(1, 2, 3, 4), *segments(2, 3, 4, 5))
    assert wal.reach(branched, 1, 2).missing is None
    lost = archive(*segments(1, 2, 3), *segments(2, 5))
    assert wal.reach(lost, 1, 2).missing == wal.segment_name(1, 4)
