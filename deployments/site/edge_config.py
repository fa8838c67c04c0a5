"""HAProxy of each host of a site: what the template of configs/haproxy.cfg.j2 is given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from configs.site import Checks
from deployments.edge import haproxy
from deployments.edge.runtime import UNCHECKED
from deployments.site.plan import LOOPBACK, HostPlan, Plan

_THREADS = {"edge": 2, "cell": 2, "emergency": 1}


@dataclass(frozen=True, slots=True)
class Server:
    """A server line: another host's port. `tunnel`: by TLS with our host certificate."""

    name: str
    address: str
    tunnel: bool = True
    weight: int = 1
    check: str = ""
    check_host: str = ""
    check_port: int = 0


def files_of(host: HostPlan) -> haproxy.Files:
    """Where HAProxy's files of the host lie."""
    folder = host.haproxy_config.parent
    return haproxy.Files(folder, folder, host.haproxy_socket.name)


def write_haproxy(plan: Plan, host: HostPlan, *, folder: Path | None = None) -> Path:
    """Write the host's configuration, into `folder` unless it is for this machine; its path.

    The paths inside are those on the host.
    """
    role = host.host.role
    if role == "witness":
        raise ValueError("a witness has no HAProxy")
    files = files_of(host)
    return haproxy.write_role(
        role,
        files,
        into=folder,
        ingress_ports=() if role == "edge" else host.cell_ports.ingress,
        request_timeout_s=plan.site.edge.request_timeout_s,
        threads=_THREADS[role],
        max_connections=haproxy.connections_for(haproxy.open_files()),
        values={"tls": _tls(host), **_VALUES[role](plan, host)},
    )


def _tls(host: HostPlan) -> dict[str, str]:
    names = {
        "host": "host.pem",
        "edge": "edge.pem",
        "ca": "ca.crt",
        "crl": "crl.pem",
        "devices": "devices.crt",
        "devices_crl": "devices-crl.pem",
    }
    return {key: haproxy.quoted(host.tls / name) for key, name in names.items()}


def _edge_values(plan: Plan, host: HostPlan) -> dict[str, object]:
    rules, ports = plan.site.edge, host.ports
    # Clients come to the shared address as well, which only one edge has at a time.
    anywhere = LOOPBACK if plan.ground == "loopback" else "*"
    servers = [
        Server(
            name=cell.name,
            address=f"{cell.address}:{cell.ports.api_tls}",
            weight=cell.host.weight,
        )
        for cell in plan.cells
    ]
    cloud = plan.cloud
    return {
        "edge": {
            "http_bind": f"{anywhere}:{ports.http}",
            "https_bind": f"{anywhere}:{ports.https}",
            "public_url": plan.public_url,
            "connections_per_client": rules.connections_per_client,
            "requests_per_10_s": rules.requests_per_10_s,
            "servers": servers,
            "both": plan.site.failover.serving == "both",
            "unchecked": UNCHECKED,
            "cells": _milliseconds(rules.cells),
            "emergency": _milliseconds(rules.emergency),
            "cloud": None
            if cloud is None
            else Server(cloud.name, f"{cloud.address}:{cloud.ports.api_tls}"),
        },
        "exporter_bind": f"{host.address}:{ports.exporter}",
        "primary": _primary(plan, host),
        "copy": None
        if cloud is None
        else {"bind": f"{host.address}:{ports.copy_tls}", "allowed": cloud.name},
    }


def _cell_values(plan: Plan, host: HostPlan) -> dict[str, object]:
    others = [cell for cell in plan.cells if cell.name != host.name]
    edges = [edge.name for edge in plan.edges]
    tunnels = [
        {
            "name": f"peer_{other.name}",
            "why": "The other cell's API, for blobs and models.",
            "port": host.ports.peer,
            "servers": [Server(other.name, f"{other.address}:{other.ports.api_tls}")],
        }
        for other in others
    ]
    if plan.ground != "loopback":
        tunnels += [
            {
                "name": f"postgres_{other.name}",
                "why": "The other cell's PostgreSQL, at the port that it has on its own host.",
                "port": other.ports.postgres,
                "servers": [Server(other.name, f"{other.address}:{other.ports.postgres_tls}")],
            }
            for other in others
        ]
    return {
        **_api_values(plan, host),
        "primary": _primary(plan, host),
        "postgres": {
            "bind": f"{host.address}:{host.ports.postgres_tls}",
            "port": host.ports.postgres,
            "allowed": _words([*(other.name for other in others), *edges]),
        },
        "tunnels": tunnels,
    }


def _emergency_values(plan: Plan, host: HostPlan) -> dict[str, object]:
    servers = [
        Server(
            edge.name,
            f"{edge.address}:{edge.ports.copy_tls}",
            check=" check inter 2s" + ("" if index == 0 else " backup"),
        )
        for index, edge in enumerate(plan.edges)
    ]
    tunnel = {
        "name": "copy",
        "why": "The site's PostgreSQL, for the emergency copy.",
        "port": host.ports.copy,
        "servers": servers,
    }
    return {**_api_values(plan, host), "tunnels": [tunnel]}


def _api_values(plan: Plan, host: HostPlan) -> dict[str, object]:
    """What both kinds of cells have: their API, on the loopback and for the site."""
    peers = [cell.name for cell in plan.cells if cell != host]
    return {
        "public_port": host.cell_ports.public,
        "application": "api",
        "site_front": {
            "bind": f"{host.address}:{host.ports.api_tls}",
            "edges": _words([edge.name for edge in plan.edges]),
            "peers": _words(peers),
        },
        "exporter_bind": f"{host.address}:{host.ports.exporter}",
    }


def _primary(plan: Plan, host: HostPlan) -> dict[str, object]:
    """Every PostgreSQL of the site with Patroni's check; our own, and those of a loopback, directly."""
    servers = []
    for cell in plan.cells:
        direct = cell.name == host.name or plan.ground == "loopback"
        servers.append(
            Server(
                name=cell.name,
                address=f"{LOOPBACK}:{cell.ports.postgres}"
                if direct
                else f"{cell.address}:{cell.ports.postgres_tls}",
                tunnel=not direct,
                check_host=cell.address,
                check_port=cell.ports.patroni,
            )
        )
    return {"port": host.ports.primary, "servers": servers}


def _milliseconds(checks: Checks) -> dict[str, int]:
    return {
        "every_ms": int(checks.every_s * 1000),
        "fast_ms": int(checks.fast_s * 1000),
        "timeout_ms": int(checks.timeout_s * 1000),
        "rise": checks.rise,
        "fall": checks.fall,
    }


def _words(names: Sequence[str]) -> str:
    return " ".join(names)


_VALUES = {"edge": _edge_values, "cell": _cell_values, "emergency": _emergency_values}
