"""The way back from emergency: what was written there is merged into the site's records."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from configs.args import RecordsArgs
from configs.reader import load
from deployments.cell.state import CellError
from deployments.cell.store import records_args
from deployments.data.emergency import merging
from deployments.data.errors import NotFound
from deployments.data.places import Places, places
from deployments.site.ground import enter
from deployments.site.here import Place
from deployments.site.plan import HostPlan
from serve_app.cli.emergency_work import merge_file, tell
from serve_app.cli.whose import told_plainly

TWO_STEPS = (
    "what was written in the emergency is not merged yet: `medrec emergency export --out FILE` on the "
    "emergency cell, carry the file to a cell, `medrec emergency merge FILE` there"
)


def merge_back(place: Place, cell: str, package: Path | None) -> str | None:
    """Merge the last emergency into the site and print what came of it, conflicts by name.

    On one machine the emergency cell's database is at hand; from elsewhere its `package` is needed.
    Returns what is left to do, a sentence. Raises `CellError`.
    """
    if package is not None:
        merge_file(None, package)
        return None
    cloud = place.plan.cloud
    if place.plan.ground == "hosts" or cloud is None:
        return TWO_STEPS
    _, emergency = _records_of(cloud)
    rules, site = _records_of(place.plan.hosts[cell])
    # The site's database is on the cell's own loopback, which is that of its namespace.
    with ThreadPoolExecutor(1) as apart:
        if place.namespaces is not None:
            apart.submit(enter, place.namespaces.name(cell)).result()
        with told_plainly():
            try:
                apart.submit(asyncio.run, _brought_back(emergency.owner_dsn, site, rules)).result()
            except NotFound:
                return None  # Nobody wrote anything: there was no activation.
    return None


async def _brought_back(owner_dsn: str, site: Places, rules: RecordsArgs) -> None:
    async for returned in merging.bring_back(owner_dsn, site, rules):
        tell(returned)


def _records_of(host: HostPlan) -> tuple[RecordsArgs, Places]:
    rules = records_args(load(host.cell_config))
    if rules is None:
        raise CellError(f"{host.name} keeps no records")
    return rules, places(rules, host.home)
