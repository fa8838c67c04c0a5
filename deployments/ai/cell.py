"""The deployment `cell`: the catalogue of what this cell serves, and its memory guard.

Every second it measures the cell's processes, asks deployments/ai/guard.py about each virtual node
and carries out the answer. API replicas read the outcome with `state`.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import ray
from ray.serve._private.constants import SERVE_CONTROLLER_NAME, SERVE_NAMESPACE

from deployments.ai.cell_meters import CellMeters
from deployments.ai.client import CellState, ModelCard
from deployments.ai.guard import Decision, PoolState, after, decide
from deployments.cell.state import CellError, home, read
from deployments.memory import (
    GB,
    Charge,
    PoolUse,
    Processes,
    Replica,
    measure,
    memory_budgets_gb,
    replicas_of,
    resident_gb,
)

logger = logging.getLogger("ray.serve")

LAP_S = 1.0
CALL_TIMEOUT_S = 5.0
DESCRIBE_EVERY_LAPS = 5
SYSTEM_EVERY_LAPS = 10
# One pass over every process of a machine costs as much as all else that a lap does.
TREE_EVERY_LAPS = 5
LATE_S = 20.0


class Cell:
    """One replica. `models` maps each model's name to the handle of its deployment.

    `memory_budget_gb` replaces the budgets that Ray was started with, pool by pool.
    """

    def __init__(
        self, models: Mapping[str, Any], memory_budget_gb: Mapping[str, float] | None = None
    ) -> None:
        self._models = models
        self._override = dict(memory_budget_gb or {})
        self._cards: dict[str, ModelCard] = {}
        self._pools: dict[str, PoolState] = {}
        self._uses: dict[str, PoolUse] = {}
        self._replicas: list[Replica] = []
        self._gone: frozenset[str] = frozenset()
        self._system_gb = 0.0
        self._lap_s = time.monotonic()
        self._meters = CellMeters(home())
        self._loop = asyncio.get_running_loop().create_task(self._run())

    async def state(self) -> CellState:
        """The catalogue, and which pools are closed and why."""
        closed = {pool: state.closed for pool, state in self._pools.items() if state.closed}
        running = dict.fromkeys(self._models, 0)
        for replica in self._replicas:
            if replica.deployment in running and replica.is_running:
                running[replica.deployment] += replica.actor_id not in self._gone
        return CellState(
            models=tuple(self._cards[name] for name in self._models if name in self._cards),
            closed=closed,
            loading=tuple(name for name in self._models if name not in self._cards),
            running=running,
            gone=self._gone,
        )

    async def report(self) -> dict[str, Any]:
        """Each pool's use, budget, replicas and charges, and the models that have answered."""
        pools = {
            pool: {
                "budget_gb": use.budget_gb,
                "used_gb": use.used_gb,
                "closed": self._pools.get(pool, PoolState()).closed,
                "replicas": [
                    {**asdict(entry.replica), "used_gb": entry.used_gb} for entry in use.replicas
                ],
                "charges": [{"name": name, "used_gb": gb} for name, gb in use.charges],
            }
            for pool, use in self._uses.items()
        }
        models = [name for name in self._models if name in self._cards]
        return {"pools": pools, "system_gb": self._system_gb, "models": models}

    def check_health(self) -> None:
        """Serve restarts the guard if its loop has stopped."""
        late_s = time.monotonic() - self._lap_s
        if self._loop.done() or late_s > LATE_S:
            raise RuntimeError(f"the memory guard has not measured for {late_s:.0f} s")

    async def _run(self) -> None:
        lap = 0
        tree: Processes | None = None
        while True:
            started_s = time.monotonic()
            try:
                if lap % DESCRIBE_EVERY_LAPS == 0 or len(self._cards) < len(self._models):
                    await self._describe()
                if tree is None or lap % TREE_EVERY_LAPS == 0:
                    tree = await asyncio.to_thread(Processes)
                await self._guard(tree)
                if lap % SYSTEM_EVERY_LAPS == 0:
                    self._system_gb = await asyncio.to_thread(_system_gb, self._uses)
                    await asyncio.to_thread(self._meters.show_machine)
                self._lap_s = time.monotonic()
            except Exception as error:
                logger.warning("the memory guard missed a lap: %s", type(error).__name__)
            lap += 1
            await asyncio.sleep(max(0.1, LAP_S - (time.monotonic() - started_s)))

    async def _describe(self) -> None:
        for name, handle in self._models.items():
            try:
                async with asyncio.timeout(CALL_TIMEOUT_S):
                    self._cards[name] = await handle.describe.remote()
            except Exception as error:
                logger.info("%s does not describe itself: %s", name, type(error).__name__)

    async def _guard(self, tree: Processes) -> None:
        controller = ray.get_actor(SERVE_CONTROLLER_NAME, namespace=SERVE_NAMESPACE)
        async with asyncio.timeout(CALL_TIMEOUT_S):
            details = await controller.get_serve_instance_details.remote()
        self._replicas = replicas_of(details)
        budgets_gb = {**memory_budgets_gb(ray.cluster_resources()), **self._override}
        metal_gb = await self._metal_gb() if sys.platform == "darwin" else {}
        self._uses, self._gone = await asyncio.to_thread(
            _measure, budgets_gb, self._replicas, metal_gb, tree
        )
        for pool, use in self._uses.items():
            now_s = time.monotonic()
            state = self._pools.get(pool, PoolState())
            decision = decide(use, state, now_s)
            self._carry_out(decision, state)
            self._pools[pool] = after(decision, use, state, now_s)
        self._meters.show_pools(self._uses, self._pools)

    def _carry_out(self, decision: Decision, state: PoolState) -> None:
        if decision.action == "restart" and decision.worst is not None:
            logger.error("memory guard: %s", decision.reason)
            ray.kill(ray.get_actor(decision.worst.replica.actor_name, namespace=SERVE_NAMESPACE))
        elif (decision.action == "close") != (state.closed is not None):
            logger.warning("memory guard: %s", decision.reason)

    async def _metal_gb(self) -> dict[int, float]:
        """Process id to the memory that MLX holds on the GPU, which no process table shows."""
        found: dict[int, float] = {}
        for handle in self._models.values():
            try:
                answers = await handle.broadcast("memory").results_async(timeout_s=CALL_TIMEOUT_S)
            except Exception as error:
                logger.info("an engine did not tell its memory: %s", type(error).__name__)
                continue
            for answer in answers:
                found[answer["pid"]] = (answer["active_bytes"] + answer["cache_bytes"]) / GB
        return found


def _measure(
    budgets_gb: Mapping[str, float],
    replicas: list[Replica],
    metal_gb: Mapping[int, float],
    tree: Processes,
) -> tuple[dict[str, PoolUse], frozenset[str]]:
    return measure(budgets_gb, replicas, _charges(), metal_gb, tree.resident_gb)


def _charges() -> list[Charge]:
    """The processes that the cell's state file charges to a virtual node, while they live."""
    try:
        state = read(home())
    except CellError:
        return []
    if state is None:
        return []
    return [
        Charge(entry.name, entry.node, entry.process.pid)
        for entry in state.charged
        if entry.process.process() is not None
    ]


def _system_gb(uses: Mapping[str, PoolUse]) -> float:
    """Memory of the cell's processes that no pool answers for: Ray and Serve themselves."""
    state = read(home())
    if state is None:
        return 0.0
    counted = {entry.replica.pid for use in uses.values() for entry in use.replicas}
    counted |= {charge.pid for charge in _charges()}
    return sum(
        resident_gb(entry.pid) or 0.0
        for entry in state.processes
        if entry.pid not in counted and entry.process() is not None
    )
