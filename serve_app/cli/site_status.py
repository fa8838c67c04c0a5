"""`medrec site status`: who serves and why, as the edges tell it."""

from __future__ import annotations

import json
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from deployments.cell import state
from deployments.site import here

NOT_RUNNING = 3


def run(*, as_json: bool) -> int:
    """Print what the edges tell. Returns the exit status. Raises `CellError`."""
    console = Console(highlight=False, soft_wrap=True)
    place = here.find(state.home())
    inside = place.inside()
    try:
        statuses = inside.statuses()
    finally:
        inside.close()
    told = [status for status in statuses.values() if status is not None]
    active = next((status for status in told if status["active"]), told[0] if told else None)
    if as_json:
        print(json.dumps({"url": place.plan.public_url, "edges": statuses}, indent=2))
    elif active is None:
        console.print("no edge answers")
    else:
        _print(console, active, statuses)
    return 0 if active is not None else NOT_RUNNING


def _aside(standing: dict[str, Any], cell: str) -> list[str]:
    if cell in standing["retired"]:
        return [f"it was lost once: medrec site serve {cell} calls it back"]
    return ["an operator drained it"] if cell in standing["drained"] else []


def _print(console: Console, active: dict[str, Any], statuses: dict[str, Any]) -> None:
    standing = active["standing"]
    console.print(
        f"mode [bold]{standing['mode']}[/]   serving {' and '.join(standing['serving']) or '–'}"
    )
    console.print(f"because {escape(standing['reason'])}")
    if active["last"] and active["last"]["action"] == "wait":
        console.print(f"[bold red]{escape(active['last']['reason'])}[/]")
    table = Table("host", "answers", "database", "behind", "stands aside because", box=None)
    for cell in active["cells"]:
        name = cell["name"]
        database = active["database"].get(name, {})
        lag_s = active["lag_s"].get(name)
        table.add_row(
            name,
            "yes" if cell["is_up"] else "no",
            f"{database.get('role', '–')} {database.get('state', '')}",
            "" if lag_s is None else f"{lag_s * 1000:.0f} ms",
            escape("; ".join(_aside(standing, name) + cell["faults"])),
        )
    if (cloud := active["cloud"]) is not None:
        age_s = cloud["copy_age_s"]
        behind = "copy of unknown age" if age_s is None else f"{age_s:.0f} s"
        table.add_row(
            cloud["name"], "yes" if cloud["is_up"] else "no", "emergency copy", behind, ""
        )
    console.print(table)
    for name, status in statuses.items():
        words = (
            "does not answer" if status is None else "active" if status["active"] else "stands by"
        )
        console.print(f"{name}: {words}")
    console.print(
        "etcd: " + ", ".join(f"{h} {'ok' if w else 'down'}" for h, w in active["etcd"].items())
    )
