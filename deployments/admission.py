"""Refuses an application that the running Ray's budgets cannot hold, before anything is pending.

Ray itself would leave such a deployment UPSCALING for ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import ray

from configs.budgets import POOLS, RESOURCES, Budget, amount
from configs.reader import ConfigError, Demand, budget_problems
from deployments.cell.head import command, environment, ray_dir, shell_lines
from deployments.cell.ports import Ports
from deployments.cell.state import home


class BudgetsMissing(RuntimeError):
    """The operator's fault: this Ray was started without the virtual nodes' resources."""


def running_budgets() -> dict[str, Budget]:
    """The budgets as the running Ray was given them."""
    given = ray.cluster_resources()
    return {
        pool: Budget(**{name: amount(given, pool, name) or 0.0 for name in RESOURCES})
        for pool in POOLS
    }


def admit(application: str, demands: Sequence[Demand]) -> None:
    """Raise `BudgetsMissing` or `ConfigError` unless the running Ray holds every demand at peak."""
    budgets = running_budgets()
    pools = {demand.pool for demand in demands}
    if missing := sorted(pool for pool in pools if not any(asdict(budgets[pool]).values())):
        raise BudgetsMissing(refusal(missing))
    problems = list(budget_problems(demands, {pool: budgets[pool] for pool in pools}))
    if problems:
        raise ConfigError(Path(f"application {application}"), problems)


def refusal(pools: Sequence[str]) -> str:
    """What to say, and to type, when pools have no resources in the running Ray."""
    ports = Ports()
    here = home()
    lines = shell_lines(environment(here, ports), command(ports, ray_dir(here)))
    return (
        f"this Ray has no resources of the virtual node {', '.join(pools)}; start it with "
        f"`medrec ray start`, or with\n{lines}"
    )
