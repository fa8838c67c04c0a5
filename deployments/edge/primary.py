"""When PostgreSQL's primary is to be moved, where Patroni alone would be slow or would not do it.

One that is silent keeps its lease for up to 20 s, Patroni's least, though who follows it has long known.
One whose disk is full answers, refuses every write, and stays. Pure: what is known goes in, a move with
its reason comes out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# Patroni's words for a primary, for who may become one, and for a server that is as it should be.
LEADS = ("leader", "primary", "master")
MAY_LEAD = ("sync_standby", "quorum_standby")
WELL = ("running", "streaming")
_MIB = 2**20
# A Patroni that is asked every second, and is well, was never heard longer ago.
_HEARD_S = 3.0


@dataclass(frozen=True, slots=True)
class Spoken:
    """What a cell's Patroni said last (`GET /patroni`), and the seconds since; empty: nothing ever."""

    status: Mapping[str, Any]
    silent_s: float


@dataclass(frozen=True, slots=True)
class Disk:
    """The disk below a PostgreSQL, in bytes."""

    free: float
    total: float

    @property
    def is_short(self) -> bool:
        """Whether what is left is less than 2 GiB and less than a tenth."""
        return self.free < min(2048 * _MIB, self.total / 10)

    @property
    def has_room(self) -> bool:
        """Whether it is far from being short, so that a primary that comes does not go back at once."""
        return self.free > min(6144 * _MIB, self.total * 3 / 10)


@dataclass(frozen=True, slots=True)
class Move:
    """The primary's way from one host to another, by names."""

    leader: str
    candidate: str
    reason: str


def leader_of(members: Mapping[str, Mapping[str, Any]]) -> str | None:
    """The primary among Patroni's members; None while there is none."""
    return next((name for name, member in members.items() if member.get("role") in LEADS), None)


def standbys_of(members: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Those among Patroni's members that may become primary: they have every acknowledged write."""
    return [name for name, member in members.items() if member.get("role") in MAY_LEAD]


def move_for_silence(
    members: Mapping[str, Mapping[str, Any]], spoken: Mapping[str, Spoken], after_s: float
) -> Move | None:
    """The move that ends a silent primary's lease; None: it speaks, or nobody could follow.

    Its Patroni must have been silent for `after_s` to the edge, and its PostgreSQL to a synchronous
    standby, which has lost the stream then: what is silent to one of them alone is the network's matter.
    """
    leader = leader_of(members)
    if leader is None or leader not in spoken or spoken[leader].silent_s < after_s:
        return None
    for name, said in spoken.items():
        status = said.status
        is_fit = (
            name != leader
            and said.silent_s <= _HEARD_S
            and status.get("state") in WELL
            and any(status.get(role) is True for role in MAY_LEAD)
            # In maintenance Patroni moves nothing, and nobody else does.
            and not status.get("pause")
        )
        if is_fit and status.get("replication_state") != "streaming":
            silent = f"{spoken[leader].silent_s:.0f} s"
            reason = (
                f"{leader}'s database is silent for {silent}, to {name} as well, which follows it"
            )
            return Move(leader, name, reason)
    return None


def move_for_room(
    members: Mapping[str, Mapping[str, Any]], disks: Mapping[str, Disk]
) -> Move | None:
    """The move that a full disk asks for; None: there is no need, or nobody fit to take it.

    `members`: Patroni's, by name; `disks`: those that are known now. Only a synchronous standby is
    fit: it has every acknowledged write.
    """
    leader = leader_of(members)
    if leader is None or (disk := disks.get(leader)) is None or not disk.is_short:
        return None
    for name in standbys_of(members):
        room = disks.get(name)
        if members[name].get("state") in WELL and room is not None and room.has_room:
            left = f"{disk.free / _MIB:.0f} MiB"
            reason = f"{leader} has {left} left for PostgreSQL; {name} follows it and has room"
            return Move(leader, name, reason)
    return None
