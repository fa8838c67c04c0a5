"""`medrec status`: what runs, where, and how much of each budget it uses."""

from __future__ import annotations

import json
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from deployments.cell import state, status
from deployments.cell.guard_report import guard_report
from deployments.cell.serve_api import ServeApi

NOT_RUNNING = 3


def run(*, as_json: bool) -> int:
    """Print the state of the cell of this home. Returns the exit status."""
    console = Console(highlight=False, soft_wrap=True)
    report = collect()
    if as_json:
        print(json.dumps(report, indent=2))
    elif not report["running"]:
        console.print(f"no cell runs in {report['home']}")
    else:
        _print(console, report)
    return 0 if report["running"] else NOT_RUNNING


def collect() -> dict[str, Any]:
    """Everything that `status` knows, as JSON values."""
    home = state.home()
    found = state.read(home)
    if found is None or not found.is_alive:
        return {"running": False, "home": str(home.path)}
    api = ServeApi(found.dashboard_url, home.token_file.read_text(encoding="ascii"))
    try:
        details = api.details()
    finally:
        api.close()
    guard = guard_report(home, found) if "ai" in details["applications"] else None
    return status.report(home, found, details, guard)


def _print(console: Console, report: dict[str, Any]) -> None:
    pools = Table("node", "resource", "budget", "reserved", "used", box=None)
    for pool, resources in report["pools"].items():
        for resource, entry in resources.items():
            used = f"{entry['used']:.2f}" if "used" in entry else ""
            pools.add_row(
                pool, resource, f"{entry['budget']:.2f}", f"{entry['reserved']:.2f}", used
            )
    replicas = Table("application", "deployment", "status", "replicas", "pids", "GB", box=None)
    for entry in report["deployments"]:
        replicas.add_row(
            entry["application"],
            entry["deployment"],
            entry["status"].lower(),
            f"{entry['running']}/{entry['target']}",
            " ".join(str(pid) for pid in entry["pids"]),
            f"{entry['memory_gb']:.2f}",
        )
    for charge in report["charges"]:
        replicas.add_row(charge["node"], charge["name"], "", "", "", f"{charge['memory_gb']:.2f}")
    console.print(pools)
    console.print(replicas)
    console.print(f"models: {', '.join(report['models']) or 'none answer'}")
    if not report["guard_answers"]:
        console.print("the memory guard does not answer; memory is the process table's")
    for pool, reason in report["closed"].items():
        console.print(f"[bold red]{pool} admits nothing:[/] {escape(reason)}")
    for name, address in report["addresses"].items():
        console.print(f"{name}: {address}")
