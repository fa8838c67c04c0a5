"""PostgreSQL's primary leaves a disk that fills up, for a standby that has everything and has room."""

from __future__ import annotations

import time
from typing import Any

import pytest

from configs.reader import PROJECT_ROOT
from configs.site import load_site
from deployments.edge.primary import Disk, Move, Spoken, move_for_room, move_for_silence
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


LOST = {"state": "running", "role": "replica", "sync_standby": True}
FOLLOWS = {**LOST, "replication_state": "streaming"}
SILENT, SPEAKS = Spoken({"state": "running", "role": "primary"}, 5.1), Spoken({}, 4.9)


def test_a_primary_that_edge_and_standby_hear_nothing_of_is_not_waited_for() -> None:
    move = move_for_silence(MEMBERS, {"mac-a": SILENT, "mac-b": Spoken(LOST, 0.4)}, 5.0)
    reason = "mac-a's database is silent for 5 s, to mac-b as well, which follows it"
    assert move == Move("mac-a", "mac-b", reason)
    archive = Spoken({**LOST, "replication_state": "in archive recovery"}, 0.4)
    assert move_for_silence(MEMBERS, {"mac-a": SILENT, "mac-b": archive}, 5.0) is not None


@pytest.mark.parametrize(
    ("primary", "standby"),
    [
        (SPEAKS, Spoken(LOST, 0.4)),
        (SILENT, Spoken(FOLLOWS, 0.4)),
        (SILENT, Spoken(LOST, 3.1)),
        (SILENT, Spoken({}, 60.0)),
        (SILENT, Spoken({**LOST, "sync_standby": False}, 0.4)),
        (SILENT, Spoken({"state": "running", "role": "replica"}, 0.4)),
        (SILENT, Spoken({**LOST, "state": "starting"}, 0.4)),
        (SILENT, Spoken({**LOST, "pause": True}, 0.4)),
    ],
)
def test_it_keeps_its_lease_while_anybody_hears_it_or_nobody_could_follow(
    primary: Spoken, standby: Spoken
) -> None:
    assert move_for_silence(MEMBERS, {"mac-a": primary, "mac-b": standby}, 5.0) is None


def test_without_a_leader_there_is_no_lease_to_end() -> None:
    spoken = {"mac-a": SILENT, "mac-b": Spoken(LOST, 0.4)}
    assert move_for_silence({}, spoken, 5.0) is None
    assert move_for_silence({"mac-c": MEMBERS["mac-a"]}, spoken, 5.0) is None


def test_silence_is_counted_from_the_last_word_or_from_the_steward_s_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sight = Sight(load_site(PROJECT_ROOT / "configs" / "site-local.yaml"))
    begun = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: begun + 10)
    sight.databases["mac-b"].tell(FOLLOWS)
    monkeypatch.setattr(time, "monotonic", lambda: begun + 14)
    spoken = sight.spoken()
    assert spoken["mac-b"] == Spoken(FOLLOWS, 4)
    assert spoken["mac-a"].status == {}
    assert spoken["mac-a"].silent_s == pytest.approx(14, abs=1)


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
