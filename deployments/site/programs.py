"""Which programs a host runs, in which order: one table, from which systemd units, launchd jobs and
the local site are made alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from deployments.cell.ports import Ports
from deployments.cell.state import HOME_VARIABLE
from deployments.site.plan import HostPlan, Plan

Account = Literal["medrec", "postgres", "root"]


@dataclass(frozen=True, slots=True)
class Program:
    """One long-running program of a host, in the foreground."""

    name: str
    command: tuple[str, ...]
    account: Account
    after: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    stop_s: float = 20.0
    reload_signal: str | None = None


def programs(plan: Plan, host: HostPlan, binaries: Mapping[str, str]) -> tuple[Program, ...]:
    """The programs of `host` in the order of their start; `binaries` are paths by program name."""
    role = host.host.role
    found: list[Program] = []
    if host.name in plan.site.etcd_hosts:
        command: tuple[str, ...] = (binaries["etcd"], "--config-file", str(host.etcd_config))
        found.append(Program("etcd", command, "medrec"))
    if role != "witness":
        command = (binaries["haproxy"], "-W", "-db", "-f", str(host.haproxy_config))
        # Below 1024 an edge needs root to bind; HAProxy gives it up itself (`user` in its file).
        found.append(
            Program(
                "haproxy", command, "root" if role == "edge" else "medrec", reload_signal="USR2"
            )
        )
    if role == "cell":
        found.append(_python(host, "patroni", "postgres", "patroni", str(host.patroni_config)))
    if role in ("cell", "emergency"):
        after = ("haproxy", "patroni") if role == "cell" else ("haproxy",)
        found.append(
            _medrec(
                host,
                "cell",
                *("up", "--config", str(host.cell_config), "--behind-edge"),
                *("--port-offset", str(host.cell_ports.gcs - Ports().gcs)),
                after=after,
                stop_s=60.0,
            )
        )
    if role == "edge":
        found.append(
            _medrec(host, "steward", "site", "steward", "--host", host.name, after=("haproxy",))
        )
        if plan.ground != "loopback" and plan.site.edge.address is not None:
            pid = host.keepalived_config.parent
            command = (
                *(binaries["keepalived"], "--dont-fork", "--log-console"),
                *("--use-file", str(host.keepalived_config), "--pid", str(pid / "keepalived.pid")),
                *("--vrrp_pid", str(pid / "vrrp.pid"), "--checkers_pid", str(pid / "checkers.pid")),
            )
            found.append(Program("keepalived", command, "root", after=("haproxy",)))
    return tuple(found)


def _python(host: HostPlan, name: str, account: Account, *words: str) -> Program:
    return Program(name, (host.python, "-m", *words), account, stop_s=60.0)


def _medrec(
    host: HostPlan, name: str, *words: str, after: tuple[str, ...] = (), stop_s: float = 20.0
) -> Program:
    return Program(
        name,
        (host.python, "-m", "serve_app.cli", *words),
        "medrec",
        after=after,
        environment={HOME_VARIABLE: str(host.home.path), "PYTHONPATH": str(host.project)},
        stop_s=stop_s,
    )
