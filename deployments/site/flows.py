"""Who may talk to whom in a site: the one table from which the firewalls of all hosts are written."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from deployments.site.plan import HostPlan, Plan

Protocol = Literal["tcp", "udp", "vrrp"]
VRRP = 112
_SSH = 22
_DNS, _NTP, _DHCP = 53, 123, 67

# From whom, to whom, by which port of `HostPorts`, what for. A host never needs a rule for itself.
_TABLE: tuple[tuple[str, str, str, str], ...] = (
    ("clients", "edge", "https", "clients"),
    ("clients", "edge", "http", "clients, sent on to HTTPS"),
    ("edge", "cell", "api_tls", "requests of clients"),
    ("cell", "cell", "api_tls", "blobs and models of the other cell"),
    ("edge", "emergency", "api_tls", "requests of clients in emergency"),
    ("cell", "emergency", "api_tls", "keys of the site"),
    ("edge", "cell", "patroni", "who leads the database"),
    ("cell", "cell", "patroni", "who leads the database"),
    ("edge", "cell", "postgres_tls", "the emergency copy, and drills"),
    ("cell", "cell", "postgres_tls", "replication, and the primary"),
    ("emergency", "edge", "copy_tls", "the emergency copy"),
    ("etcd", "etcd", "etcd_peer", "etcd among its members"),
    ("etcd", "etcd", "etcd_client", "health of the members"),
    ("cell", "etcd", "etcd_client", "Patroni"),
    ("edge", "edge", "steward", "the other edge's steward"),
    ("cell", "edge", "steward", "orders: drain, handover"),
    ("monitoring", "edge", "steward", "metrics"),
    ("edge", "edge", "exporter", "metrics"),
    ("monitoring", "edge", "exporter", "metrics"),
    ("monitoring", "cell", "exporter", "metrics"),
    ("monitoring", "emergency", "exporter", "metrics"),
)


@dataclass(frozen=True, slots=True)
class Flow:
    """Connections that may be opened with a host, to `port` of the receiver (0 for VRRP).

    `networks` are the other side's: empty means that its address is a name, which a firewall could
    only look up while names are served, so that whoever has a certificate comes through.
    """

    networks: tuple[str, ...]
    protocol: Protocol
    port: int
    why: str

    def of_version(self, version: int) -> tuple[str, ...]:
        """The networks of one version of IP."""
        return tuple(n for n in self.networks if ipaddress.ip_network(n).version == version)


def into(plan: Plan, host: HostPlan) -> Iterator[Flow]:
    """What may be opened towards `host`."""
    for source, target, port, why in _TABLE:
        if host in _members(plan, target):
            others = [each for each in _members(plan, source) if each != host]
            networks = _outside(plan, source) or _addresses(others)
            if networks or others:
                yield Flow(networks, "tcp", getattr(host.ports, port), why)
    if host in plan.edges and len(plan.edges) > 1:
        yield Flow(_addresses(_others(plan.edges, host)), "vrrp", 0, "the shared address")
    if admin := tuple(plan.site.firewall.admin):
        yield Flow(admin, "tcp", _SSH, "operators")


def out_of(plan: Plan, host: HostPlan) -> Iterator[Flow]:
    """What `host` may open; applied where a site keeps to itself (`mvp`)."""
    for source, target, port, why in _TABLE:
        if host in _members(plan, source):
            for other in _others(_members(plan, target), host):
                yield Flow(_addresses([other]), "tcp", getattr(other.ports, port), why)
    if host in plan.edges and len(plan.edges) > 1:
        yield Flow(_addresses(_others(plan.edges, host)), "vrrp", 0, "the shared address")
    if services := tuple(plan.site.firewall.services):
        yield Flow(services, "udp", _DNS, "names")
        yield Flow(services, "tcp", _DNS, "names")
        yield Flow(services, "udp", _NTP, "time")
        yield Flow(services, "udp", _DHCP, "an address")


def keeps_to_itself(plan: Plan) -> bool:
    """Whether the site's hosts may open no connection to anything outside it."""
    return plan.site.preset == "mvp"


def _members(plan: Plan, group: str) -> Sequence[HostPlan]:
    if group == "etcd":
        return plan.etcd
    return [host for host in plan.hosts.values() if host.host.role == group]


def _outside(plan: Plan, group: str) -> tuple[str, ...]:
    """Networks of those who are no hosts of the site."""
    rules = plan.site.firewall
    return tuple({"clients": rules.clients, "monitoring": rules.monitoring}.get(group, ()))


def _others(hosts: Iterable[HostPlan], host: HostPlan) -> list[HostPlan]:
    return [each for each in hosts if each != host]


def _addresses(hosts: Sequence[HostPlan]) -> tuple[str, ...]:
    """Addresses as networks; nothing if one of them is a name."""
    try:
        return tuple(str(ipaddress.ip_network(host.address)) for host in hosts)
    except ValueError:
        return ()
