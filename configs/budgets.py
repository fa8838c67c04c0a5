"""The virtual nodes' budgets: declared in budgets.yaml, scaled to a machine, in Ray's words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path

import yaml

from configs.args import Resources

POOLS = ("ai", "api", "data")
_FILE = Path(__file__).parent / "budgets.yaml"
_GRAIN = 4  # Ray keeps resources to 0.0001


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
    """Each pool's budget on `machine`: the plan's shares of what it has, rounded down to 0.0001."""
    return {
        pool: Budget(
            **{
                name: _floor(plan().share(pool, name) * getattr(machine, name))
                for name in RESOURCES
            }
        )
        for pool in POOLS
    }


def ray_resources(budgets: Mapping[str, Budget]) -> dict[str, float]:
    """The budgets as custom resources for `ray start --resources`; what is zero is left out."""
    return {
        f"{pool}_{name}": amount
        for pool, budget in budgets.items()
        for name, amount in asdict(budget).items()
        if amount > 0
    }


def actor_resources(pool: str, resources: Resources) -> dict[str, float]:
    """What one replica asks of its own pool, for `ray_actor_options["resources"]`."""
    amounts = {name: round(float(getattr(resources, name)), _GRAIN) for name in RESOURCES}
    return {f"{pool}_{name}": amount for name, amount in amounts.items() if amount > 0}


def _floor(amount: float) -> float:
    scale: int = 10**_GRAIN
    return int(amount * scale + 1e-6) / scale
