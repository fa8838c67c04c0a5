"""Prometheus of a site: what it scrapes, by the hosts' certificates, and the rules it alerts by."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import jinja2

from configs.reader import PROJECT_ROOT
from deployments.site.plan import HostPlan, Plan

FOLDER = PROJECT_ROOT / "configs" / "prometheus"
RULES = FOLDER / "rules.yaml"
# Where the certificates of the machine that scrapes lie: those of `medrec ca host monitoring`.
TLS = Path("/etc/prometheus/tls")


@dataclass(frozen=True, slots=True)
class Target:
    """One address to scrape, and the host behind it."""

    address: str
    host: str


@dataclass(frozen=True, slots=True)
class Job:
    """Targets of one kind; docs/runbook.md goes by the names."""

    name: str
    path: str
    targets: tuple[Target, ...]


def jobs(plan: Plan) -> tuple[Job, ...]:
    """The stewards of the edges, every HAProxy, and the cells behind theirs."""
    cells = (*plan.cells, *([plan.cloud] if plan.cloud is not None else []))
    return (
        Job("medrec-site", "/metrics", _targets(plan.edges, lambda host: host.ports.steward)),
        Job("medrec-cell", "/cell/metrics", _targets(cells, lambda host: host.ports.exporter)),
        Job(
            "medrec-haproxy",
            "/metrics",
            _targets((*plan.edges, *cells), lambda host: host.ports.exporter),
        ),
    )


def prometheus_files(
    plan: Plan, *, tls: Path = TLS, alertmanager: str | None = None
) -> Mapping[str, str]:
    """`prometheus.yml` and `rules.yaml`, by name. `alertmanager` is `host:port` of one, if any."""
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, autoescape=False, keep_trailing_newline=True
    )
    template = environment.from_string((FOLDER / "prometheus.yml.j2").read_text(encoding="utf-8"))
    text = template.render(site=plan.site.name, jobs=jobs(plan), tls=tls, alertmanager=alertmanager)
    return {"prometheus.yml": text, RULES.name: RULES.read_text(encoding="utf-8")}


def _targets(hosts: Iterable[HostPlan], port: Callable[[HostPlan], int]) -> tuple[Target, ...]:
    return tuple(Target(f"{host.address}:{port(host)}", host.name) for host in hosts)
