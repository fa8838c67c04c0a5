"""systemd's units of a Linux host: its services in order below `medrec.target`, the firewall, timers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from deployments.site.plan import HostPlan, Plan
from deployments.site.services import Service, Timed, services, timers
from deployments.site.templates import filled

FOLDER = Path("/etc/systemd/system")
TARGET = "medrec.target"
# Of keepalived: addresses and raw packets, its check under another account, files of that account.
_KEEPALIVED = (
    "CAP_NET_ADMIN CAP_NET_RAW CAP_NET_BROADCAST CAP_SETUID CAP_SETGID CAP_DAC_OVERRIDE CAP_KILL"
)
# Patroni that ends leaves its PostgreSQL running, and takes it over again.
_KILL = {"patroni": "process"}
# The first to be spared when memory ends: without them the other host would have to take over.
_SCORES = {"etcd": -800, "patroni": -600, "keepalived": -800, "haproxy": -800, "steward": -600}
_WAIT = "deployments.site.wait"


def unit_files(plan: Plan, host: HostPlan) -> Mapping[Path, str]:
    """Every unit of a host by its path in /etc/systemd/system."""
    made = {TARGET: filled("medrec.target.j2", host=host.name, site=plan.site.name)}
    rules = host.folder / "firewall" / "nftables.conf"
    made["medrec-firewall.service"] = filled("medrec-firewall.service.j2", rules=rules)
    for service in services(plan, host):
        made[_unit(service.program.name)] = _service(host, service)
    for timed in timers(plan, host):
        made[_unit(timed.name)] = _timed(host, timed)
        made[f"medrec-{timed.name}.timer"] = filled(
            "medrec.timer.j2", name=timed.name, calendar=timed.calendar
        )
    return {FOLDER / name: text for name, text in made.items()}


def units(plan: Plan, host: HostPlan) -> tuple[str, ...]:
    """The names that `systemctl enable` is given."""
    by_timers = {_unit(timed.name) for timed in timers(plan, host)}
    return tuple(p.name for p in unit_files(plan, host) if p.name not in by_timers)


def _service(host: HostPlan, service: Service) -> str:
    program = service.program
    is_root = service.user == "root"
    low = "CAP_NET_BIND_SERVICE" if service.binds_low else None
    check = (program.command[0], "-c", "-q", "-f", str(host.haproxy_config))
    return filled(
        "medrec.service.j2",
        name=program.name,
        host=host.name,
        after=[_unit(name) for name in program.after],
        command=_line(program.command),
        user=service.user,
        home=host.home.path,
        environment=_settings(program.environment),
        wait=_wait(host, service),
        check=_line(check) if program.name == "haproxy" else None,
        only_if=service.only_if,
        # Patroni reads its file and certificates again on SIGHUP.
        reload_signal="HUP" if program.name == "patroni" else program.reload_signal,
        capabilities=_KEEPALIVED if is_root else low,
        is_root=is_root,
        families="AF_UNIX AF_INET AF_INET6 AF_NETLINK" + (" AF_PACKET" if is_root else ""),
        kill_mode=_KILL.get(program.name, "mixed"),
        stop_s=int(program.stop_s) + 10,
        score=_SCORES.get(program.name, 0),
    )


def _wait(host: HostPlan, service: Service) -> str | None:
    """The network is there by systemd's order; what a program tells of itself is waited for."""
    needs = [need for need in service.needs if not need.startswith("address:")]
    if not needs:
        return None
    return _line((host.python, "-m", _WAIT, *needs))


def _timed(host: HostPlan, timed: Timed) -> str:
    return filled(
        "medrec-timed.service.j2",
        name=timed.name,
        host=host.name,
        command=_line(timed.command),
        user=timed.user,
        home=host.home.path,
        environment=_settings(timed.environment),
        secrets=host.folder / "drill.env",
    )


def _unit(name: str) -> str:
    return f"medrec-{name}.service"


def _settings(environment: Mapping[str, str]) -> list[str]:
    return [_quoted(f"{name}={value}") for name, value in environment.items()]


def _line(words: Sequence[str]) -> str:
    return " ".join(map(_quoted, words))


def _quoted(word: str) -> str:
    """A word as systemd reads it: percent signs and dollars are its own."""
    plain = word.replace("\\", "\\\\").replace("%", "%%").replace("$", "$$").replace('"', '\\"')
    return f'"{plain}"' if any(c in plain for c in " \t;'\"") or not plain else plain
