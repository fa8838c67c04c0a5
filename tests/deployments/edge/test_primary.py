"""PostgreSQL's primary leaves a disk that fills up, for a standby that has everything and has room."""

from __future__ import annotations

import time
from typing import Any

import pytest

from configs.reader import PROJECT_ROOT
from configs.site import load_site
from deployments.edge.primary import Disk, Move, move_for_room
from deployments.edge.sight import Sight

MIB = 2**20
SHORT, ROOMY = Disk(60 * MIB, 768 * MIB), Disk(700 * MIB, 768 * MIB)
MEMBERS = {
    "mac-a": {"role": "leader", "state": "running"},
    "mac-b": {"role": "sync_standby", "state": "streaming"},
}


def test_a_primary_on_a_full_disk_is_moved_to_its_synchronous_standby() -> None:
    move = move_for_room(MEMBERS, {"mac-a": SHORT, "mac-b": ROOMY})
    reason = "mac-a has 60 MiB left for PostgreSQL; mac-b follows it and has room"
    assert move == Move("mac-a", "mac-b", reason)


@pytest.mark.parametrize(
    ("members", "disks"),
    [
        (MEMBERS, {"mac-a": ROOMY, "mac-b": SHORT}),
        (MEMBERS, {"mac-a": SHORT, "mac-b": SHORT}),
        (MEMBERS, {"mac-a": SHORT}),
        (MEMBERS, {"mac-b": ROOMY}),
        (MEMBERS, {}),
        ({}, {"mac-a": SHORT, "mac-b": ROOMY}),
        (
            {**MEMBERS, "mac-b": {"role": "replica", "state": "streaming"}},
            {"mac-a": SHORT, "mac-b": ROOMY},
        ),
        (
            {**MEMBERS, "mac-b": {"role": "sync_standby", "state": "starting"}},
            {"mac-a": SHORT, "mac-b": ROOMY},
        ),
    ],
)
def test_it_stays_without_need_or_without_somebody_fit(
    members: dict[str, Any], disks: dict[str, Disk]
) -> None:
    assert move_for_room(members, disks) is None


def test_a_large_disk_is_short_at_two_gibibytes_and_roomy_at_six_so_that_nothing_swings() -> None:
    large = 8 * 2**40
    assert Disk(2047 * MIB, large).is_short
    assert not Disk(2049 * MIB, large).is_short
    assert not Disk(6143 * MIB, large).has_room
    assert Disk(6145 * MIB, large).has_room


def test_what_a_cell_tells_of_its_disk_counts_while_it_is_fresh(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sight = Sight(load_site(PROJECT_ROOT / "configs" / "site-local.yaml"))
    sight.conditions["mac-a"].tell({"disk": {"free_bytes": 5.0, "total_bytes": 9.0}})
    sight.conditions["mac-b"].tell({"disk": {"free_bytes": "much"}})
    assert sight.disks() == {"mac-a": Disk(5.0, 9.0)}
    later = time.monotonic() + 31
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert sight.disks() == {}
