"""Certificates for a site of tests, from the site's own authority."""

from __future__ import annotations

from pathlib import Path

from deployments.site.plan import Plan
from deployments.site.trust.authority import create


def certify(plan: Plan, folder: Path) -> None:
    """Give every host of the plan its certificates, and the edges theirs."""
    authority = create(folder, plan.site.name)
    for host in plan.hosts.values():
        authority.issue("host", host.name, [host.name, host.address]).copy_to(host.tls)
    edge = authority.issue("edge", "edge", [plan.site.edge.public_name])
    for host in plan.edges:
        edge.copy_to(host.tls)
