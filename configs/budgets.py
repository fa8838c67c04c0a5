"""The virtual nodes' budgets: declared in budgets.yaml, scaled to a machine, in Ray's words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path

import yaml

from configs.args import Resources

POOLS = ("ai", "api", "data")
_FILE = Path(__file__).parent / "budgets.yaml"
_EPSILON = 1e-6
# How Ray counts each resource: the end of its name there, and its units in one of ours.
_UNITS = {
    "memory_gb": ("memory_mb", 1024),
    "metal_cores": ("metal_millicores", 1000),
    "cpu": ("cpu_millicores", 1000),
    "neural_cores": ("neural_millicores", 1000),
}


@dataclass(frozen=True, slots=True)
class Budget:
    """Amounts of each resource: those of a virtual node, of a machine, or of a demand."""

    memory_gb: float
    metal_cores: float
    cpu: float
    neural_cores: float


RESOURCES = tuple(field.name for field in fields(Budget))


@dataclass(frozen=True, slots=True)
class Plan:
    """The declared machine and each node's budget on it."""

    machine: Budget
    nodes: Mapping[str, Budget]

    def share(self, pool: str, resource: str) -> float:
        """The part of a machine's resource that belongs to a pool, 0 to 1."""
        given: float = getattr(self.nodes[pool], resource)
        whole: float = getattr(self.machine, resource)
        return given / whole


@cache
def plan() -> Plan:
    """The plan that budgets.yaml declares."""
    declared = yaml.safe_load(_FILE.read_text(encoding="utf-8"))
    nodes = {pool: Budget(**declared["nodes"][pool]) for pool in POOLS}
    return Plan(machine=Budget(**declared["machine"]), nodes=nodes)


def scaled(machine: Budget) -> dict[str, Budget]:
    """Each pool's budget on `machine`: the plan's shares of what it has, rounded down as Ray will."""
    return {
        pool: Budget(
            **{
                name: given(name, plan().share(pool, name) * getattr(machine, name))
                for name in RESOURCES
            }
        )
        for pool in POOLS
    }


def given(name: str, amount: float) -> float:
    """A budget as Ray keeps it: rounded down to a whole unit."""
    scale = _UNITS[name][1]
    return math.floor(amount * scale + _EPSILON) / scale


def asked(name: str, amount: float) -> float:
    """A replica's amount as Ray draws it: rounded up to a whole unit."""
    scale = _UNITS[name][1]
    return math.ceil(amount * scale - _EPSILON) / scale


def ray_resources(budgets: Mapping[str, Budget]) -> dict[str, float]:
    """The budgets as custom resources for `ray start --resources`; what is zero is left out.

    Ray takes whole numbers only above one, so memory is in MB and cores in thousandths.
    """
    return {
        f"{pool}_{unit}": given(name, getattr(budget, name)) * scale
        for pool, budget in budgets.items()
        for name, (unit, scale) in _UNITS.items()
        if getattr(budget, name) > 0
    }


def actor_resources(pool: str, resources: Resources) -> dict[str, float]:
    """What one replica asks of its own pool, for `ray_actor_options["resources"]`."""
    return {
        f"{pool}_{unit}": asked(name, getattr(resources, name)) * scale
        for name, (unit, scale) in _UNITS.items()
        if getattr(resources, name) > 0
    }


def amount(resources: Mapping[str, float], pool: str, name: str) -> float | None:
    """An amount in this module's units, from a mapping in Ray's; None if it is not there.

    `resources` are those of a cluster, a node or an actor; `name` is a field of `Budget`.
    """
    unit, scale = _UNITS[name]
    found = resources.get(f"{pool}_{unit}")
    return None if found is None else found / scale
