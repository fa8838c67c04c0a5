"""Orders to a site's edges, and the steward that follows them."""

from __future__ import annotations

import asyncio
import logging
import sys
from contextlib import suppress
from pathlib import Path

from rich.console import Console

from deployments.cell import state
from deployments.cell.state import CellError
from deployments.edge.decision import Order, OrderKind
from deployments.edge.primary import leader_of, standbys_of
from deployments.edge.steward import Steward
from deployments.edge.steward_api import server
from deployments.site import here
from deployments.site.inside import Inside

console = Console(highlight=False, soft_wrap=True)


def watch(host: str) -> None:
    """Run the steward of this edge until SIGTERM. Raises `CellError`."""
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(message)s", level=logging.WARNING)
    logging.getLogger("medrec").setLevel(logging.INFO)
    place = here.find(state.home(), host)
    asyncio.run(_watch(Steward(place.plan, place.host)))


async def _watch(steward: Steward) -> None:
    serving = server(steward)
    # uvicorn takes the signals, and both end together.
    tasks = [asyncio.create_task(steward.run()), asyncio.create_task(serving.serve())]
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    for task in pending:
        with suppress(asyncio.CancelledError):
            await task
    for task in done:
        task.result()


def give(kind: OrderKind, cell: str, force: bool) -> None:
    """Give an order and print what came of it. Raises `CellError` with the reason of a refusal."""
    inside = here.find(state.home()).inside()
    try:
        console.print(inside.order(Order(kind, cell, force)))
    finally:
        inside.close()


def hand_over(away_from: str, force: bool) -> None:
    """Move traffic, then the primary, away from a cell; an edge is relieved by stopping its keepalived.

    Raises `CellError`.
    """
    place = here.find(state.home())
    if away_from not in place.plan.site.cells:
        known = ", ".join(place.plan.site.cells)
        raise CellError(f"{away_from} is no cell ({known}): only cells serve and hold the primary")
    inside = place.inside()
    try:
        console.print(inside.order(Order("drain", away_from, force)))
        console.print(move_primary(inside, away_from))
    finally:
        inside.close()


def move_primary(inside: Inside, away_from: str) -> str:
    """Have Patroni move the primary away from a cell if it is there. Raises `CellError`."""
    members = inside.cluster()
    if leader_of(members) != away_from:
        return f"PostgreSQL's primary is not on {away_from}"
    followers = standbys_of(members)
    if not followers:
        raise CellError("there is no synchronous standby to move the primary to")
    return inside.switch_over(away_from, followers[0])


def come_back(cell: str, force: bool, package: Path | None) -> None:
    """End emergency, and merge back what was written there. Raises `CellError`."""
    from serve_app.cli.site_return import merge_back

    place = here.find(state.home())
    inside = place.inside()
    try:
        console.print(inside.order(Order("return", cell, force)))
    finally:
        inside.close()
    # Only now: the emergency cell takes nothing any more that could come after the merge.
    if left := merge_back(place, cell, package):
        console.print(f"[bold yellow]{left}[/]")
