"""When PostgreSQL's primary is to be moved though it runs: the disk below it is filling up.

Patroni moves a primary that is lost. One whose disk is full answers, refuses every write, and stays.
Pure: what is known goes in, a move with its reason comes out.
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
    """A switchover of Patroni, by names of hosts."""

    leader: str
    candidate: str
    reason: str


def leader_of(members: Mapping[str, Mapping[str, Any]]) -> str | None:
    """The primary among Patroni's members; None while there is none."""
    return next((name for name, member in members.items() if member.get("role") in LEADS), None)


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
    for name, member in members.items():
        is_fit = member.get("role") in MAY_LEAD and member.get("state") in WELL
        room = disks.get(name)
        if is_fit and room is not None and room.has_room:
            left = f"{disk.free / _MIB:.0f} MiB"
            reason = f"{leader} has {left} left for PostgreSQL; {name} follows it and has room"
            return Move(leader, name, reason)
    return None
