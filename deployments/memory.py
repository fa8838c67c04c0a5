"""How much memory the processes of a cell really use, by virtual node and by replica.

macOS enforces no budget at run time, so the memory guard (deployments/ai/guard.py) compares this
with what each virtual node may have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import psutil

from configs.budgets import POOLS, amount

GB = 2**30
_POSTGRES = "postgres"


@dataclass(frozen=True, slots=True)
class Replica:
    """A Serve replica: who it is, its process, its virtual node and what it asked of it."""

    application: str
    deployment: str
    actor_id: str
    actor_name: str
    pid: int
    pool: str
    reserved_gb: float
    is_running: bool


@dataclass(frozen=True, slots=True)
class Charge:
    """A process that is no replica and counts against a virtual node: a proxy, a database."""

    name: str
    pool: str
    pid: int


@dataclass(frozen=True, slots=True)
class ReplicaUse:
    """A replica and the memory that it uses, its child processes included."""

    replica: Replica
    used_gb: float

    @property
    def excess_gb(self) -> float:
        """Memory beyond what the replica asked for; negative while it keeps within it."""
        return self.used_gb - self.replica.reserved_gb


@dataclass(frozen=True, slots=True)
class PoolUse:
    """The memory of one virtual node against its budget."""

    pool: str
    budget_gb: float
    replicas: tuple[ReplicaUse, ...] = ()
    charges: tuple[tuple[str, float], ...] = ()

    @property
    def used_gb(self) -> float:
        """Memory of all its processes."""
        return sum(r.used_gb for r in self.replicas) + sum(gb for _, gb in self.charges)

    @property
    def share(self) -> float:
        """The used part of the budget; 1 is all of it."""
        return self.used_gb / self.budget_gb


def replicas_of(details: Mapping[str, Any]) -> list[Replica]:
    """The replicas with a process in the controller's `get_serve_instance_details()`.

    A deployment's virtual node is the one whose memory resource it draws; one that draws on none
    is not counted.
    """
    found = []
    for application, app in details["applications"].items():
        for deployment, facts in app["deployments"].items():
            drawn = _drawn(facts["deployment_config"])
            if drawn is None:
                continue
            for replica in facts["replicas"]:
                if replica.get("pid") is None or replica.get("actor_id") is None:
                    continue
                found.append(
                    Replica(
                        application=application,
                        deployment=deployment,
                        actor_id=replica["actor_id"],
                        actor_name=replica["actor_name"],
                        pid=replica["pid"],
                        pool=drawn[0],
                        reserved_gb=drawn[1],
                        is_running=replica["state"] == "RUNNING",
                    )
                )
    return found


class Processes:
    """Who is whose child on the machine at one moment; how much each holds is asked anew each time."""

    def __init__(self) -> None:
        self._children: dict[int, list[int]] = {}
        for process in psutil.process_iter(["ppid"]):
            self._children.setdefault(process.info["ppid"], []).append(process.pid)

    def resident_gb(self, pid: int) -> float | None:
        """Resident memory of a process and all below it; None if it no longer exists.

        Metal's allocations are not in it: on macOS an engine reports MLX's own count besides.
        """
        own_gb = resident_gb(pid)
        if own_gb is None:
            return None
        children = self._children.get(pid, ())
        # All of PostgreSQL's processes see the same buffers: the postmaster's count is enough.
        if children and _name(pid) == _POSTGRES:
            return own_gb + sum(private_gb(child) for child in children)
        return own_gb + sum(self.resident_gb(child) or 0.0 for child in children)


def private_gb(pid: int) -> float:
    """Memory that a process shares with no other; 0 if it no longer exists."""
    try:
        process = psutil.Process(pid)
        memory = process.memory_info()
        if hasattr(memory, "shared"):
            return max(0, memory.rss - memory.shared) / GB
        return float(process.memory_full_info().uss) / GB
    except psutil.Error:
        return 0.0


def resident_gb(pid: int) -> float | None:
    """Resident memory of one process; None if it no longer exists."""
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return process.memory_info().rss / GB
    except psutil.Error:
        return None


def measure(
    budgets_gb: Mapping[str, float],
    replicas: Iterable[Replica],
    charges: Iterable[Charge],
    metal_gb: Mapping[int, float],
    resident: Callable[[int], float | None],
) -> tuple[dict[str, PoolUse], frozenset[str]]:
    """The use of every pool that has a budget, and the actor ids of replicas without a process.

    `metal_gb` maps a process id to the Metal memory that its engine reports; `resident` gives the
    memory of a process and those below it, or None.
    """
    by_pool: dict[str, list[ReplicaUse]] = {pool: [] for pool in budgets_gb}
    gone = set()
    for replica in replicas:
        used_gb = resident(replica.pid)
        if used_gb is None:
            gone.add(replica.actor_id)
        elif replica.pool in by_pool:
            used_gb += metal_gb.get(replica.pid, 0.0)
            by_pool[replica.pool].append(ReplicaUse(replica, used_gb))
    charged: dict[str, list[tuple[str, float]]] = {pool: [] for pool in budgets_gb}
    for charge in charges:
        used_gb = resident(charge.pid)
        if used_gb is not None and charge.pool in charged:
            charged[charge.pool].append((charge.name, used_gb))
    uses = {
        pool: PoolUse(pool, budget_gb, tuple(by_pool[pool]), tuple(charged[pool]))
        for pool, budget_gb in budgets_gb.items()
    }
    return uses, frozenset(gone)


def memory_budgets_gb(cluster_resources: Mapping[str, float]) -> dict[str, float]:
    """Each virtual node's memory as the running Ray was given it; pools without any are absent."""
    found = {pool: amount(cluster_resources, pool, "memory_gb") for pool in POOLS}
    return {pool: budget_gb for pool, budget_gb in found.items() if budget_gb}


def _name(pid: int) -> str:
    try:
        return psutil.Process(pid).name()
    except psutil.Error:
        return ""


def _drawn(config: Mapping[str, Any]) -> tuple[str, float] | None:
    resources = (config.get("ray_actor_options") or {}).get("resources") or {}
    for pool in POOLS:
        if (reserved_gb := amount(resources, pool, "memory_gb")) is not None:
            return pool, reserved_gb
    return None
