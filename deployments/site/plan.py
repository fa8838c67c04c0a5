"""A site laid on the ground: for every host its address, ports, folders and the programs' paths.

The one value that every renderer is given. On real hosts and in network namespaces every host has
an address and the same ports; on one loopback the hosts differ by their ports alone.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from configs.reader import PROJECT_ROOT
from configs.site import Host, Site
from deployments.cell.ports import OFFSET_STEP, Ports
from deployments.cell.state import CellError, Home
from deployments.edge import haproxy
from deployments.site.ports import LOOPBACK_BASE, HostPorts

Ground = Literal["hosts", "namespaces", "loopback"]
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class HostPlan:
    """One host on the ground. All paths are paths on that host."""

    name: str
    host: Host
    address: str
    ports: HostPorts
    cell_ports: Ports
    home: Home
    project: Path
    python: str

    @property
    def site_packages(self) -> Path:
        """Where its Python keeps packages, of the version that renders: a site has one on all hosts."""
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        return self.project / ".venv" / "lib" / version / "site-packages"

    @property
    def folder(self) -> Path:
        """The rendered files of the host."""
        return self.home.path / "site"

    @property
    def tls(self) -> Path:
        """Certificates and keys (deployments/site/trust): those of the host, and of the edge."""
        return self.folder / "tls"

    @property
    def cell_config(self) -> Path:
        """The cell config as the host runs it, with the site's addresses in it."""
        return self.folder / "cell.yaml"

    @property
    def site_file(self) -> Path:
        """The site file, a copy on every host."""
        return self.folder / "site.yaml"

    @property
    def host_names(self) -> Path:
        """Lines for the host's /etc/hosts."""
        return self.folder / "hosts"

    @property
    def haproxy_config(self) -> Path:
        """HAProxy's configuration."""
        return self.folder / "haproxy" / "haproxy.cfg"

    @property
    def haproxy_socket(self) -> Path:
        """HAProxy's runtime interface."""
        return self.folder / "haproxy" / "admin.sock"

    @property
    def patroni_config(self) -> Path:
        """Patroni's configuration."""
        return self.folder / "patroni" / "patroni.yml"

    @property
    def database(self) -> Path:
        """PostgreSQL's data folder under Patroni, in a folder of its account's own."""
        return self.home.postgres / "data"

    @property
    def etcd_config(self) -> Path:
        """etcd's configuration."""
        return self.folder / "etcd" / "etcd.yml"

    @property
    def etcd_data(self) -> Path:
        """etcd's data folder."""
        return self.home.path / "etcd"

    @property
    def keepalived_config(self) -> Path:
        """keepalived's configuration."""
        return self.folder / "keepalived" / "keepalived.conf"

    @property
    def gives_up(self) -> Path:
        """Touched by an edge's steward as long as the other edge should have the clients' address."""
        return self.folder / "gives-up"

    @property
    def passfile(self) -> Path:
        """libpq's passwords of the roles that the host's programs connect as (mode 0600)."""
        return self.folder / "pgpass"


@dataclass(frozen=True, slots=True)
class Plan:
    """The site and every member's `HostPlan`, by name."""

    site: Site
    ground: Ground
    hosts: Mapping[str, HostPlan]

    @property
    def cells(self) -> tuple[HostPlan, ...]:
        """The cells, the primary first."""
        return tuple(self.hosts[name] for name in self.site.cells)

    @property
    def edges(self) -> tuple[HostPlan, ...]:
        """The edges, the one of the highest priority first."""
        found = (self.hosts[name] for name in self.site.of_role("edge"))
        return tuple(sorted(found, key=lambda plan: -plan.host.priority))

    @property
    def etcd(self) -> tuple[HostPlan, ...]:
        """The hosts that run etcd."""
        return tuple(self.hosts[name] for name in self.site.etcd_hosts)

    @property
    def cloud(self) -> HostPlan | None:
        """The emergency host; None where there is none."""
        return None if self.site.cloud is None else self.hosts[self.site.cloud]

    @property
    def public_url(self) -> str:
        """What clients call the site, and what tokens name as their issuer."""
        edge = self.site.edge
        port = self.edges[0].ports.https
        return f"https://{edge.public_name}" + ("" if port == 443 else f":{port}")

    @property
    def public_address(self) -> str:
        """Where clients connect to: the shared address, or the first edge's own."""
        shared = self.site.edge.address
        if shared is None or self.ground == "loopback":
            return self.edges[0].address
        return shared.partition("/")[0]


def host_names(site: Site) -> str:
    """Lines of /etc/hosts for every member: programs that look a peer's name up ask no name server.

    Patroni does at each start, and waits for the answer.
    """
    lines = (f"{member.address} {name}" for name, member in site.members.items())
    return "\n".join((f"# hosts of the site {site.name}", *lines)) + "\n"


def on_hosts(site: Site) -> Plan:
    """The plan of a real site: every host with its own address, folders as the site file says."""
    hosts = {
        name: HostPlan(
            name=name,
            host=host,
            address=host.address,
            ports=_ports(site, name),
            cell_ports=Ports(),
            home=Home(Path(host.home)),
            project=Path(host.project),
            python=str(Path(host.project) / ".venv" / "bin" / "python"),
        )
        for name, host in site.members.items()
    }
    return Plan(site, "hosts", hosts)


def on_this_machine(
    site: Site, folder: Path, ground: Ground, *, base: int = LOOPBACK_BASE, cell_offset: int = 0
) -> Plan:
    """The plan of a site below `folder`, in namespaces or on the loopback from port `base` on.

    Cells on one loopback shift their ports by 1,000 each, from `cell_offset` on.
    """
    hosts = {}
    for index, (name, host) in enumerate(site.members.items()):
        own = HostPlan(
            name=name,
            host=host,
            address=host.address,
            ports=_ports(site, name),
            cell_ports=Ports(),
            home=Home(folder / "hosts" / name),
            project=PROJECT_ROOT,
            python=sys.executable,
        )
        if ground == "loopback":
            own = replace(
                own,
                address=LOOPBACK,
                ports=HostPorts.in_block(index, base),
                cell_ports=Ports().shifted(cell_offset + OFFSET_STEP * index),
            )
        hosts[name] = own
    return Plan(site, ground, hosts)


def _ports(site: Site, name: str) -> HostPorts:
    """A cell's own PostgreSQL port is the same number on every host: elsewhere a tunnel listens."""
    ports = HostPorts(https=site.edge.https_port, http=site.edge.http_port)
    index = site.cells.index(name) if name in site.cells else 0
    return replace(ports, postgres=ports.postgres + index)


def program(name: str) -> str:
    """Path of a program that no wheel carries. Raises `CellError` naming what installs it."""
    if name == "haproxy":
        return haproxy.binary()
    found = shutil.which(
        name, path="/usr/sbin:/usr/local/sbin:/sbin:/usr/bin:/usr/local/bin:/bin:/opt/homebrew/bin"
    )
    if found is None:
        raise CellError(f"{name} was not found: make system installs it")
    return found
