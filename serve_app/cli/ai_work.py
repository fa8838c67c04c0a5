"""What `medrec ai` does: moves a switch in the database, which every replica follows."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import typer

from configs.reader import PROJECT_ROOT, load
from deployments.cell import state
from deployments.cell.state import CellError
from deployments.cell.store import records_args
from deployments.data.audit.operator import Operator, operator_audit
from deployments.data.errors import DataError
from deployments.data.interactions.switches import FILE as SWITCHES_FILE
from deployments.data.interactions.switches import Switch, Switches
from deployments.data.places import places

# The same file as the API's replicas read at their start (serve_app/assembly.py).
T = TypeVar("T")


def move(config: Path | None, capability: str, *, enabled: bool, reason: str) -> None:
    """Move a switch and say where it stands."""

    async def work(operator: Operator, switches: Switches) -> Switch:
        return await switches.set(operator.caller, capability, enabled=enabled, reason=reason)

    _print(_run(config, work))


def show(config: Path | None) -> None:
    """Print every switch."""

    async def work(operator: Operator, switches: Switches) -> list[Switch]:
        return await switches.all(operator.caller)

    for switch in _run(config, work):
        _print(switch)


def _run(config: Path | None, work: Callable[[Operator, Switches], Awaitable[T]]) -> T:
    home = state.home()
    running = state.read(home)
    if config is None and running is not None and running.is_alive:
        config = Path(running.config)
    chosen = config or PROJECT_ROOT / "configs" / "local.yaml"
    args = records_args(load(chosen))
    if args is None:
        raise CellError(f"{chosen} keeps no records")

    async def once() -> T:
        async with operator_audit(places(args, home), args.organization) as operator:
            switches = Switches(operator.database, operator.audit, home.path / SWITCHES_FILE)
            return await work(operator, switches)

    try:
        return asyncio.run(once())
    except DataError as error:
        raise CellError(error.message) from None


def _print(switch: Switch) -> None:
    word = "on" if switch.enabled else "OFF"
    moved = f"  {switch.reason}, {switch.at:%Y-%m-%d %H:%M:%S} UTC" if switch.at else ""
    typer.echo(f"{switch.capability:8} {word}{moved}")
