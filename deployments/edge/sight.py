"""What a steward knows at a moment: gathered in the background, each part with the time it was told.

Nothing waits for a host here: a part that is old says so, and the decision goes by that.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from configs.site import Site
from deployments.edge.decision import CellSeen, CloudSeen, Seen
from deployments.edge.primary import LEADS, MAY_LEAD, WELL, Disk, Spoken
from deployments.edge.runtime import OTHERS, ServerSeen

# A cell writes its condition every few seconds; what is older than this says nothing.
STALE_S = 30.0
# A condition is asked for two seconds after the last, and may take four to come (looking.py).
HEARD_S = 6.5
# The other edge is asked every second.
OTHER_S = 5.0


@dataclass(slots=True)
class Told:
    """Something that a host said, and when (monotonic seconds)."""

    value: Mapping[str, Any] = field(default_factory=dict)
    at: float | None = None

    def tell(self, value: Mapping[str, Any]) -> None:
        """Note it with the time."""
        self.value, self.at = value, time.monotonic()

    def fresh(self, within_s: float = STALE_S) -> Mapping[str, Any] | None:
        """The value unless it is old or was never told."""
        if self.at is None or time.monotonic() - self.at > within_s:
            return None
        return self.value


@dataclass(slots=True)
class Sight:
    """Everything that one edge's steward has been told."""

    site: Site
    servers: list[ServerSeen] = field(default_factory=list)
    conditions: dict[str, Told] = field(default_factory=dict)
    patroni: Told = field(default_factory=Told)
    databases: dict[str, Told] = field(default_factory=dict)
    etcd: dict[str, bool] = field(default_factory=dict)
    other: Told = field(default_factory=Told)
    is_active: bool = True
    since: float = field(default_factory=time.monotonic)
    has_reached: bool = False

    def __post_init__(self) -> None:
        self.databases = {name: Told() for name in self.site.cells}
        self.conditions = {name: Told() for name in (*self.site.cells, *self._cloud_names)}

    @property
    def _cloud_names(self) -> tuple[str, ...]:
        return () if self.site.cloud is None else (self.site.cloud,)

    def is_up(self, name: str) -> bool:
        """Whether HAProxy's checks find the host well, in the backend that carries writes."""
        backend = "emergency" if name == self.site.cloud else OTHERS
        return any(s.is_up for s in self.servers if s.name == name and s.backend == backend)

    def seen(self) -> Seen:
        """The present view, as the state machine takes it."""
        cloud = None
        if (name := self.site.cloud) is not None:
            copy = (self.conditions[name].fresh() or {}).get("copy", {})
            cloud = CloudSeen(name, self.is_up(name), _age(copy))
        cells = tuple(
            CellSeen(
                n, self.is_up(n), self.faults(n), self.conditions[n].fresh(HEARD_S) is not None
            )
            for n in self.site.cells
        )
        return Seen(
            time.time(),
            cells,
            cloud,
            self.is_active,
            self._others_reach(),
            follows=not self.is_active and self.other_is_active,
            is_starting=self._is_starting(),
        )

    def _is_starting(self) -> bool:
        has_reached = self.has_reached or self.others_word.get("reached") is True
        return not has_reached and time.monotonic() - self.since < self.site.failover.start_s

    def faults(self, name: str) -> tuple[str, ...]:
        """Why a cell is not fit to take over, a sentence each."""
        condition = self.conditions[name].fresh()
        if condition is None:
            return ("its condition is not known",)
        found = [f"model {m} is faulty: {why}" for m, why in _faulty_models(condition).items()]
        blobs = condition.get("blobs")
        # What the other cell lacks as well is no reason to stay with it.
        missing = _number(blobs, "missing") - _number(blobs, "lost")
        if missing > 0:
            found.append(f"{missing:.0f} documents are missing on it")
        if (lag := self._lag_fault(name)) is not None:
            found.append(lag)
        return tuple(found)

    def members(self) -> dict[str, Mapping[str, Any]]:
        """Patroni's members by name: role, state, lag in bytes. Empty: nobody has told lately."""
        return {m["name"]: m for m in (self.patroni.fresh() or {}).get("members", ())}

    def spoken(self) -> dict[str, Spoken]:
        """What each cell's Patroni said of its PostgreSQL, and how long ago."""
        now = time.monotonic()
        return {
            name: Spoken(told.value, now - (self.since if told.at is None else told.at))
            for name, told in self.databases.items()
        }

    def disks(self) -> dict[str, Disk]:
        """The disks below PostgreSQL by host, as far as they are known now."""
        found = {}
        for name, told in self.conditions.items():
            section = (told.fresh() or {}).get("disk")
            total = _number(section, "total_bytes")
            if total:
                found[name] = Disk(_number(section, "free_bytes"), total)
        return found

    def lags_s(self) -> dict[str, float]:
        """Replication lag by standby, as the primary measured it; from whichever cell told last."""
        best: Mapping[str, Any] = {}
        for told in self.conditions.values():
            section = (told.fresh() or {}).get("database", {})
            if _at(section) > _at(best):
                best = section
        if time.time() - _at(best) > STALE_S:
            return {}
        return {name: float(lag_ms) / 1000 for name, lag_ms in best.get("lag_ms", {}).items()}

    def _lag_fault(self, name: str) -> str | None:
        members = self.members()
        if not members:
            return (
                None  # Patroni alone decides about the database; without its word nothing is held.
            )
        member = members.get(name)
        if member is None or member.get("state") not in WELL:
            return None if len(members) == 1 else "its database does not follow the primary"
        if len(members) > 1 and member.get("role") not in (*LEADS, *MAY_LEAD):
            return "its database is not synchronous yet, and may not take over"
        lag_s, limit_s = self.lags_s().get(name, 0.0), self.site.database.lag_limit_ms / 1000
        return f"its database is {lag_s:.1f} s behind" if lag_s > limit_s else None

    @property
    def other_is_active(self) -> bool:
        """Whether the other edge was heard lately, and has the clients' address."""
        return self.others_word.get("active") is True

    @property
    def others_word(self) -> Mapping[str, Any]:
        """What the other edge's steward said of itself lately; empty: nothing."""
        return self.other.fresh(OTHER_S) or {}

    def _others_reach(self) -> frozenset[str]:
        return frozenset(self.others_word.get("reaches", ()))


def _faulty_models(condition: Mapping[str, Any]) -> Mapping[str, str]:
    found = condition.get("models", {}).get("faulty", {})
    return found if isinstance(found, dict) else {}


def _age(copy: Mapping[str, Any]) -> float | None:
    """The copy's age now: as it was measured, and the time since."""
    age = copy.get("age_s")
    return None if age is None else float(age) + max(0.0, time.time() - _at(copy))


def _at(section: Mapping[str, Any]) -> float:
    return float(section.get("at", 0.0))


def _number(section: Any, key: str) -> float:
    found = section.get(key) if isinstance(section, dict) else None
    return float(found) if isinstance(found, int | float) else 0.0
