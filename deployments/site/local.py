"""A whole site on this machine: files, keys and certificates for every host, and a start in order."""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from deployments.cell import state
from deployments.cell.processes import alive
from deployments.cell.state import CellError
from deployments.data.accounts.demo import FILE as CREDENTIALS
from deployments.edge import runtime
from deployments.edge.primary import WELL, leader_of, standbys_of
from deployments.site import here
from deployments.site.calling import Caller, CallFailed
from deployments.site.firewall import firewall_files
from deployments.site.ground import Namespaces
from deployments.site.inside import Inside
from deployments.site.local_files import write_files
from deployments.site.plan import HostPlan, Plan
from deployments.site.running import LocalSite
from deployments.site.trust.files import HostFiles, read_certificate
from deployments.site.trust.key_files import export_keys, import_keys

ETCD_TIMEOUT_S, DATABASE_TIMEOUT_S, CELL_TIMEOUT_S = 60.0, 180.0, 420.0
EDGE_TIMEOUT_S = 120.0


@dataclass
class BringUp:
    """The start of a local site; each step waits for what the next one needs."""

    site: LocalSite
    site_file: Path
    folder: Path
    base: int
    cell_offset: int
    _inside: Inside | None = field(default=None, init=False)

    @property
    def plan(self) -> Plan:
        """The site's plan."""
        return self.site.plan

    def run(self) -> None:
        """Bring everything up. Raises `CellError`; the caller then stops the site."""
        site = self.site
        site.tell("making the hosts")
        site.ground.prepare()
        values = {"root": str(self.folder), "base": self.base, "cell_offset": self.cell_offset}
        here.write(self.folder, self.site_file, self.plan.ground, **values)
        for host in self.plan.hosts.values():
            here.write(host.folder, self.site_file, self.plan.ground, host=host.name, **values)
        write_files(self.plan, self.folder)
        for host in self.plan.hosts.values():
            if self.plan.ground == "namespaces":
                site.ground.guard(host.name, firewall_files(self.plan, host))
        try:
            self._bring_up_edges()
            self._bring_up_database()
            self._bring_up_cells()
            site.wait(
                "PostgreSQL has a synchronous standby",
                lambda: self._roles(len(self.plan.cells)),
                DATABASE_TIMEOUT_S,
            )
            site.tell("waiting for the edges")
            site.wait("an edge sends clients to a cell", self._is_open, EDGE_TIMEOUT_S)
        finally:
            if self._inside is not None:
                self._inside.close()

    def _bring_up_edges(self) -> None:
        self.site.tell("starting etcd")
        self.site.start("etcd")
        self.site.wait("etcd has a leader", self._etcd_answers, ETCD_TIMEOUT_S)
        self.site.tell("starting the edges")
        for name in ("haproxy", "keepalived", "steward"):
            self.site.start(name)

    def _bring_up_database(self) -> None:
        self.site.tell("starting PostgreSQL under Patroni")
        primary, *others = self.plan.site.cells
        # A new database begins on the first cell; one that is there goes on where it was led last.
        is_there = any((host.database / "PG_VERSION").exists() for host in self.plan.cells)
        self.site.start("patroni", [primary, *others] if is_there else [primary])
        self.site.wait("PostgreSQL has a primary", lambda: self._roles(1), DATABASE_TIMEOUT_S)
        if not is_there:
            self.site.start("patroni", others)

    def _bring_up_cells(self) -> None:
        first, *others = self.plan.cells
        self._start_cell(first)
        # The others begin once the first serves: clients go to the one that comes first. Nobody goes to
        # the emergency cell, which need wait for Ray alone: two that start at once keep it waiting.
        self.site.wait(f"Ray of {first.name} runs", lambda: ray_runs(first), CELL_TIMEOUT_S)
        clouds = [self.plan.cloud] if self.plan.cloud else []
        for host in clouds:
            self._start_cell(host, first)
        self.site.wait(f"{first.name} serves", lambda: serves(first), CELL_TIMEOUT_S)
        for host in others:
            self._start_cell(host, first)
        later = [*others, *clouds]
        self.site.wait(
            "every cell serves", lambda: all(serves(host) for host in later), CELL_TIMEOUT_S
        )

    def _start_cell(self, host: HostPlan, first: HostPlan | None = None) -> None:
        if first is not None:
            share_keys(first, host)
        self.site.tell(f"starting {host.name}")
        self.site.start("cell", [host.name])

    @property
    def inside(self) -> Inside:
        """An edge's place, to ask from."""
        if self._inside is None:
            ground = self.site.ground
            namespaces = ground if isinstance(ground, Namespaces) else None
            self._inside = Inside(self.plan, self.plan.edges[0], namespaces)
        return self._inside

    def _etcd_answers(self) -> bool:
        async def look(caller: Caller) -> bool:
            for host in self.plan.etcd:
                found = await caller.ask(host, host.ports.etcd_client, "/health", timeout_s=2.0)
                if str(found.get("health")).lower() != "true":
                    return False
            return True

        try:
            return self.inside.run(look)
        except CallFailed:
            return False

    def _roles(self, count: int) -> bool:
        try:
            members = self.inside.cluster()
        except CellError:
            return False
        well = {name: m for name, m in members.items() if m.get("state") in WELL}
        return leader_of(well) is not None and (count == 1 or bool(standbys_of(well)))

    def _is_open(self) -> bool:
        statuses: dict[str, Any] = self.inside.statuses()
        told = [status for status in statuses.values() if status is not None]
        if len(told) < len(self.plan.edges):
            return False
        cells = [cell for status in told for cell in status["cells"]]
        ready = all(cell["is_up"] and not cell["faults"] for cell in cells)
        clouds = [status["cloud"] for status in told if status["cloud"] is not None]
        if any(not cloud["is_up"] or cloud["copy_age_s"] is None for cloud in clouds):
            return False
        return ready and any(status["active"] and status["reaches"] for status in told)


def ray_runs(host: HostPlan) -> bool:
    """Whether the host's cell has its database, its keys and a Ray that has started."""
    found = state.read(host.home)
    if found is None:
        return False
    with suppress(psutil.Error):
        return any(process.name() == "raylet" for process in alive(found.running()))
    return False


def serves(host: HostPlan) -> bool:
    """Whether the host's own HAProxy has a replica of its cell's API."""
    with suppress(runtime.RuntimeUnavailable):
        found = runtime.servers(host.haproxy_socket)
        return any(server.backend == "api" and server.is_up for server in found)
    return False


def share_keys(first: HostPlan, other: HostPlan) -> None:
    """Give a host the site's keys, sealed as between machines, and a demo's credentials."""
    theirs = HostFiles.in_folder(other.tls)
    secrets = other.home.path / "secrets"
    data = export_keys(
        first.home.path / "secrets",
        HostFiles.in_folder(first.tls),
        read_certificate(theirs.certificate),
    )
    import_keys(secrets, theirs, data, senders=[first.name])
    credentials = first.home.path / CREDENTIALS
    if credentials.exists():
        shutil.copy2(credentials, other.home.path / CREDENTIALS)
