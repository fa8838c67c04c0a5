"""What `medrec ai` does: moves a switch in the database, which every replica follows."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import typer

from deployments.cell import state
from deployments.data.audit.operator import Operator, operator_audit
from deployments.data.interactions.switches import FILE as SWITCHES_FILE
from deployments.data.interactions.switches import Switch, Switches
from serve_app.cli.whose import site_of, told_plainly

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
    args, found = site_of(config)

    async def once() -> T:
        async with operator_audit(found, args.organization) as operator:
            switches = Switches(
                operator.database, operator.audit, state.home().path / SWITCHES_FILE
            )
            return await work(operator, switches)

    with told_plainly():
        return asyncio.run(once())


def _print(switch: Switch) -> None:
    word = "on" if switch.enabled else "OFF"
    moved = f"  {switch.reason}, {switch.at:%Y-%m-%d %H:%M:%S} UTC" if switch.at else ""
    typer.echo(f"{switch.capability:8} {word}{moved}")
