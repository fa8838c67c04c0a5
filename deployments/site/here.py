"""Which site a command acts on: the local one of this home, or the one that this host belongs to."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.site import load_site
from deployments.cell.state import CellError, Home
from deployments.site.ground import Namespaces
from deployments.site.inside import Inside
from deployments.site.plan import Ground, HostPlan, Plan, on_hosts, on_this_machine

LOCAL = "local-site"
FILE = "ground.json"
SITE_FILE = "site.yaml"


@dataclass(frozen=True, slots=True)
class Place:
    """A site and a host of it to ask from; `namespaces` where the hosts stand in some."""

    plan: Plan
    host: HostPlan
    namespaces: Namespaces | None
    folder: Path

    def inside(self, host: HostPlan | None = None) -> Inside:
        """A way to ask as that host; the caller closes it."""
        return Inside(self.plan, host or self.host, self.namespaces)


def write(folder: Path, site_file: Path, ground: Ground, **values: Any) -> None:
    """Note in `folder` which site file it is and what the hosts stand on."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    (folder / SITE_FILE).write_bytes(site_file.read_bytes())
    (folder / FILE).write_text(json.dumps({"ground": ground, **values}), encoding="utf-8")


def local_folder(home: Home) -> Path:
    """Where the local site of a home lies."""
    return home.path / LOCAL


def is_member(home: Home) -> bool:
    """Whether this home is a host's of a site."""
    return (home.path / "site" / FILE).exists()


def find(home: Home, name: str | None = None) -> Place:
    """The site of this home: local, or of the host that this is. `name`: the host to ask from.

    Raises `CellError` if there is none.
    """
    for folder in (local_folder(home), home.path / "site"):
        if (folder / FILE).exists():
            return _read(folder, home, name)
    raise CellError(f"no site is known in {home.path}: medrec site up starts one on this machine")


def _read(folder: Path, home: Home, name: str | None) -> Place:
    try:
        values = json.loads((folder / FILE).read_text(encoding="utf-8"))
        ground: Ground = values["ground"]
    except (OSError, ValueError, KeyError) as error:
        raise CellError(f"{folder / FILE} cannot be read: {error}") from error
    site = load_site(folder / SITE_FILE)
    if ground == "hosts":
        plan = on_hosts(site)
    else:
        root = Path(values["root"])
        plan = on_this_machine(
            site, root, ground, base=values["base"], cell_offset=values["cell_offset"]
        )
    chosen = name or values.get("host") or plan.edges[0].name
    if chosen not in plan.hosts:
        raise CellError(f"there is no host {chosen}: {', '.join(plan.hosts)}")
    # A program that runs on a host stands in its namespace already.
    apart = ground == "namespaces" and folder == local_folder(home)
    namespaces = Namespaces(site, Path(values["root"])) if apart else None
    return Place(plan, plan.hosts[chosen], namespaces, folder)
