"""The report of a running cell: each node's budget, what is reserved, and what is used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from configs.budgets import POOLS, RESOURCES, Budget, amount, scaled
from configs.machine import machine
from deployments.cell.state import Charged, Home, State
from deployments.memory import Charge, PoolUse, Processes, measure, replicas_of


def report(
    home: Home,
    state: State,
    details: Mapping[str, Any],
    guard: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Everything about a cell, as JSON values.

    `details` is Serve's REST answer, `guard` the memory guard's report; without it memory is measured
    here, which misses what MLX holds on a GPU.
    """
    budgets = scaled(machine())
    used_gb, by_pid, closed = (
        _by_guard(guard)
        if guard
        else _by_process_table(
            pool_use(details, state.charged, {pool: b.memory_gb for pool, b in budgets.items()})
        )
    )
    return {
        "running": True,
        "home": str(home.path),
        "config": state.config,
        "pid": state.owner.pid if state.owner else None,
        "started": state.started,
        "pools": pools(budgets, details, used_gb),
        "closed": closed,
        "guard_answers": guard is not None,
        "deployments": deployments(details, by_pid),
        "models": list(guard["models"]) if guard else [],
        "charges": charges(state.charged),
        "addresses": {
            "api": state.base_url,
            "serve": f"http://127.0.0.1:{state.ports.serve}",
            "dashboard": state.dashboard_url,
            "ray": f"127.0.0.1:{state.ports.gcs}",
        },
        "processes": len(state.processes),
    }


def charges(charged: tuple[Charged, ...]) -> list[dict[str, Any]]:
    """Each process outside Ray that counts against a node, with those below it."""
    processes = Processes()
    return [
        {
            "name": entry.name,
            "node": entry.node,
            "pid": entry.process.pid,
            "memory_gb": round(processes.resident_gb(entry.process.pid) or 0.0, 3),
        }
        for entry in charged
    ]


def pool_use(
    details: Mapping[str, Any], charged: tuple[Charged, ...], budgets_gb: Mapping[str, float]
) -> dict[str, PoolUse]:
    """The memory that each node's replicas and charged processes really use."""
    charges = [Charge(entry.name, entry.node, entry.process.pid) for entry in charged]
    uses, _ = measure(budgets_gb, replicas_of(details), charges, {}, Processes().resident_gb)
    return uses


def _by_guard(
    guard: Mapping[str, Any],
) -> tuple[dict[str, float], dict[int, float], dict[str, str]]:
    found: Mapping[str, Mapping[str, Any]] = guard["pools"]
    return (
        {pool: facts["used_gb"] for pool, facts in found.items()},
        {r["pid"]: r["used_gb"] for facts in found.values() for r in facts["replicas"]},
        {pool: facts["closed"] for pool, facts in found.items() if facts["closed"]},
    )


def _by_process_table(
    uses: Mapping[str, PoolUse],
) -> tuple[dict[str, float], dict[int, float], dict[str, str]]:
    return (
        {pool: use.used_gb for pool, use in uses.items()},
        {entry.replica.pid: entry.used_gb for use in uses.values() for entry in use.replicas},
        {},
    )


def pools(
    budgets: Mapping[str, Budget], details: Mapping[str, Any], used_gb: Mapping[str, float]
) -> dict[str, dict[str, dict[str, float]]]:
    """Per node and resource: budget, the sum that its replicas reserve, and used memory."""
    result: dict[str, dict[str, dict[str, float]]] = {}
    for pool in POOLS:
        result[pool] = {}
        for name in RESOURCES:
            budget = getattr(budgets[pool], name)
            if budget <= 0:
                continue
            entry = {"budget": budget, "reserved": reserved(details, pool, name)}
            if name == "memory_gb" and pool in used_gb:
                entry["used"] = round(used_gb[pool], 3)
            result[pool][name] = entry
    return result


def reserved(details: Mapping[str, Any], pool: str, resource: str) -> float:
    """What the replicas that exist draw from a node, in the budget's units."""
    total = 0.0
    for application in details["applications"].values():
        for deployment in application["deployments"].values():
            options = deployment["deployment_config"].get("ray_actor_options") or {}
            each = amount(options.get("resources") or {}, pool, resource) or 0.0
            total += each * len(deployment["replicas"])
    return round(total, 3)


def deployments(details: Mapping[str, Any], memory_gb: Mapping[int, float]) -> list[dict[str, Any]]:
    """Each deployment with its replicas' processes and memory."""
    rows = []
    for application, app in details["applications"].items():
        for name, facts in app["deployments"].items():
            pids = [replica["pid"] for replica in facts["replicas"] if replica.get("pid")]
            rows.append(
                {
                    "application": application,
                    "deployment": name,
                    "status": facts["status"],
                    "running": sum(r["state"] == "RUNNING" for r in facts["replicas"]),
                    "target": facts["target_num_replicas"],
                    "pids": pids,
                    "memory_gb": round(sum(memory_gb.get(pid, 0.0) for pid in pids), 3),
                }
            )
    return rows
