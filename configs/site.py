"""The shape of a site file: a hospital's hosts, and the figures of failover, copies and drills.

`preset` chooses which of the hosts take part, so that one file describes every shape of a site.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationError, field_validator, model_validator

from configs.args import HostName, Seconds, Strict
from configs.backup import BackupArgs
from configs.reader import ConfigError, Problem, read_yaml, shape_problems


def _network(text: str) -> str:
    """An address or a network in its own form. Raises `ValueError`."""
    try:
        return str(ipaddress.ip_network(text))
    except ValueError:
        raise ValueError("is neither an address nor a network, as 10.20.0.0/24 is") from None


Role = Literal["cell", "edge", "witness", "emergency"]
Preset = Literal["single", "mvp", "production"]
Port = Annotated[int, Field(ge=1, le=65535)]
Network = Annotated[str, AfterValidator(_network)]
_ADDRESS = re.compile(r"^[A-Za-z0-9.:-]{1,253}$")


class Host(Strict):
    """One machine of the site."""

    role: Role = Field(description="What runs on it.")
    address: str = Field(description="Address that the other hosts reach it by.")
    platform: Literal["linux", "macos"] = Field(
        default="linux", description="Its system: which service files are written for it."
    )
    interface: str = Field(
        default="eth0", pattern=r"^[A-Za-z0-9.@_-]{1,15}$", description="Network interface."
    )
    config: str | None = Field(
        default=None, description="Cell config of a `cell` or the `emergency` host."
    )
    weight: Annotated[int, Field(ge=1, le=256)] = Field(
        default=100, description="Share of a cell where both serve; the larger is the primary."
    )
    priority: Annotated[int, Field(ge=1, le=254)] = Field(
        default=100, description="An edge's VRRP priority; the larger has the address."
    )
    memory_gb: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="Memory of a cell's machine in GB; the plan's unless given."
    )
    home: str = Field(default="/opt/medical-record/home", description="Folder of its files.")
    project: str = Field(
        default="/opt/medical-record/app", description="Folder of the program on it."
    )
    user: str = Field(default="medrec", description="System account that runs it.")

    @field_validator("address")
    @classmethod
    def _is_an_address(cls, text: str) -> str:
        if not _ADDRESS.fullmatch(text):
            raise ValueError("is neither an address nor a host name")
        return text


class Checks(Strict):
    """How fast the edge believes that a host is gone, and that it is back."""

    every_s: Seconds = Field(default=5.0, description="Seconds between checks of a healthy cell.")
    fast_s: Seconds = Field(
        default=1.0, description="Seconds between checks once one has failed or succeeded again."
    )
    timeout_s: Seconds = Field(default=2.0, description="Longest wait for a check's answer.")
    fall: Annotated[int, Field(ge=1)] = Field(default=3, description="Failures until down.")
    rise: Annotated[int, Field(ge=1)] = Field(default=2, description="Successes until up.")


class Edge(Strict):
    """What clients meet."""

    public_name: str = Field(description="Host name that clients use; in the certificate.")
    address: str | None = Field(
        default=None,
        description="Address with prefix that both edges share by VRRP, 10.20.0.10/24 say.",
    )
    router_id: Annotated[int, Field(ge=1, le=255)] = Field(
        default=51, description="VRRP virtual router id, one of its own in the network."
    )
    advertise_s: Seconds = Field(default=0.5, description="Seconds between VRRP advertisements.")
    https_port: Port = Field(default=443, description="Port of HTTPS and WebSocket.")
    http_port: Port = Field(default=80, description="Port that only redirects to HTTPS.")
    requests_per_10_s: Annotated[int, Field(ge=1)] = Field(
        default=600, description="Requests of one client address in ten seconds; over it: 429."
    )
    connections_per_client: Annotated[int, Field(ge=1)] = Field(
        default=100, description="Connections of one client address at a time."
    )
    cells: Checks = Field(default=Checks(), description="Checks of the cells.")
    emergency: Checks = Field(
        default=Checks(every_s=10.0, fast_s=2.0, fall=5, rise=3),
        description="Checks of the emergency cell.",
    )
    request_timeout_s: Seconds = Field(
        default=630.0, description="Longest silence of a stream; above the API's own limit."
    )


class Database(Strict):
    """PostgreSQL under Patroni."""

    ttl_s: Annotated[int, Field(ge=20)] = Field(
        default=20, description="Seconds that a leader's lease lasts without renewal."
    )
    loop_wait_s: Annotated[int, Field(ge=1)] = Field(
        default=3, description="Seconds between two looks of Patroni, which renew a leader's lease."
    )
    retry_timeout_s: Annotated[int, Field(ge=3)] = Field(
        default=5, description="Seconds that Patroni tries etcd and PostgreSQL again."
    )
    primary_start_timeout_s: Annotated[int, Field(ge=0)] = Field(
        default=10, description="Seconds that a crashed primary may take to start before failover."
    )
    silence_s: Annotated[float, Field(ge=3)] = Field(
        default=5.0,
        description="Seconds that the primary's Patroni must be silent to the edge, and its PostgreSQL "
        "to the synchronous standby, before the edge ends the leader's lease; from `ttl_s` on: never.",
    )
    lag_warning_ms: Annotated[int, Field(ge=1)] = Field(
        default=100, description="Replication lag at which the site is told of it."
    )
    lag_limit_ms: Annotated[int, Field(ge=1)] = Field(
        default=10_000, description="Replication lag beyond which no switch is made on its own."
    )

    @model_validator(mode="after")
    def _lease_outlasts_the_loop(self) -> Database:
        if self.ttl_s < self.loop_wait_s + 2 * self.retry_timeout_s:
            raise ValueError("ttl_s must be at least loop_wait_s + 2 × retry_timeout_s")
        return self


class Failover(Strict):
    """Who serves, and when that changes."""

    serving: Literal["primary", "both"] = Field(
        default="primary", description="Whether the second cell only stands by or serves as well."
    )
    hold_s: Seconds = Field(
        default=3.0, description="Seconds that no cell answers before emergency is decided."
    )
    start_s: Seconds = Field(
        default=300.0,
        description="Seconds that cells may take to come once the edges are up, before emergency.",
    )
    unfit_hold_s: Seconds = Field(
        default=30.0,
        description="Seconds that an unfit second cell is given to become fit before it serves.",
    )
    estimate_s: Seconds = Field(
        default=14_400.0, description="Time back from emergency that users are told."
    )


class Emergency(Strict):
    """The reduced service when no cell is left."""

    copy_limit_s: Seconds = Field(
        default=60.0, description="Age of the emergency copy that is promised."
    )


class Firewall(Strict):
    """Who may reach the hosts beside each other and the clients."""

    clients: list[Network] = Field(
        default=["0.0.0.0/0", "::/0"], description="Networks of the clients, towards the edges."
    )
    admin: list[Network] = Field(
        default_factory=list, description="Networks that may reach the hosts by SSH; none if empty."
    )
    monitoring: list[Network] = Field(
        default_factory=list, description="Networks or addresses that Prometheus asks from."
    )
    services: list[Network] = Field(
        default_factory=list,
        description="Servers of names and time (DNS, NTP) that an `mvp` site's hosts may ask: they "
        "may open no other connection to anything outside the site.",
    )


class Drills(Strict):
    """When drills run by themselves: systemd calendar expressions, and their limits."""

    health: str = Field(default="*-*-* 06:00", description="Health checks, no downtime.")
    failover: str = Field(default="Sun *-*-* 03:00", description="Failover to the second cell.")
    cloud: str = Field(default="*-*-01 04:00", description="Fallback to the emergency cell.")
    full: str = Field(default="*-01,04,07,10-02 02:00", description="Full disaster recovery.")
    audit: str = Field(default="*-01-15 08:00", description="Audit of the year's drills.")


class Site(Strict):
    """A site file."""

    name: HostName = Field(description="The site's name.")
    preset: Preset = Field(description="Which hosts take part: `single`, `mvp` or `production`.")
    organization: str = Field(default="hospital", description="Organization id of operators.")
    hosts: dict[HostName, Host] = Field(description="Every machine by its name.")
    edge: Edge = Field(description="What clients meet.")
    database: Database = Field(default=Database(), description="PostgreSQL under Patroni.")
    failover: Failover = Field(default=Failover(), description="Who serves.")
    emergency: Emergency = Field(default=Emergency(), description="The reduced service.")
    firewall: Firewall = Field(default=Firewall(), description="Who may reach the hosts.")
    backup: BackupArgs | None = Field(
        default=None, description="Where backups go; PostgreSQL archives its log if given."
    )
    drills: Drills = Field(default=Drills(), description="When drills run.")

    @model_validator(mode="after")
    def _hosts_fit_the_preset(self) -> Site:
        counts = {
            role: len(self.of_role(role)) for role in ("cell", "edge", "witness", "emergency")
        }
        wanted = {"single": (1, 1), "mvp": (2, 0), "production": (2, 1)}[self.preset]
        if (counts["cell"], counts["emergency"]) != wanted:
            raise ValueError(
                f"preset {self.preset} needs {wanted[0]} hosts of role cell and {wanted[1]} of role "
                f"emergency; there are {counts['cell']} and {counts['emergency']}"
            )
        members = counts["edge"] + counts["witness"]
        if counts["edge"] < 1 or members % 2 == 0:
            raise ValueError(
                "etcd runs on edges and witness, an odd number of them, with one edge at least; "
                f"there are {members}"
            )
        weights = [host.weight for host in self.of_role("cell").values()]
        if len(set(weights)) != len(weights):
            raise ValueError("cells of equal weight: the larger weight names the primary")
        for name, host in self.hosts.items():
            if host.role in ("cell", "emergency") and host.config is None:
                raise ValueError(f"host {name} needs config: the cell config that it runs")
        return self

    @property
    def members(self) -> dict[str, Host]:
        """The hosts that take part under the preset, in the file's order."""
        cells = [name for name, host in self.hosts.items() if host.role == "cell"]
        kept = cells[:1] if self.preset == "single" else cells
        return {
            name: host
            for name, host in self.hosts.items()
            if (host.role != "cell" or name in kept)
            and (host.role != "emergency" or self.preset != "mvp")
        }

    def of_role(self, role: str) -> dict[str, Host]:
        """The members of one role; cells with the primary first."""
        found = {name: host for name, host in self.members.items() if host.role == role}
        return dict(sorted(found.items(), key=lambda item: -item[1].weight))

    @property
    def cells(self) -> tuple[str, ...]:
        """Names of the cells, the primary first."""
        return tuple(self.of_role("cell"))

    @property
    def cloud(self) -> str | None:
        """Name of the emergency host; None where there is none."""
        return next(iter(self.of_role("emergency")), None)

    @property
    def etcd_hosts(self) -> tuple[str, ...]:
        """Names of the hosts that run etcd."""
        return (*self.of_role("edge"), *self.of_role("witness"))


def load_site(path: Path | str) -> Site:
    """Read and check a site file. Raises `ConfigError` with every problem found."""
    file = Path(path)
    raw = read_yaml(file)
    try:
        site = Site.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(file, list(shape_problems(error))) from error
    if problems := list(_address_problems(site)):
        raise ConfigError(file, problems)
    return site


def _address_problems(site: Site) -> Iterator[Problem]:
    if site.edge.address is None:
        return
    try:
        shared = ipaddress.ip_interface(site.edge.address)
    except ValueError:
        yield Problem("edge.address", "is not an address with its prefix, as 10.20.0.10/24 is")
        return
    for name, host in site.of_role("edge").items():
        try:
            inside = ipaddress.ip_address(host.address) in shared.network
        except ValueError:
            yield Problem(f"hosts.{name}.address", "an edge that shares an address needs a number")
            continue
        if not inside:
            yield Problem(f"hosts.{name}.address", f"is not in the network {shared.network}")
